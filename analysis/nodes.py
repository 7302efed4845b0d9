"""Results of each server node, where the pairs of a run have several (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.comparisons import across_metrics, against_couples
from analysis.evidence import gather
from analysis.metrics import Metric
from analysis.schema import Record
from analysis.tables import problems, run_table
from analysis.verdict import Contrast


@dataclass(frozen=True)
class NodeCell:
    """One configuration at one replica count (of the whole run) and path, on one server node.

    `pairs` are the most that a run had there, `value` the mean of the metric over the valid `runs`. The
    comparisons with the baseline, None for the baseline itself, are one family over all nodes.
    """

    node: str
    path: str
    replicas: int
    configuration: str
    pairs: int
    runs: int
    value: float
    contrast: Contrast | None


def by_node(
    records: Sequence[Record], baseline: str, confidence: float, metric: Metric
) -> list[NodeCell]:
    """The results of each server node in a metric; none where all pairs have one."""
    names = {pair.server_node for record in records for pair in record.pairs if pair.server_node}
    if len(names) < 2:
        return []
    parts = {node: _parts(records, node) for node in sorted(names)}
    evidence = {
        node: gather(some, baseline, [metric], run_table(some))[metric.name]
        for node, some in parts.items()
    }
    members = [
        (node, couple) for node, of in evidence.items() for couple in against_couples(of, baseline)
    ]
    judged = across_metrics([(evidence[node], couple) for node, couple in members], confidence)
    compared = {(node, b): one for (node, (_, b)), one in zip(members, judged, strict=True)}
    return [
        NodeCell(
            node, *key,
            pairs=max(len(one.pairs) for one in parts[node] if one.valid and _place(one) == key),
            runs=len(series.values), value=fmean(series.values), contrast=compared.get((node, key)),
        )
        for node, of in evidence.items()
        for key, series in of.series.items()
    ]  # fmt: skip


def _parts(records: Sequence[Record], node: str) -> list[Record]:
    """The part of each run on a node; invalid where the whole run is, left out where it has no measured pair there."""
    found = []
    for record in records:
        part = record.on(node)
        if why := problems(record):
            found.append(part.model_copy(update={"valid": False, "reasons": why}))
        elif any(pair.kind == record.pairs[0].kind for pair in part.pairs):
            found.append(part)
    return found


def _place(record: Record) -> tuple[str, int, str]:
    return record.path, record.replicas, record.configuration
