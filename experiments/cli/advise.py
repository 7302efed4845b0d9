"""`nodes advise`: what limits this node in production, and which configurations are worth a race."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.cli import terminal
from experiments.cli.machine import Namespaces, Nics, Overlay, Pods
from experiments.cli.stacks import Json
from experiments.cli.terminal import show_answer, waiting


def register(app: typer.Typer) -> None:
    terminal.register(app, nodes_advise, "advise")


def nodes_advise(
    seconds: Annotated[
        float, typer.Option(help="How long to read counters.", min=0.1, metavar="SECONDS")
    ] = 20.0,
    target: Annotated[
        str | None,
        typer.Option(help="lab: the lab that is up, not this node.", metavar="TARGET"),
    ] = None,
    nic: Nics = None,
    overlay: Overlay = "auto",
    pods: Pods = True,
    namespace: Namespaces = None,
    json: Json = False,
) -> None:
    """Read counters under the present traffic; name the bottleneck and what is worth a race.

    \b
    ./steerlab nodes advise
    ./steerlab nodes advise --seconds 60 --json | jq -r .command
    ./steerlab nodes advise --target lab

    It sends no traffic and writes nothing. It names at most four configurations, or says to leave the
    node as it is. Only a race (`tune`) or a sweep shows what they gain.
    """
    from experiments.host import calls, machine, nodes
    from experiments.host.nodes import PODS, Choice
    from experiments.run import advise
    from experiments.targets.lab import requirements, standing
    from infra.errors import InvalidInput

    if target not in (None, "lab"):
        raise InvalidInput(
            f"target: {target!r} is unknown here (known: lab); run it on the node itself"
        )
    requirements.require_root()
    with waiting("reading counters", seconds):
        before = machine.confounders()
        if target:
            answer = standing.observe(seconds)
        else:
            own = list(namespace or PODS) if pods else []
            answer = nodes.observe(
                Choice("baseline", nics=nic or ["auto"], overlay=overlay, pods=own), seconds
            )
        after = machine.confounders()
    reading = advise.Reading.of(answer, (before, after), lab=target == "lab")
    advice = advise.fitting(
        advise.advise(reading), reading, lambda plan: calls.call("preview", plan=plan)
    )
    show_answer(advise.document(advice, reading), advise.text, json=json)
