"""`destroy --lab` and `destroy --cluster`: what is found on the machine or the cluster, without a state."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from experiments.cli.terminal import err, note, or_else, show, show_json, waiting
from infra.commands import command

if TYPE_CHECKING:
    from experiments.targets.lab.standing import Lab


def of_lab(json: bool, force: bool) -> None:
    from experiments import signals
    from experiments.engines import stacks
    from experiments.host import lock
    from experiments.targets.lab import standing

    with lock.machine("destroy of the lab"), or_else(f"finish: {command('destroy', '--lab')}"):
        stands = standing.lab()
        if stands and not force and not _is_own(stands):
            _ask(
                f"the lab on this machine is of stack {stands}, not of this checkout, {stacks.ROOT}"
            )
        with waiting("restoring", 1), signals.cleaning():
            answer = standing.take_away(stands) if stands else None
    if answer is None:
        _conclude({"stack": None}, "there is no lab on this machine", json)
    else:
        words = f"restored {answer['restored']} values and removed the lab of stack {stands}"
        _conclude(answer, words, json)


def _is_own(stands: Lab) -> bool:
    """Whether no other checkout can still destroy it."""
    from experiments.engines import stacks

    return stands.folder == str(stacks.ROOT) or not Path(stands.folder).exists()


def of_cluster(stack: str, changes: Mapping[str, str], *, force: bool, json: bool) -> None:
    """Remove one stack of a cluster, after a question where somebody else created it."""
    from experiments.engines import stacks
    from experiments.targets import TARGETS
    from experiments.targets.kubernetes import standing
    from infra import config
    from infra.errors import InvalidInput
    from infra.kubernetes import ownership
    from infra.kubernetes.pinned import look

    of = config.cluster(changes)
    api, pin = look(of.kubeconfig, of.context)
    of = of.model_copy(update={"context": pin.context})  # also if another one gets current
    found = standing.stacks(api, of.namespace)
    if stack not in found:
        known = "; ".join(map(str, found.values())) or "none"
        what = f"there is no stack {stack} on this cluster" if stack else "add --stack STACK"
        raise InvalidInput(f"destroy: {what} (stacks of this cluster: {known})")
    stands = found[stack]
    if not force and stands.holder != ownership.holder(stacks.ROOT.as_uri()):
        _ask(f"this checkout did not create stack {stands}")
    keys = {**changes, "kubernetes.context": pin.context} if pin.context else changes
    words = [word for key, value in keys.items() for word in ("-c", f"{key}={value}")]
    again = command("destroy", "--cluster", "-s", stack, *words)
    alone = TARGETS["kubernetes"].busy(stack, f"destroy of {stack}")
    with alone, or_else(f"finish: {again}"), waiting("restoring", 10):
        answer = standing.take_away(stands, of)
    done = f"restored {answer['restored']} values on {len(answer['nodes'])} nodes and removed stack {stands}"
    _conclude(answer, done, json)


def _ask(whose: str) -> None:
    """Ask before something is removed that another checkout can still destroy."""
    from infra.errors import InvalidInput

    if not (sys.stdin.isatty() and err.file.isatty()):
        raise InvalidInput(f"destroy: {whose}: destroy it there, or add --force")
    note(whose)
    if not typer.confirm("Remove it?", err=True):
        raise InvalidInput("destroy: nothing was removed")


def _conclude(answer: Mapping[str, Any], words: str, json: bool) -> None:
    if json:
        show_json(answer)
        return
    show(words)
    for line in answer.get("left", ()):
        show(line)
