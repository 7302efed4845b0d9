"""What a rollout needs of a fleet: its members, and steps on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Phase(StrEnum):
    """A node's part in rollouts, as its agent keeps it."""

    BEFORE = "before"  # no rollout has changed it
    TRIAL = "trial"  # it has the plan for a time, then restores itself
    KEPT = "kept"


@dataclass(frozen=True)
class Member:
    """A node that the selector selects."""

    name: str
    ready: bool


@dataclass(frozen=True)
class Status:
    """The phase of a node, and the rollout whose plan it has."""

    phase: Phase
    rollout: str = ""


@dataclass(frozen=True)
class Change:
    """A value that a rollout would write; `stranger`: somebody else has set the present one."""

    where: str
    knob: str
    now: str
    then: str
    stranger: bool = False


@dataclass(frozen=True)
class Reading:
    """The health of a node in a window of `seconds`; without a window only whether it is ready.

    Counters are packets, and for `squeezed` softirqs that ran out of budget or time. `softirq_s` is the CPU time
    of softirqs, `received` the bytes that arrived at the devices of the plan meanwhile, at their first stage.
    `latency_ms` is the median of a TCP handshake with the node, None without another node that measures it.
    """

    ready: bool
    seconds: float = 0.0
    packets: int = 0
    dropped: int = 0
    squeezed: int = 0
    softirq_s: float = 0.0
    received: int = 0
    latency_ms: float | None = None


class Fleet(Protocol):
    """The nodes of a rollout; each method raises `Refusal` with the reason of a failure.

    A step that was interrupted, or whose answer was lost, may have been done or not: `status` tells.
    """

    def members(self) -> Sequence[Member]: ...

    def status(self, node: str) -> Status: ...

    def preview(self, node: str) -> Sequence[Change]:
        """The values that the plan would write; nothing is written."""

    def observe(self, node: str, seconds: float) -> Reading: ...

    def attempt(self, node: str) -> None:
        """Apply the plan for a time; the node undoes it by itself at the end."""

    def keep(self, node: str) -> None:
        """Keep the plan of the trial, also after reboots and for new devices."""

    def undo(self, node: str) -> None:
        """End a trial: the node is as before it. Does nothing where there is none."""

    def restore(self, node: str, force: bool) -> Sequence[str]:
        """Restore the values before the first rollout; returns notes about values that stay."""
