"""`setup`, `doctor`, `nodes` and `test`: this machine, its steering, and the project's checks."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli import hook, terminal
from experiments.cli.stacks import Json
from experiments.cli.terminal import note, show, show_json, waiting
from infra.commands import command

if TYPE_CHECKING:
    from experiments.host.nodes import Choice

nodes = typer.Typer(
    cls=terminal.Group,
    help="Show, preview, apply or restore settings of this node, without any experiment.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    terminal.register(app, setup)
    terminal.register(app, doctor)
    app.add_typer(nodes, name="nodes")
    terminal.register(nodes, nodes_show, "show")
    terminal.register(nodes, nodes_preview, "preview")
    terminal.register(nodes, nodes_apply, "apply")
    terminal.register(nodes, nodes_restore, "restore")
    terminal.register(app, test)


def setup(
    pulumi: Annotated[bool, typer.Option("--pulumi", help="Install the Pulumi CLI too.")] = False,
) -> None:
    """Install the lab's requirements, as root. Commands that need them do so by themselves."""
    if pulumi:
        _install_pulumi()
    from experiments.targets.lab import requirements

    requirements.require_lab()
    show("this machine is ready: ./steerlab sweep --quick")


def _install_pulumi() -> None:
    from pulumi.automation import PulumiCommand

    from infra.errors import PrerequisiteMissing

    try:
        command = PulumiCommand.install()
    except Exception as error:
        raise PrerequisiteMissing(
            f"the Pulumi CLI could not be downloaded ({error}); everything works without it: "
            "--engine embedded"
        ) from None
    note(f"Pulumi {command.version} is installed; put its folder on PATH: {command.command}")


def doctor(
    target: Annotated[
        str,
        typer.Option(help="lab (this machine) or kubernetes (a cluster).", metavar="TARGET"),
    ] = "lab",
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            help="A key of the cluster's stacks, such as kubernetes.context.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Examine this machine or a cluster: properties, missing prerequisites, sources of error.

    \b
    ./steerlab doctor
    ./steerlab doctor --target kubernetes -c kubernetes.images="$IMAGES"

    Of a cluster: the API, rights, labels, and by two short-lived namespaces with a pod of each
    image on each node: images, overlay, kernel, offloads. Steering is read, never written.
    """
    from experiments.engines import stacks
    from experiments.targets import TARGETS
    from infra import keys
    from infra.errors import InvalidInput

    if target not in TARGETS:
        raise InvalidInput(f"target: {target!r} is unknown (known: {', '.join(TARGETS)})")
    changes = stacks.changes(config or [])
    if words := keys.renamed(changes):
        note(words)
    with waiting("examining", 10):
        findings = TARGETS[target].examine(changes)
    if json:
        show_json(findings.to_json())
    else:
        show(findings.text())
    if findings.missing:
        raise typer.Exit(3)


Owner = Annotated[str, typer.Option(help="Name under which the snapshot is kept.", metavar="NAME")]
Namespaces = Annotated[
    list[str] | None,
    typer.Option(
        "--namespace",
        help="Network namespaces of pods, path or pattern, may be repeated (else /run/netns/cni-*).",
        metavar="PATH",
    ),
]

Named = Annotated[str, typer.Argument(help="Such as rps or rfs-plus.")]
Nics = Annotated[
    list[str] | None,
    typer.Option(
        "--nic",
        help="Device on the wire, may be repeated (else that of the overlay or of the default "
        "route). Of a bond, VLAN or bridge the devices below it are steered.",
        metavar="DEVICE",
    ),
]
Overlay = Annotated[
    str, typer.Option(help="Overlay device; auto finds one, none has none.", metavar="DEVICE")
]
Pods = Annotated[bool, typer.Option(help="Also the pods' devices: their veths here, eth0 within.")]
Own = Annotated[str, typer.Option(help="YAML file with further configurations.", metavar="FILE")]


class Form(StrEnum):
    """What can keep the steering without this project."""

    SYSTEMD = "systemd"
    DAEMONSET = "daemonset"


def nodes_show(namespace: Namespaces = None, json: Json = False) -> None:
    """Print the settings of every queue and device of this node, and who holds them.

    \b
    ./steerlab nodes show
    ./steerlab nodes show --json | jq '.queues[] | select(.rps_cpus != "0")'
    """
    from experiments.host import nodes
    from experiments.targets.lab import requirements

    requirements.require_root()
    answer = nodes.show(namespace or [nodes.PODS])
    if json:
        show_json(answer)
    else:
        show(nodes.show_text(answer))


def nodes_preview(
    configuration: Named = "",
    nic: Nics = None,
    overlay: Overlay = "auto",
    pods: Pods = True,
    namespace: Namespaces = None,
    own: Own = "",
    owner: Owner = "nodes",
    json: Json = False,
) -> None:
    """Print each value that `nodes apply` would write, now and then; write nothing.

    \b
    ./steerlab nodes preview rfs-plus
    """
    from experiments.host import nodes
    from experiments.targets.lab import requirements

    choice = _choice(configuration, nic, overlay, pods, namespace, own, "", owner)
    requirements.require_root()
    answer = nodes.preview(choice)
    if json:
        show_json(answer)
    else:
        show(nodes.preview_text(answer))


def _choice(
    configuration: str,
    nic: list[str] | None,
    overlay: str,
    pods: bool,
    namespace: list[str] | None,
    own: str,
    lease: str,
    owner: str,
) -> Choice:
    from experiments.host.nodes import PODS, Choice
    from infra.errors import InvalidInput

    if not configuration:
        raise InvalidInput("nodes: name a configuration, such as rps or rfs-plus")
    if namespace and not pods:
        raise InvalidInput("namespace: with --no-pods no namespace is looked into")
    return Choice(
        configuration,
        nics=nic or ["auto"],
        overlay=overlay,
        pods=(namespace or [PODS]) if pods else [],
        own=own,
        lease=lease,
        owner=owner,
    )


def nodes_apply(
    configuration: Named = "",
    nic: Nics = None,
    overlay: Overlay = "auto",
    pods: Pods = True,
    namespace: Namespaces = None,
    own: Own = "",
    lease: Annotated[
        str,
        typer.Option(
            help="Restore automatically after this time (90s, 30m, 2h), or none (default: as now).",
            metavar="TIME",
        ),
    ] = "",
    owner: Owner = "nodes",
    persist: Annotated[
        bool,
        typer.Option(
            "--persist", help="Also at every boot and for new devices, with a systemd unit."
        ),
    ] = False,
    form: Annotated[
        Form | None,
        typer.Option("--print", help="Change nothing: print the files that would keep it."),
    ] = None,
    image: Annotated[
        str,
        typer.Option(
            help="Image of the daemonset: any with sh and python3, such as steering of docker/build.",
            metavar="IMAGE",
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Apply a configuration to this node's devices; `nodes restore` goes back.

    \b
    ./steerlab nodes apply rfs-plus --lease 2h   # try it; restored after two hours
    ./steerlab nodes apply rfs-plus --persist    # keep it, also over reboots
    ./steerlab nodes apply rps --nic ens5 --nic ens6 --overlay none --no-pods
    ./steerlab nodes apply rfs-plus --print daemonset --image IMAGE | kubectl apply -f -

    Applying again adds new devices; a restore still goes back to the values before the first apply.
    """
    from experiments.host import nodes
    from experiments.targets.lab import requirements
    from infra.errors import InvalidInput
    from infra.lease import words as in_words

    choice = _choice(configuration, nic, overlay, pods, namespace, own, lease, owner)
    if form:
        _print(form, choice, image, json)
        return
    if image:
        raise InvalidInput("image: only --print daemonset has one")
    requirements.require_root()
    answer = nodes.apply(choice, keep=persist)
    undo = command("nodes", "restore", *(["--owner", owner] if owner != "nodes" else []))
    if json:
        show_json(answer)
    else:
        show(nodes.apply_text(answer))
    seconds = answer["lease_seconds"]
    by_itself = f"; automatically in {in_words(seconds)}" if seconds else ""
    note(f"undo it with {undo}{by_itself}")


def _print(form: Form, choice: Choice, image: str, json: bool) -> None:
    from experiments.host import daemonset, nodes, persist
    from infra.errors import InvalidInput

    plan = nodes.kept_plan(choice)
    if form is Form.DAEMONSET:
        if not image:
            raise InvalidInput(
                "image: --print daemonset needs --image, with sh and python3 in it: "
                "docker/build --repository REGISTRY/NAME --push prints one (steering)"
            )
        typer.echo(daemonset.manifest(plan, choice.configuration, image))
        return
    written = persist.files(plan, choice.configuration)
    if json:
        files = {file.path: persist.printable(file) for file in written}
        show_json({"files": files, "then": persist.steps_to_start()})
    else:
        typer.echo(persist.in_words(written))


def nodes_restore(
    owner: Owner = "nodes",
    everybody: Annotated[
        bool, typer.Option("--all", help="For every owner, also labs and experiments.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also replace values that others wrote meanwhile.")
    ] = False,
    declared: Annotated[bool, typer.Option("--declared", hidden=True)] = False,
    json: Json = False,
) -> None:
    """Restore the values that this node had before `nodes apply`.

    \b
    ./steerlab nodes restore
    ./steerlab nodes restore --all

    Safe to repeat. A value that somebody else has written meanwhile is reported and left, unless
    --force. What --persist installed is removed.
    """
    from experiments.host import nodes
    from experiments.targets.lab import requirements

    if declared:  # what a stack of the first version runs when it goes
        hook.call("restore")
        return
    requirements.require_root()
    answer = nodes.restore(None if everybody else owner, force=force)
    if json:
        show_json(answer)
    else:
        show(nodes.restore_text(answer))


def test(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also on a Kubernetes started here.")
    ] = False,
    long: Annotated[bool, typer.Option("--long", help="Also soak and full kill runs.")] = False,
    words: Annotated[list[str] | None, typer.Argument(help="More words for pytest.")] = None,
) -> None:
    """Run ruff, mypy and pytest; skipped tests are listed with the reason."""
    from experiments.targets.lab import requirements

    requirements.prepare_tests()
    root = Path(__file__).resolve().parent.parent.parent
    marks = [] if long else ["-m", "not long"]
    checks = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["pytest", *marks, *(words or [])],
    ]
    environment = {**os.environ, "STEERLAB_CLUSTER": "1"} if cluster else None
    for check in checks:
        note("$ " + " ".join(check))
        done = subprocess.run(
            [sys.executable, "-m", *check], cwd=root, env=environment, check=False
        )
        if done.returncode != 0:
            raise typer.Exit(1)
