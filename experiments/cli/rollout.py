"""`nodes rollout`: a configuration for the nodes of a cluster, one canary first."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.cli import terminal
from experiments.cli.machine import (
    AUDIT,
    AuditFile,
    Context,
    Kubeconfig,
    Named,
    Namespaces,
    Nics,
    Overlay,
    Own,
    Pods,
    chosen,
)
from experiments.cli.stacks import Json
from experiments.cli.terminal import note, show, show_json, waiting
from infra.commands import command


def register(app: typer.Typer) -> None:
    terminal.register(app, nodes_rollout, "rollout")


def nodes_rollout(
    configuration: Named = "",
    selector: Annotated[
        str, typer.Option(help="Labels of the nodes, as for kubectl.", metavar="LABELS")
    ] = "",
    image: Annotated[
        str,
        typer.Option(
            help="Image of the agents: any with sh and python3, such as the image steering of docker/build.",
            metavar="IMAGE",
        ),
    ] = "",
    batch: Annotated[
        int, typer.Option(help="Nodes that change at once, after the canary.", min=1, max=1000)
    ] = 5,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="Compare each node's health with that before its trial; undo what is worse.",
        ),
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(help="Length of each reading of the gate.", min=1, max=20, metavar="SECONDS"),
    ] = 10.0,
    max_nodes: Annotated[
        int, typer.Option(help="Refuse to change more nodes than this.", min=1)
    ] = 100,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print what would change on each node; change no setting."),
    ] = False,
    nic: Nics = None,
    overlay: Overlay = "auto",
    pods: Pods = True,
    namespace: Namespaces = None,
    own: Own = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    audit: AuditFile = AUDIT,
    json: Json = False,
) -> None:
    """Apply a configuration to nodes of a cluster: one canary, then batches; keep it.

    \b
    ./steerlab nodes rollout rps --selector pool=edge --image IMAGE --plan
    ./steerlab nodes rollout rps --selector pool=edge --image IMAGE --gate --batch 10
    ./steerlab nodes restore --selector pool=edge

    Each node gets the configuration as a trial first. Where a node is worse with it (--gate), is not
    Ready or refuses it, the trials of the whole batch are undone, and the rollout stops. After an
    interrupt or a crash run the same command again: it undoes the interrupted trials and continues. A
    trial that nobody continues is undone by its node.

    A kept configuration is applied again after a reboot and, each minute, to new pods. `nodes restore
    --selector` undoes it.
    """
    from agent.rollout import OWNER
    from experiments.host import nodes
    from experiments.rollout import run, states, words
    from experiments.rollout.audit import AuditLog
    from experiments.rollout.kubernetes import Wanted, Where, opened
    from infra.errors import InvalidInput
    from infra.kubernetes.ownership import holder

    choice = chosen(configuration, nic, overlay, pods, namespace, own, "", OWNER)
    document = nodes.planned(choice)
    if not selector:
        raise InvalidInput("selector: name the nodes by labels: --selector pool=edge")
    if not image:
        raise InvalidInput(
            "image: give --image, with sh and python3 in it: docker/build --repository REGISTRY/NAME --push "
            "prints one (steering)"
        )
    name, length = run.identity(document), seconds if gate else 0.0
    wanted = Wanted(name, document, run.trial_seconds(batch, length))
    where = Where(kubeconfig, context, selector)
    with opened(where, wanted, AuditLog(audit), holder("").user, image) as fleet:
        with waiting("looking at the nodes", 5):
            found = run.survey(fleet, name, end_trials=not plan)
        if plan:
            if json:
                show_json(words.document(found, None, name, configuration))
            else:
                show(words.plan_text(found, configuration, batch))
            return
        note(words.plan_text(found, configuration, batch))
        order = found.order(max_nodes)
        fleet.staying = set(fleet.nodes)
        state = run.roll(
            fleet,
            states.begin(order, batch),
            seconds=length,
            report=lambda state: note(words.progress(state)),
        )
        fleet.staying = run.steered(found, state)
    if json:
        show_json(words.document(found, state, name, configuration))
    else:
        show(words.result_text(state, command("nodes", "restore", *fleet.where.options)))
    if fleet.silent:
        note(
            "no Events were made: this kubeconfig has no right to create them in namespace default"
        )
    note(f"every write is in {audit}")
    if state.failed:
        raise typer.Exit(1)
