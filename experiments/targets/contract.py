"""Where a run is made: what measuring needs of the lab, or of a cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from analysis.schema import Confounders, Machine
from experiments.host.procstat import CounterSample
from experiments.traffic.iperf3 import Result
from experiments.validity import Reason
from infra.kubernetes.measurement import ClusterMeasurement
from infra.lab.measurement import Measurement

AnyMeasurement = Measurement | ClusterMeasurement


@dataclass(frozen=True)
class TrafficResult:
    """What came of the traffic: each pair's result, and each node's edge reads.

    `using` are the cores of each node that the experiment uses, `serving` those that serve a
    measured pair; None means all of the node's. `nodes` are those of the server and the client of
    each pair. `reasons` are why the run is not valid, as far as
    the site itself knows.
    """

    results: Sequence[Result]
    edges: Mapping[str, tuple[CounterSample, CounterSample]]
    reasons: Sequence[Reason] = ()
    using: Mapping[str, Collection[int] | None] = field(default_factory=dict)
    serving: Mapping[str, Collection[int] | None] = field(default_factory=dict)
    nodes: Mapping[int, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """What stands, where it is not what the measurement claims; and the CPU quota of the pods."""

    reasons: Sequence[Reason] = ()
    pod_cpu_limit: str | None = None


@dataclass(frozen=True)
class Drift:
    """One resource that does not stand as recorded."""

    urn: str
    why: str
    owner: str = ""  # of the lab's steering that is to be applied again

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]


class Backend(Protocol):
    """The machines of a measurement. What goes wrong in it is an exception, of any kind."""

    def describe(self) -> Machine:
        """The server's machine, which does not change during a sweep."""

    def confounders(self) -> Confounders: ...

    def verify(self) -> list[tuple[str, dict[str, Any]]]:
        """The agent's answer for each steered node, by name; renews the lease.

        The machine is held against the steering that the measurement claims.
        """

    def standing(self, pairs: int) -> Standing:
        """The first pairs as they stand."""

    def throttled(self, pairs: int) -> dict[int, int]:
        """nr_throttled of the first server pods that have a CPU quota, by pair."""

    def drive(self, pairs: int) -> TrafficResult:
        """Run the first pairs once. Raises `BarrierBroken` where they could not start together."""
