"""Which metrics a sweep can measure: those that a record with all of its figures has (pure)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from analysis.metrics import Metric
from analysis.schema import Core, Datagrams, Pair, Record, Softnet
from experiments.run import episodes
from infra.traffic.contract import Kind, Traffic
from infra.traffic.stream import Stream


class Way(NamedTuple):
    """How a sweep measures; `pairs` is its smallest number of pairs."""

    traffic: Traffic
    method: Literal["isolated", "switchback"]
    pairs: int

    def has(self, metric: Metric) -> bool:
        """Whether each of its runs can have a value. The definition of the metric decides."""
        if self.method == "switchback" and not isinstance(self.traffic.kinds[0], Stream):
            return False
        return metric.value(_fullest(self)) is not None


def _fullest(way: Way) -> Record:
    """A run with every figure that is measured this way."""
    several = len(way.traffic.kinds) > 1
    packets = Softnet(
        node="lab", core=0, processed=1, dropped=0, squeezed=0, received_rps=0, flow_limit=0
    )
    udp = Datagrams(node="lab", sent=1, delivered=1, socket_drops=0, other_errors=0, device_drops=0)
    return Record(
        target="lab", configuration="baseline", replicas=way.pairs, valid=True, duration=1,
        method=way.method,
        pairs=[
            Pair(
                index=index,
                kind=kind.name if several else None,
                values=dict.fromkeys(_metrics(kind, way.method), 1.0),
            )
            for index, kind in way.traffic.pairs(way.pairs).items()
        ],
        cores=[Core(node="lab", core=0, soft=1, idle=1, side="server")],
        softnet=[packets],
        datagrams=[udp] if way.method == "isolated" and "UDP" in way.traffic.protocols else [],
    )  # fmt: skip


def _metrics(kind: Kind, method: str) -> tuple[str, ...]:
    return episodes.metrics_of(kind) if method == "switchback" else kind.metrics
