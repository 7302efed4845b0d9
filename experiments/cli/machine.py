"""`setup`, `doctor`, `nodes` and `test`: this machine, its steering, and the project's checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.stacks import Json
from experiments.cli.terminal import note, show, show_json

nodes = typer.Typer(
    help="Show, apply or restore the steering of this node, without any experiment.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    app.command()(setup)
    app.command()(doctor)
    app.add_typer(nodes, name="nodes")
    nodes.command("show")(nodes_show)
    nodes.command("apply")(nodes_apply)
    nodes.command("restore")(nodes_restore)
    app.command()(test)


def setup(
    pulumi: Annotated[bool, typer.Option("--pulumi", help="Install the Pulumi CLI too.")] = False,
) -> None:
    """Set this machine up; the wrapper has done so by the time this runs."""
    if pulumi:
        _install_pulumi()
    from experiments import requirements

    requirements.require_lab()
    show("this machine is ready: ./steerlab sweep --quick")


def _install_pulumi() -> None:
    from pulumi.automation import PulumiCommand

    from infra.refusals import Cannot

    try:
        command = PulumiCommand.install()
    except Exception as error:
        raise Cannot(
            f"the Pulumi CLI could not be downloaded ({error}); everything works without it: "
            "--engine embedded"
        ) from None
    note(f"Pulumi {command.version} is installed; put its folder on PATH: {command.command}")


def doctor(json: Json = False) -> None:
    """Say what this machine is, what it lacks for the lab, and what holds its steering now."""
    from experiments.doctor import examine

    findings = examine()
    if json:
        show_json(findings.to_json())
    else:
        show(findings.text())
    if findings.missing:
        raise typer.Exit(3)


Owner = Annotated[str, typer.Option(help="Name under which the snapshot is kept.")]


def nodes_show(json: Json = False) -> None:
    """Print the steering of every receive queue of this node."""
    from experiments import nodes

    answer = nodes.show()
    if json:
        show_json(answer)
    else:
        show(nodes.text(answer))


def nodes_apply(
    configuration: Annotated[str, typer.Argument(help="Such as rps or rfs-plus.")],
    nic: Annotated[str, typer.Option(help="Device on the wire; auto finds it.")] = "auto",
    overlay: Annotated[
        str, typer.Option(help="Overlay device; auto finds one, none has none.")
    ] = "auto",
    pods: Annotated[bool, typer.Option(help="Also steer the pods' own devices.")] = True,
    own: Annotated[str, typer.Option(help="YAML file with further configurations.")] = "",
    lease: Annotated[str, typer.Option(help="Restore by itself after so long (2h).")] = "none",
    owner: Owner = "nodes",
    persist: Annotated[
        bool, typer.Option("--persist", help="Also at every boot: a systemd unit.")
    ] = False,
    json: Json = False,
) -> None:
    """Steer this node's devices; what they had is kept for `nodes restore`."""
    from experiments import nodes, requirements
    from experiments.nodes import Choice

    requirements.require_root()
    answer = nodes.apply(
        Choice(configuration, nic, overlay, pods, own, lease, owner), persist=persist
    )
    if json:
        show_json(answer)
    else:
        show(nodes.text(answer))
        note("undo it with ./steerlab nodes restore" + (f" --owner {owner}" * (owner != "nodes")))


def nodes_restore(owner: Owner = "nodes", json: Json = False) -> None:
    """Give every device of this node back what it had before `nodes apply`."""
    from experiments import nodes, requirements

    requirements.require_root()
    answer = nodes.restore(owner)
    if json:
        show_json(answer)
    else:
        show(f"restored {answer['changed']} values of {owner}")


def test(
    cluster: Annotated[bool, typer.Option("--cluster", help="The cluster tier alone.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Also soak and full kill runs.")] = False,
    words: Annotated[list[str] | None, typer.Argument(help="More words for pytest.")] = None,
) -> None:
    """Run ruff, mypy and pytest; what is skipped is printed with its reason."""
    root = Path(__file__).resolve().parent.parent.parent
    marks = ["-m", "cluster"] if cluster else ([] if long else ["-m", "not long"])
    checks = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["pytest", *marks, *(words or [])],
    ]
    for check in checks:
        note("$ " + " ".join(check))
        done = subprocess.run([sys.executable, "-m", *check], cwd=root, check=False)
        if done.returncode != 0:
            raise typer.Exit(1)
