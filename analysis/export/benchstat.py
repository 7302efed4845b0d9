"""Go's benchmark format: a line for each valid run, for `benchstat` (pure)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.export.contract import (
    Export,
    NothingToExport,
    exported,
    labels_of,
    number,
    slug,
    state_of,
)
from analysis.metrics import BITRATE, Metric
from analysis.plaintext import one_line
from analysis.schema import Record
from analysis.summary import Summary


def text(records: Sequence[Record], summary: Summary) -> str:
    """Lines such as `BenchmarkPods/configuration=rfs/.../pairs=4 1 1615 Mbit/s`.

    The baseline is first at each place: benchstat compares with what it meets first. Each unit has
    its direction. Kernel and processor are lines of their own: benchstat keeps runs
    under other ones apart.
    """
    metrics = exported(summary)
    labels = labels_of(records)
    rank = {state_of(state): place for place, state in enumerate(summary.states)}
    # the index of the table is the position of the record
    table = summary.runs.sort_index().to_dict("records")
    runs = [(one, run) for one, run in zip(records, table, strict=True) if run["valid"]]
    lines = [f"Unit {_unit(metric)} better={metric.better}" for metric in metrics]
    before = ""
    for record, run in sorted(runs, key=lambda one: rank[state_of(one[0])]):
        values = [
            f"{number(run[metric.name])} {_unit(metric)}"
            for metric in metrics
            if not pd.isna(run[metric.name])
        ]
        if not values:
            continue
        if (conditions := _conditions(record)) != before:
            lines.append(before := conditions)
        lines.append(f"BenchmarkPods/{slug(labels[state_of(record)])} 1 {' '.join(values)}")
    if not before:
        raise NothingToExport("no run is valid: the report has the reason of each")
    return "\n".join(lines) + "\n"


def _conditions(record: Record) -> str:
    machine = record.machine
    kernel, cpu = (machine.kernel, machine.cpu) if machine else ("", "")
    return f"target: {record.target}\nkernel: {one_line(kernel)}\ncpu: {one_line(cpu)}"


def _unit(metric: Metric) -> str:
    """A word of its own for each metric, as benchstat needs; their names contain the unit."""
    return "Mbit/s" if metric == BITRATE else metric.name


BENCHSTAT = Export("benchstat", "benchstat, of Go's golang.org/x/perf", text)
