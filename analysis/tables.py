"""Tidy tables of records: one row a run, one row a core of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.schema import Core, Record

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
    "bitrate_mbps": "float64",
    "total_mbps": "float64",
    "retransmits": "Int64",
    "soft_total": "float64",
    "idle_mean": "float64",
    "soft_cost": "float64",
    "cpu_cost": "float64",
    "retransmits_gbit": "float64",
    "dropped_gbit": "float64",
    "squeezed_gbit": "float64",
    "slowest": "float64",
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

    `bitrate_mbps` is the mean over the run's pairs and `total_mbps` their sum, Mbit/s at the
    receiver; `soft_total` and `idle_mean` are the sum and the mean over the server's cores,
    percent of a core; `soft_cost` and `cpu_cost` are core-seconds per Gbit received, of softirq and
    of all that is not idle. Retransmits of
    the senders, packets that a full backlog of the server refused, and times that its softirq ran
    out of budget are per Gbit; `slowest` is the slowest pair's share of the fastest one's bitrate.
    A run with a pair that has no bitrate has none itself: the mean of the others would be another
    experiment. Not measured is NaN.
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

    `run` is the index of `run_table`; `server` says whether the core receives.
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
    if len(record.pairs) != record.replicas:
        found.append(f"{len(record.pairs)} pairs instead of {record.replicas}")
    return found


def server_cores(record: Record) -> list[Core]:
    """The cores that receive, as recorded.

    In older records: the lab's server cores, the cores of the steered nodes, else all.
    """
    serving = [core for core in record.cores if core.server]
    if serving:
        return serving
    if record.machine and record.machine.server_cores:
        wanted = set(record.machine.server_cores)
        return [core for core in record.cores if core.core in wanted]
    steered = record.steering_before.queues if record.steering_before else []
    nodes = {queue.node for queue in steered if queue.role == "nic"}
    return [core for core in record.cores if core.node in nodes] or list(record.cores)


def configuration_order(names: Iterable[str], baseline: str) -> list[str]:
    """Baseline first, then by name with numbers as numbers (rps-7 before rps-16)."""

    def key(name: str) -> tuple[bool, list[tuple[bool, int, str]]]:
        parts = re.split(r"(\d+)", name)
        return name != baseline, [
            (part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts
        ]

    return sorted(set(names), key=key)


def _run(record: Record, reasons: Sequence[str]) -> tuple[object, ...]:
    bitrates = _known(record, "bitrate_mbps")
    counted = not reasons and bool(bitrates)
    total = math.fsum(bitrates) if counted else math.nan
    sent = _known(record, "retransmits")
    retransmits = round(sum(sent)) if sent and len(sent) == len(record.pairs) else None
    cores = server_cores(record)
    soft = [core.soft for core in cores if core.soft is not None]
    idle = [core.idle for core in cores if core.idle is not None]
    soft_total = math.fsum(soft) if _complete(soft, cores) else math.nan
    idle_total = math.fsum(idle) if _complete(idle, cores) else math.nan
    nodes = {core.node for core in cores}
    backlog = [row for row in record.softnet if row.node in nodes]
    received = total / 1000 * (record.window or record.duration)  # Gbit between the counters' reads
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
        total / len(bitrates) if counted else math.nan,
        total,
        retransmits,
        soft_total,
        idle_total / len(cores) if cores else math.nan,
        _share(soft_total / 100, total / 1000),
        _share(len(cores) - idle_total / 100, total / 1000),
        _share(retransmits, total / 1000 * record.duration),
        _share(sum(row.dropped + row.flow_limit for row in backlog) if backlog else None, received),
        _share(sum(row.squeezed for row in backlog) if backlog else None, received),
        _share(min(bitrates), max(bitrates)) if counted and len(bitrates) > 1 else math.nan,
        math.nan if record.foreign_cpu is None else record.foreign_cpu,
        counted,
        bool(reasons) and not problems(record),
        "; ".join(reasons),
        record.source,
    )


def _known(record: Record, name: str) -> list[float]:
    values = (pair.values.get(name) for pair in record.pairs)
    return [value for value in values if value is not None]


def _share(part: float | None, whole: float) -> float:
    return part / whole if part is not None and whole > 0 else math.nan


def _complete(values: Sequence[float], cores: Sequence[Core]) -> bool:
    return bool(values) and len(values) == len(cores)


def _time(start: str | None) -> float:
    return pd.Timestamp(start).timestamp() if start else math.nan
