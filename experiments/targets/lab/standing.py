"""The lab on this machine: its owner, and its removal where the state is lost.

A lab can be found by its names after its sweep was killed or its folder or checkpoint deleted: all
parts are named after the stack (`infra/lab/layout.py`).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import signals
from experiments.engines import StackRef
from experiments.host import calls
from experiments.host.lock import Busy
from infra import config, untrusted
from infra.commands import command
from infra.errors import PrerequisiteMissing, Refusal
from infra.lab import claim, layout, removal
from infra.lab.layout import Pair
from infra.lab.plan import owner
from infra.settings import MOST_PAIRS


@dataclass(frozen=True)
class Lab:
    """A lab's stack and the project folder that it was created from."""

    stack: str
    folder: str

    def __str__(self) -> str:
        return f"{self.stack} in {self.folder}"


def lab() -> Lab | None:
    """The lab of this machine, from its claim, which only root can read."""
    try:
        stack, _, folder = untrusted.words(Path(claim.OWNER)).strip().partition(" in ")
    except FileNotFoundError:
        return None
    return Lab(stack, folder)


def refuse_foreign(stack: StackRef) -> None:
    """Raise `Busy` before an engine starts where another stack has its lab on this machine."""
    stands = lab()
    if stands and stands != Lab(stack.name, str(stack.root)):
        raise Busy(claim.taken(str(stands)))


def refuse_lost(stack: str) -> None:
    """Raise `Refusal` where the lab here is that of a stack that has no state any more."""
    stands = lab()
    if stands and stands.stack == stack:
        raise Refusal(
            f"stack {stack} has no state here, but the lab of {stands} exists on this machine: "
            f"{command('destroy', '--lab')} (a sweep: {command('sweep', '--resume', '--out')} DIR)"
        )


def observe(seconds: float) -> dict[str, Any]:
    """Counters of so many seconds and settings of the server's node of the lab that is up; writes nothing."""
    stands = lab()
    if stands is None:
        raise PrerequisiteMissing("there is no lab on this machine: ./steerlab up -s STACK")
    server, _ = layout.nodes(stands.stack)
    return calls.call("observe", f"--seconds={seconds}", "--saved", "--owner", owner(server))


def take_away(stands: Lab) -> dict[str, Any]:
    """Restore the lab's steering, then end and delete everything with its name.

    Raises `Refusal` where something could not be undone; it can be called again.
    """
    config.checked(stands.stack)  # becomes part of a script
    restored = [
        calls.call("restore", "--owner", owner(node)) for node in layout.nodes(stands.stack)
    ]
    with signals.apart(
        lambda: subprocess.Popen(
            ["/bin/sh", "-c", removal.script(stands.stack, _pairs(stands.stack))],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    ) as removed:
        _, complaint = removed.communicate()
    if removed.returncode != 0:
        raise Refusal(f"the lab of stack {stands} could not be removed: {complaint.strip()}")
    return {
        "stack": stands.stack,
        "folder": stands.folder,
        "restored": sum(answer["restored"] for answer in restored),
        "left": [words for answer in restored for words in answer["left"]],
    }


def finish(stack: StackRef) -> None:
    """Remove what is left after an engine destroyed the stack.

    An interrupted Pulumi CLI stops commands midway and does not record what they had created.
    """
    made = [Path(layout.netns(node.namespace)) for node in layout.nodes(stack.name)]
    if _pairs(stack.name) or any(path.exists() for path in made):
        take_away(Lab(stack.name, str(stack.root)))


def _pairs(stack: str) -> list[Pair]:
    """The pairs with a namespace, a pid file or a CPU quota that is left."""
    every = (layout.pair(stack, index, host=False) for index in range(1, MOST_PAIRS + 1))
    return [pair for pair in every if any(place.exists() for place in _places(pair))]


def _places(pair: Pair) -> list[Path]:
    pods = (pair.server, pair.client)
    return [
        Path(pair.pidfile),
        *(Path(layout.netns(pod.namespace)) for pod in pods),
        *(Path(root, pod.cgroup) for root in layout.CGROUPS for pod in pods),
    ]
