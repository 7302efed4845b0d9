"""The contracts of a target and of its backend: the functions of lab and cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from analysis.schema import Confounders, Goodput, Machine, Received
from experiments.engines import StackRef
from experiments.host.procstat import CounterSample
from experiments.validity import Reason
from infra.kubernetes.measurement import ClusterMeasurement
from infra.lab.measurement import Measurement
from infra.settings import StackSettings
from infra.traffic import DEFAULT
from infra.traffic.contract import Failure, Values

AnyMeasurement = Measurement | ClusterMeasurement
NOT_ENDED = Failure("traffic", "the client did not end in time")


class BarrierBroken(RuntimeError):
    """A client ended before the common start; the message has the pair and the client's output."""


class EpisodeLost(RuntimeError):
    """An episode without windows."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__("; ".join(reason.text for reason in reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class PairResult:
    """The result of one pair, and the raw output of its client."""

    index: int
    outcome: Values | Failure
    raw: bytes = b""


@dataclass(frozen=True)
class TrafficResult:
    """The result of each pair, and the counters of each node at both edges of the window.

    `using` are the cores of each node that the experiment uses, `serving` those that work for a
    measured server; None means all cores of the node. `nodes` are the server's and the client's
    node of each pair. `reasons` are the backend's own reasons against the run. `around` are the
    counters at both ends of an episode, with all processes, by node; or why they were not read.
    """

    results: Sequence[PairResult]
    edges: Mapping[str, tuple[CounterSample, CounterSample]]
    reasons: Sequence[Reason] = ()
    using: Mapping[str, Collection[int] | None] = field(default_factory=dict)
    serving: Mapping[str, Collection[int] | None] = field(default_factory=dict)
    nodes: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    around: Mapping[str, tuple[CounterSample, CounterSample] | str] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowResult:
    """One window of an episode: its traffic, the agent's answer on its steering by node, its goodput over time.

    `at` is its begin, in seconds after the start of the episode; None where it was not measured. `received`
    is of the whole episode.
    """

    traffic: TrafficResult
    steering: Sequence[tuple[str, dict[str, Any]]]
    goodput: Sequence[Goodput] = ()
    at: float | None = None
    received: Sequence[Received] = ()


# The agent's document of an episode, from its plans by configuration and its receivers: pids, or
# `pod:` and a uid.
Schedule = Callable[[Mapping[str, Mapping[str, Any]], Sequence[int | str]], dict[str, Any]]


@dataclass(frozen=True)
class Topology:
    """Differences between the pairs and the measurement's claim; and the CPU quota of the pods."""

    reasons: Sequence[Reason] = ()
    pod_cpu_limit: str | None = None


@dataclass(frozen=True)
class Drift:
    """One resource that differs from the checkpoint."""

    urn: str
    why: str
    owner: str = ""  # of the lab's steering that must be applied again

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]


class Backend(Protocol):
    """The machines of a measurement. Any exception of a method makes the run invalid."""

    def describe(self) -> Machine:
        """The server's machine, which does not change during a sweep."""

    def confounders(self) -> Confounders: ...

    def verify(self) -> list[tuple[str, dict[str, Any]]]:
        """The agent's answer for each steered node, by name; renews the lease.

        The agent compares the machine with the steering of the measurement.
        """

    def preview(self, what: Any, /) -> list[dict[str, Any]]:
        """The changes that the configuration of another measurement would make to the steered nodes.

        Raises `Refusal` where a node cannot have it.
        """

    def topology(self, pairs: int) -> Topology:
        """Where the first pairs run now."""

    def throttled(self, pairs: int) -> dict[int, int]:
        """nr_throttled of the first server pods that have a CPU quota, by pair."""

    def drive(self, pairs: int) -> TrafficResult:
        """Run the first pairs once, and those of the traffic beside them. Raises `BarrierBroken` where they cannot start together."""

    def switch(
        self, pairs: int, whats: Sequence[Any], schedule: Schedule, seconds: int
    ) -> Sequence[WindowResult]:
        """Run the first pairs for so many seconds while the agent works through a schedule.

        `whats` are the measurements of the configurations. The result has one entry for each window
        of the schedule. Raises `BarrierBroken`, or `EpisodeLost` with the reasons.
        """


class Findings(Protocol):
    """The findings of `doctor`; no stack can be set up if something is `missing`."""

    @property
    def missing(self) -> Sequence[str]: ...
    def to_json(self) -> dict[str, Any]: ...
    def text(self) -> str: ...


class Target(Protocol):
    """The functions of a target, which is a module. `TARGETS` has the targets by name."""

    def made(self, resources: Sequence[dict[str, Any]], /) -> bool:
        """Whether the resources of a checkpoint are those of this target."""

    def require(self, kind: str = DEFAULT, *, removal: bool = False) -> None:
        """Raise `PrerequisiteMissing` where this machine lacks what a traffic needs, or a removal."""

    def require_for(self, state: StackSettings, /) -> None:
        """The same for a stack: its nodes must be reachable, too."""

    def busy(self, stack: str, what: str, /) -> AbstractContextManager[None]:
        """Lock what the stack works on. Raises `Busy`."""

    def refuse_foreign(self, stack: StackRef, /) -> None:
        """Raise `Refusal`, before any engine starts, where another stack is in the way."""

    def refuse_replaced(self, stack: StackRef, /) -> None:
        """Raise `Refusal`, before a stack is destroyed, where another one has taken its place."""

    def pinned(self, state: StackSettings, directory: Path, /) -> dict[str, str]:
        """Further settings of an experiment in this directory, recorded there at its start."""

    def cpus(self, state: StackSettings, /) -> int:
        """Number of CPUs that a mask may name."""

    def steered(self, state: StackSettings, /) -> int:
        """Number of steered nodes."""

    def nodes(self, state: StackSettings, /) -> Any:
        """What all measurements of a sweep have in common; looked up once."""

    def measurement(self, state: StackSettings, nodes: Any, /) -> AnyMeasurement: ...

    def require_up(self, what: AnyMeasurement, /) -> None:
        """Raise `PrerequisiteMissing` if the stack is not up."""

    def backend(self, what: Any, /) -> Backend:
        """The machines of a measurement."""

    def drifted(self, resources: Sequence[dict[str, Any]], /) -> list[Drift]:
        """Missing and changed resources of a stack."""

    def restore(self, found: Iterable[Drift], /) -> None:
        """Restore drifted steering before it is applied again."""

    def finish(self, stack: StackRef, /) -> None:
        """Remove what an interrupted engine left of a destroyed stack."""

    def leftover(self) -> str:
        """A note on what remains set up, with the command that removes it; else empty."""

    def examine(self, changes: dict[str, str], /) -> Findings:
        """Run `doctor`; `changes` are `-c key=value`. Writes no steering."""
