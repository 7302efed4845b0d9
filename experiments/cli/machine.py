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
from experiments.cli.terminal import note, show, show_answer, show_json, waiting
from infra.commands import command

if TYPE_CHECKING:
    from experiments.host.nodes import Choice

nodes = typer.Typer(
    cls=terminal.Group,
    help="Show, preview, apply or restore settings of this node; advise which to race; roll settings out "
    "to the nodes of a cluster.",
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
    """Install the lab's requirements, as root. Commands of the lab also do this by themselves."""
    if pulumi:
        _install_pulumi()
    from experiments.targets.lab import requirements

    requirements.require_lab(requirements.ALL_TOOLS)
    show("this machine is ready; to measure it: ./steerlab sweep --quick")


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

    For a cluster, doctor checks the API, rights and labels. It creates a stack's objects for a
    short time, sends a second of traffic, names what refuses a pod, and checks images, devices,
    kernel and offloads. It reads steering and never writes it.
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
        help="Network namespaces of pods: path or pattern; may be repeated. Default: those of containerd and CRI-O.",
        metavar="PATH",
    ),
]

Named = Annotated[str, typer.Argument(help="Name of a configuration, such as rps or rfs-plus.")]
Nics = Annotated[
    list[str] | None,
    typer.Option(
        "--nic",
        help="Device on the wire; may be repeated. Default: the device below the overlay, or that of the "
        "default route. For a bond, VLAN or bridge, its lower devices are steered.",
        metavar="DEVICE",
    ),
]
Overlay = Annotated[
    str, typer.Option(help="Overlay device; auto finds it; none: no overlay.", metavar="DEVICE")
]
Pods = Annotated[
    bool, typer.Option(help="Also steer the pods' devices: host veths and eth0 inside.")
]
Own = Annotated[str, typer.Option(help="YAML file with further configurations.", metavar="FILE")]


Kubeconfig = Annotated[
    str, typer.Option(help="Of the cluster; default: that of kubectl.", metavar="FILE")
]
Context = Annotated[
    str, typer.Option(help="In the kubeconfig; default: its current one.", metavar="NAME")
]
AuditFile = Annotated[
    Path, typer.Option(help="The local audit log of rollouts: JSON lines.", metavar="FILE")
]
AUDIT = Path("results/audit.jsonl")


class Form(StrEnum):
    """Programs that can keep the steering without this project."""

    SYSTEMD = "systemd"
    DAEMONSET = "daemonset"


def nodes_show(namespace: Namespaces = None, json: Json = False) -> None:
    """Print the settings of every queue and device of this node, and their owners.

    \b
    ./steerlab nodes show
    ./steerlab nodes show --json | jq '.queues[] | select(.rps_cpus != "0")'
    """
    from experiments.host import nodes
    from experiments.targets.lab import requirements

    requirements.require_root()
    answer = nodes.show(namespace or nodes.PODS)
    show_answer(answer, nodes.show_text, json=json)


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
    """Print each value that `nodes apply` would write, with its present value; write nothing.

    \b
    ./steerlab nodes preview rfs-plus
    """
    from experiments.host import nodes
    from experiments.targets.lab import requirements

    choice = chosen(configuration, nic, overlay, pods, namespace, own, "", owner)
    requirements.require_root()
    answer = nodes.preview(choice)
    show_answer(answer, nodes.preview_text, json=json)


def chosen(
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
        pods=(namespace or PODS) if pods else [],
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
            help="Restore automatically after this time (90s, 30m, 2h), or none. Default: the present lease.",
            metavar="TIME",
        ),
    ] = "",
    owner: Owner = "nodes",
    persist: Annotated[
        bool,
        typer.Option(
            "--persist", help="Also apply it at every boot and to new devices, by a systemd unit."
        ),
    ] = False,
    form: Annotated[
        Form | None,
        typer.Option(
            "--print", help="Change nothing; print the files of --persist, or a DaemonSet."
        ),
    ] = None,
    image: Annotated[
        str,
        typer.Option(
            help="Image of the DaemonSet: any with sh and python3, such as the image steering of docker/build.",
            metavar="IMAGE",
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Apply a configuration to this node's devices; `nodes restore` undoes it.

    \b
    ./steerlab nodes apply rfs-plus --lease 2h   # try it; restored after two hours
    ./steerlab nodes apply rfs-plus --persist    # keep it, also after reboots
    ./steerlab nodes apply rps --nic ens5 --nic ens6 --overlay none --no-pods
    ./steerlab nodes apply rfs-plus --print daemonset --image IMAGE | kubectl apply -f -

    A repeated apply also steers new devices. `nodes restore` restores the values before the first
    apply. The DaemonSet is for all Linux nodes of a cluster; `kubectl delete -f -` of the same
    text restores them. `nodes rollout` changes some nodes, in steps.
    """
    from experiments.host import nodes
    from experiments.targets.lab import requirements
    from infra.errors import InvalidInput
    from infra.lease import words as in_words

    choice = chosen(configuration, nic, overlay, pods, namespace, own, lease, owner)
    if form:
        _print(form, choice, image, json)
        return
    if image:
        raise InvalidInput("image: only with --print daemonset")
    requirements.require_root()
    answer = nodes.apply(choice, keep=persist)
    undo = command("nodes", "restore", *(["--owner", owner] if owner != "nodes" else []))
    show_answer(answer, nodes.apply_text, json=json)
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
        bool,
        typer.Option(
            "--all", help="Restore the values of every owner, also of labs and experiments."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also replace values that others have written since.")
    ] = False,
    selector: Annotated[
        str,
        typer.Option(
            help="Restore these nodes of a cluster after `nodes rollout`.", metavar="LABELS"
        ),
    ] = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    audit: AuditFile = AUDIT,
    declared: Annotated[bool, typer.Option("--declared", hidden=True)] = False,
    json: Json = False,
) -> None:
    """Restore the values that this node had before `nodes apply`, or nodes of a cluster before rollouts.

    \b
    ./steerlab nodes restore
    ./steerlab nodes restore --all
    ./steerlab nodes restore --selector pool=edge    # from any machine

    It is safe to repeat. A value that somebody else has written since the apply is reported and
    not changed, unless --force is given. The files of --persist are removed.
    """
    from experiments.host import nodes
    from experiments.targets.lab import requirements
    from infra.errors import InvalidInput

    if declared:  # used by stacks of the first version on destroy
        hook.call("restore")
        return
    if not selector and (kubeconfig or context):
        raise InvalidInput(
            "selector: name the nodes of the cluster by labels: --selector pool=edge"
        )
    if selector and (everybody or owner != "nodes"):
        raise InvalidInput(
            "selector: of a cluster's nodes rollouts alone are restored: omit --all, --owner"
        )
    if selector:
        from experiments.cli.restoring import restore

        restore(selector, kubeconfig, context, audit, force=force, json=json)
        return
    requirements.require_root()
    answer = nodes.restore(None if everybody else owner, force=force)
    show_answer(answer, nodes.restore_text, json=json)


# The unit tests share nothing and run on all cores; the lab and the cluster need the machine alone.
_PARTS = (["-n", "auto", "--dist", "worksteal", "tests/unit"], ["tests/lab", "tests/cluster"])


def test(
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster", help="Also test on a Kubernetes that the tests start on this machine."
        ),
    ] = False,
    long: Annotated[
        bool, typer.Option("--long", help="Also run the tests that take hours.")
    ] = False,
    words: Annotated[list[str] | None, typer.Argument(help="Further arguments for pytest.")] = None,
) -> None:
    """Run ruff, mypy and pytest; list skipped tests with the reason."""
    from experiments.targets.lab import requirements

    requirements.prepare_tests()
    root = Path(__file__).resolve().parent.parent.parent
    marks = ["-m", ""] if long else []  # pyproject.toml leaves them out
    checks = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        *(["pytest", *marks, *part] for part in ([words] if words else _PARTS)),
    ]
    environment = {**os.environ, "STEERLAB_CLUSTER": "1"} if cluster else None
    for check in checks:
        note("$ " + " ".join(check))
        done = subprocess.run(
            [sys.executable, "-m", *check], cwd=root, env=environment, check=False
        )
        if done.returncode != 0:
            raise typer.Exit(1)
