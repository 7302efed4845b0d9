"""What the episodes of a tuning measured: logarithms and excesses over limits, from their records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from analysis.limits import Limit
from analysis.load import load
from analysis.metrics import Metric
from analysis.race_limits import excess
from analysis.schema import Record
from experiments.run.arms import BASELINE as _BASELINE
from experiments.run.sweep import RECORDS

BASELINE = _BASELINE.name


class Measured(NamedTuple):
    """The valid windows of an episode: names of arms, logs (higher is better), rows of excesses."""

    names: list[str]
    logs: list[float]
    excesses: list[list[float]]


def measured(made: Sequence[Record], by: Metric, limits: Sequence[Limit]) -> Measured | None:
    """What an episode shows (pure); None where there is too little to compare."""
    found = Measured([], [], [[] for _ in limits])
    valid = {record.configuration: record for record in made if record.valid}
    baseline = valid.get(BASELINE)
    if limits and baseline is None:
        return None
    for name, record in valid.items():
        value = by.value(record)
        try:
            row = [_excess(limit, record, baseline or record) for limit in limits]
        except ValueError:  # no value of the limit's metric, or one without a logarithm
            continue
        if value is None or value <= 0:
            continue
        found.names.append(name)
        found.logs.append(by.sign * math.log(value))
        for own, one in zip(found.excesses, row, strict=True):
            own.append(one)
    complete = not limits or BASELINE in found.names
    return found if len(found.names) > 1 and complete else None


def _excess(limit: Limit, record: Record, baseline: Record) -> float:
    value, reference = limit.metric.value(record), limit.metric.value(baseline)
    if value is None or reference is None:
        raise ValueError(limit.metric.name)
    return excess(limit, value, reference)


def by_block(directory: Path) -> Iterator[list[Record]]:
    """The last attempts of each episode, in order."""
    if not (directory / RECORDS).is_dir():
        return
    made = sorted(load(directory).records, key=lambda one: (one.block or 0, one.attempt))
    for _, group in groupby(made, key=lambda one: one.block):
        rows = list(group)
        yield [one for one in rows if one.attempt == rows[-1].attempt]


def next_block(directory: Path) -> int:
    return max((made[0].block or 0 for made in by_block(directory)), default=-1) + 1
