"""The lab that stands on this machine: whose it is, and its removal where its state is lost.

A lab whose sweep was killed, whose folder was deleted or whose checkpoint is gone still has its
names: everything that a stack makes is named after it (`infra/lab/layout.py`).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.engines import StackRef
from experiments.host import calls
from experiments.host.lock import Busy
from infra import config, untrusted
from infra.commands import command
from infra.errors import Refusal
from infra.lab import claim, layout, removal
from infra.lab.layout import Pair
from infra.lab.plan import owner
from infra.settings import MOST_REPLICAS


@dataclass(frozen=True)
class Lab:
    """A lab's stack and the project folder that it was made from."""

    stack: str
    folder: str

    def __str__(self) -> str:
        return f"{self.stack} in {self.folder}"


def lab() -> Lab | None:
    """The lab that stands here, by its claim, which root alone can read."""
    try:
        stack, _, folder = untrusted.words(Path(claim.OWNER)).strip().partition(" in ")
    except FileNotFoundError:
        return None
    return Lab(stack, folder)


def refuse_foreign(stack: StackRef) -> None:
    """Say early, before any engine starts, that another stack's lab stands on this machine."""
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


def take_away(stands: Lab) -> dict[str, Any]:
    """Restore what the lab steers, then end and delete all that has its name.

    Raises `Refusal` where something could not be undone; what was undone stays so, and it may be
    run again.
    """
    config.checked(stands.stack)  # it becomes part of a script
    restored = [
        calls.call("restore", "--owner", owner(node)) for node in layout.nodes(stands.stack)
    ]
    done = subprocess.run(
        ["/bin/sh", "-c", removal.script(stands.stack, _pairs(stands.stack))],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Refusal(f"the lab of stack {stands} could not be taken away: {done.stderr.strip()}")
    return {
        "stack": stands.stack,
        "folder": stands.folder,
        "restored": sum(answer["restored"] for answer in restored),
        "left": [words for answer in restored for words in answer["left"]],
    }


def finish(stack: StackRef) -> None:
    """Take away what is left after an engine destroyed the stack.

    The Pulumi CLI ends commands midway where it is interrupted, and records nothing of what they
    had made by then.
    """
    made = [Path(layout.netns(node.namespace)) for node in layout.nodes(stack.name)]
    if _pairs(stack.name) or any(path.exists() for path in made):
        take_away(Lab(stack.name, str(stack.root)))


def _pairs(stack: str) -> list[Pair]:
    """The pairs of which anything is left: a namespace, a pid file or a CPU quota."""
    every = (layout.pair(stack, index, host=False) for index in range(1, MOST_REPLICAS + 1))
    return [pair for pair in every if any(place.exists() for place in _places(pair))]


def _places(pair: Pair) -> list[Path]:
    pods = (pair.server, pair.client)
    return [
        Path(pair.pidfile),
        *(Path(layout.netns(pod.namespace)) for pod in pods),
        *(Path(root, pod.cgroup) for root in layout.CGROUPS for pod in pods),
    ]
