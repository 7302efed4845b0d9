"""What a format of `export` is, and the figures that the formats share (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.cell_summary import CellSummary
from analysis.metrics import METRICS, Metric
from analysis.pairing import StateKey
from analysis.plaintext import one_line
from analysis.schema import Record
from analysis.summary import Summary
from analysis.tradeoff import Row


class NothingToExport(ValueError):
    """The results have nothing that a format could contain; the message has the remedy."""


@dataclass(frozen=True)
class Export:
    """A format: its name, the program that reads it, and the text of records with their summary.

    `text` raises NothingToExport where there is no valid run, or nothing to judge. `note` is what
    the reader's own configuration must have, in words; empty where nothing.
    """

    name: str
    reader: str
    text: Callable[[Sequence[Record], Summary], str]
    note: Callable[[Summary], str] = lambda _: ""


@dataclass(frozen=True)
class Figure:
    """A metric of one configuration with its interval.

    `name` is that of the metric for a mean over runs, in its unit; with `_ratio` or `_difference`
    it is the effect against the baseline. `labels` are those of `labels_of`, and the baseline of an
    effect.
    """

    name: str
    metric: Metric
    labels: Mapping[str, str]
    runs: int
    value: float
    low: float | None
    high: float | None

    @property
    def unit(self) -> str:
        return "ratio" if self.name.endswith("_ratio") else self.metric.unit


def exported(summary: Summary) -> list[Metric]:
    """The metrics of an export: that of the summary, and those of a report that were measured."""
    known = {name for row in summary.tradeoff.rows for name in row.levels}
    return [
        metric
        for name, metric in METRICS.items()
        if name in known and (metric == summary.metric or metric.shown != "asked")
    ]


def state_of(one: Record | CellSummary | Row) -> StateKey:
    return one.path, one.replicas, one.configuration


def labels_of(records: Sequence[Record]) -> dict[StateKey, dict[str, str]]:
    """What names each state: configuration, traffic, path and pairs, and its target."""
    found: dict[StateKey, list[Record]] = {}
    for record in records:
        found.setdefault(state_of(record), []).append(record)
    return {
        key: {
            "configuration": one_line(own[0].configuration),
            "traffic": _together({one.traffic for one in own}),
            "path": own[0].path,
            "pairs": str(own[0].replicas),
            "target": _together({one.target for one in own}),
        }
        for key, own in found.items()
    }


def slug(labels: Mapping[str, str]) -> str:
    """The name of a state in formats with one name for each benchmark, without spaces.

    The number of pairs is last: a name that ends in -7 would be that of 7 threads of Go.
    """
    shown = ("configuration", "traffic", "path", "pairs")
    return "/".join("=".join((key, re.sub(r"[\s/]+", "_", labels[key]))) for key in shown)


def figures(records: Sequence[Record], summary: Summary) -> list[Figure]:
    """Means and effects of each configuration, in the order of the report.

    Raises NothingToExport without a valid run.
    """
    labels = labels_of(records)
    runs = {state_of(one): one.runs for one in summary.states}
    found = []
    for row in summary.tradeoff.rows:
        key = state_of(row)
        for metric in exported(summary):
            level, contrast = row.levels.get(metric.name), row.contrasts.get(metric.name)
            if level and level.estimate is not None:
                bounds = level.low, level.high
                found.append(
                    Figure(metric.name, metric, labels[key], runs[key], level.estimate, *bounds)
                )
            effect = contrast.effect if contrast else None
            if contrast and effect and effect.estimate is not None:
                against = {**labels[key], "baseline": one_line(contrast.a)}
                name = f"{metric.name}_{effect.scale}"
                found.append(
                    Figure(name, metric, against, effect.n_b, effect.estimate, *effect.interval)
                )
    if not found:
        raise NothingToExport("no run is valid: the report has the reason of each")
    return [one for one in found if math.isfinite(one.value)]


def number(value: float) -> str:
    """A number as every reader takes it, with twelve digits."""
    return f"{value:.12g}"


def _together(names: set[str]) -> str:
    return one_line(" and ".join(sorted(names)))
