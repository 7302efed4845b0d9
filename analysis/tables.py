"""Tidy tables of records: a row for each run, and for each core of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.metrics import METRICS, server_cores
from analysis.schema import Record

RUN_COLUMNS = {
    "configuration": "str",
    "replicas": "int64",
    "path": "str",
    "target": "str",
    "plan": "object",
    "seed": "object",
    "block": "Int64",
    "order": "Int64",
    "attempt": "int64",
    "start": "object",
    **dict.fromkeys(METRICS, "float64"),
    "foreign_cpu": "float64",
    "valid": "bool",
    "repeated": "bool",
    "reasons": "str",
    "source": "object",
}
CORE_COLUMNS = {
    "run": "int64",
    "configuration": "str",
    "replicas": "int64",
    "path": "str",
    "node": "str",
    "core": "int64",
    "server": "bool",
    "soft": "float64",
    "idle": "float64",
}


def run_table(records: Iterable[Record]) -> pd.DataFrame:
    """One row a run, in run order; the index is the record's position in `records`.

    Each metric is a column; NaN where it was not measured and in runs that do not count. A run
    with a pair that was not measured does not count: the other pairs had more of the machine.
    """
    records = list(records)
    rows = [_run(record, why) for record, why in zip(records, reasons(records), strict=True)]
    table = pd.DataFrame(rows, columns=list(RUN_COLUMNS)).astype(RUN_COLUMNS)
    times = [_time(record) for record in table["start"]]
    return (
        table.assign(_time=times)
        .sort_values(["_time", "order"], kind="stable", na_position="last")
        .drop(columns="_time")
    )


def core_table(records: Iterable[Record]) -> pd.DataFrame:
    """One row a core of a valid run: `soft` and `idle` in percent.

    `run` is the index of `run_table`; `server` tells whether the core works for a server.
    """
    rows: list[tuple[object, ...]] = []
    records = list(records)
    for number, (record, why) in enumerate(zip(records, reasons(records), strict=True)):
        if why:
            continue
        receiving = {(core.node, core.core) for core in server_cores(record)}
        state = (number, record.configuration, record.replicas, record.path)
        for core in record.cores:
            place = (core.node, core.core)
            rows.append((*state, *place, place in receiving, core.soft, core.idle))
    return pd.DataFrame(rows, columns=list(CORE_COLUMNS)).astype(CORE_COLUMNS)


def latency_table(records: Iterable[Record]) -> pd.DataFrame:
    """One row a quantile of the latency in a state: `us` is its median over valid runs and pairs,
    microseconds, `fraction` the share of the messages that are not slower."""
    records = list(records)
    rows = [
        (record.configuration, record.replicas, record.path, fraction, us)
        for record, why in zip(records, reasons(records), strict=True)
        if not why
        for pair in record.pairs
        for fraction, us in pair.latency
    ]
    columns = ["configuration", "replicas", "path", "fraction", "us"]
    table = pd.DataFrame(rows, columns=columns)
    return table.groupby(columns[:-1])["us"].median().reset_index()


def reasons(records: Sequence[Record]) -> list[list[str]]:
    """Why each run does not count; empty for a run that does.

    Of several valid attempts at one run of a sweep the last one counts.
    """
    found = [problems(record) for record in records]
    last: dict[object, int] = {}
    for record, why in zip(records, found, strict=True):
        if not why:
            last[_turn(record)] = max(record.attempt, last.get(_turn(record), 0))
    return [
        why
        or [f"repeated by attempt {last[_turn(record)]}"] * (record.attempt < last[_turn(record)])
        for record, why in zip(records, found, strict=True)
    ]


def _turn(record: Record) -> object:
    """The run of a sweep that a record is an attempt at; itself outside a sweep."""
    if record.plan is None or record.order is None:
        return id(record)
    return (record.plan, record.seed, record.order, record.block, record.stack,
            record.path, record.replicas, record.configuration)  # fmt: skip


def problems(record: Record) -> list[str]:
    """Why a run does not count; empty for a run that does."""
    if not record.valid:
        return list(record.reasons) or ["no reason given"]
    found = [
        f"pair {pair.index} was not measured: {pair.reason or 'no reason given'}"
        for pair in record.pairs
        if pair.reason or not any(value is not None for value in pair.values.values())
    ]
    # one of another kind runs beside them
    count = sum(pair.kind == record.pairs[0].kind for pair in record.pairs)
    if count + record.elsewhere != record.replicas:
        found.append(f"{count} pairs instead of {record.replicas}")
    return found


def configuration_order(names: Iterable[str], baseline: str) -> list[str]:
    """Baseline first, then by name with numbers as numbers (rps-7 before rps-16)."""

    def key(name: str) -> tuple[bool, list[tuple[bool, int, str]]]:
        parts = re.split(r"(\d+)", name)
        return name != baseline, [
            (part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts
        ]

    return sorted(set(names), key=key)


def _run(record: Record, reasons: Sequence[str]) -> tuple[object, ...]:
    return (
        record.configuration,
        record.replicas,
        record.path,
        record.target,
        record.plan,
        record.seed,
        record.block,
        record.order,
        record.attempt,
        record.start.isoformat() if record.start else None,
        *(None if reasons else metric.value(record) for metric in METRICS.values()),
        math.nan if record.foreign_cpu is None else record.foreign_cpu,
        not reasons,
        bool(reasons) and not problems(record),
        "; ".join(reasons),
        record.source,
    )


def _time(start: str | None) -> float:
    return pd.Timestamp(start).timestamp() if start else math.nan
