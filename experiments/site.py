"""Where a run is made: what measuring needs of the lab, or of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from analysis.schema import Confounders, Machine, Pair
from experiments.edges import Edge
from infra.kubernetes.measurement import ClusterMeasurement
from infra.lab.measurement import Measurement

AnyMeasurement = Measurement | ClusterMeasurement


@dataclass(frozen=True)
class Driven:
    """What came of the traffic: each pair with iperf3's raw output, and each node's edge reads.

    `reasons` are why the run is not valid, as far as the site itself knows.
    """

    results: Sequence[tuple[Pair, bytes]]
    edges: Mapping[str, tuple[Edge, Edge]]
    reasons: Sequence[str] = field(default=())


class Site(Protocol):
    """The machines of a measurement. What goes wrong in it is an exception with words."""

    def describe(self) -> Machine:
        """The server's machine, which does not change during a sweep."""

    def confounders(self) -> Confounders: ...

    def verify(self) -> list[tuple[str, dict[str, Any]]]:
        """The agent's answer for each steered node, by name; renews the lease."""

    def throttled(self, pairs: int) -> dict[int, int]:
        """nr_throttled of the first server pods that have a CPU quota, by pair."""

    def drive(self, pairs: int) -> Driven:
        """Run the first pairs once. Raises `BarrierBroken` where they could not start together."""


def of(what: AnyMeasurement) -> Site:
    """The site of a measurement."""
    if isinstance(what, ClusterMeasurement):
        from experiments.cluster.site import ClusterSite

        return ClusterSite(what)
    from experiments.lab_site import LabSite

    return LabSite(what)
