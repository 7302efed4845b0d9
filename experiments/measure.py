"""One run: verify, start all pairs together, read /proc at the window's edges, verify, record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from analysis.schema import Core, Harness, Machine, Pair, QueueSteering, Record, Steering
from experiments import agent, edges, iperf, machine
from experiments.edges import Edge
from infra.lab.measurement import Endpoint, Measurement

# Both nodes of the lab are one kernel: its cores are reported once, under this name.
LAB = "lab"


@dataclass(frozen=True)
class Place:
    """Where a run stands in a sweep; nothing of it outside one."""

    block: int | None = None
    order: int | None = None
    seed: int | None = None
    plan: str | None = None


@dataclass
class _Window:
    """The two edge reads of a run."""

    before: Edge | None = None
    after: Edge | None = None

    def read(self, start: float, omit: float, duration: float) -> None:
        _sleep_until(start + omit)
        self.before = Edge.read()
        _sleep_until(start + omit + duration)
        self.after = Edge.read()


@dataclass
class _Verdict:
    """Whether a run counts, and why not."""

    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def run(
    measurement: Measurement,
    *,
    replicas: int | None = None,
    place: Place | None = None,
    on: Machine | None = None,
) -> tuple[Record, list[bytes]]:
    """Measure a converged lab once with its first `replicas` pairs, the others idle.

    Returns the record and iperf3's raw output. What goes wrong makes the run invalid, with the
    reason: it raises nothing that traffic or drift could cause.
    """
    count = measurement.replicas if replicas is None else replicas
    active = measurement.pairs[:count]
    place = place or Place()
    verdict = _Verdict()
    window = _Window()
    steering_before = _verified(measurement, verdict, "before the run")
    confounders_before = machine.confounders()
    throttled_before = _throttled(active)
    started = datetime.now(UTC)
    try:
        results = iperf.run(
            measurement,
            active,
            lambda start: window.read(start, measurement.omit, measurement.duration),
        )
    except iperf.BarrierBroken as error:
        results = [
            (Pair(index=pair.index, bitrate_mbps=None, reason=str(error)), b"") for pair in active
        ]
        verdict.reasons.append(str(error))
    throttled_after = _throttled(active)
    confounders_after = machine.confounders()
    steering_after = _verified(measurement, verdict, "after the run")

    pairs = [_with_throttling(pair, throttled_before, throttled_after) for pair, _ in results]
    verdict.reasons += [
        f"pair {pair.index}: {pair.reason}"
        for pair in pairs
        if pair.reason and pair.reason not in verdict.reasons
    ]
    verdict.warnings += machine.moved_interrupts(confounders_before, confounders_after)
    measured = _accounts(window, LAB)
    record = Record(
        target="lab",
        stack=measurement.stack,
        configuration=measurement.configuration,
        replicas=count,
        path=measurement.path,
        valid=not verdict.reasons,
        reasons=_unique(verdict.reasons),
        warnings=_unique(verdict.warnings),
        pairs=pairs,
        idle_pairs=measurement.replicas - count,
        block=place.block,
        order=place.order,
        seed=place.seed,
        plan=place.plan,
        start=started,
        duration=measurement.duration,
        omit=measurement.omit,
        streams=measurement.streams,
        pod_cpu_limit=measurement.pod_cpu_limit,
        steering_before=steering_before,
        steering_after=steering_after,
        machine=on or machine.describe(measurement),
        confounders_before=confounders_before,
        confounders_after=confounders_after,
        **measured,
    )
    return record, [raw for _, raw in results]


def _accounts(window: _Window, node: str) -> dict[str, Any]:
    """What the edge reads say; empty where the traffic never came to its window."""
    before, after = window.before, window.after
    if before is None or after is None:
        return {}
    return {
        "cores": edges.cores(before, after, node),
        "softnet": edges.softnet(before, after, node),
        "window": round(after.at - before.at, 6),
        "harness": Harness(cpu_seconds=round(after.own_cpu - before.own_cpu, 6)),
    }


def _verified(measurement: Measurement, verdict: _Verdict, when: str) -> Steering | None:
    """The steering as read back; drift makes the run invalid. Renews the lease."""
    queues: list[QueueSteering] = []
    table: int | None = None
    for owner in measurement.steered:
        try:
            answer = agent.call("verify", "--owner", owner, "--saved", "--renew")
        except Exception as error:  # whatever it is, the run is invalid
            verdict.reasons.append(f"steering {when}: {error}")
            return None
        verdict.reasons += [f"steering {when}: {_words(drift)}" for drift in answer["drift"]]
        verdict.warnings += answer["warnings"]
        queues += [_queue(owner, queue) for queue in answer["queues"]]
        table = answer["sock_flow_entries"] if table is None else table
    return Steering(sock_flow_entries=table, queues=queues)


def _words(drift: Any) -> str:
    return drift if isinstance(drift, str) else str(drift.get("message", drift))


def _queue(owner: str, queue: dict[str, Any]) -> QueueSteering:
    fields = ("role", "device", "queue", "rps_cpus", "rps_flow_cnt", "pod")
    known = {name: queue.get(name) for name in fields}
    return QueueSteering.model_validate({"node": owner.rpartition("/")[2], **known})


def _throttled(endpoints: Sequence[Endpoint]) -> dict[int, int]:
    """nr_throttled of each limited server pod."""
    counts = {}
    for endpoint in endpoints:
        if endpoint.server_cgroup is None:
            continue
        stat = iperf.cgroup_directory(endpoint.server_cgroup) / "cpu.stat"
        try:
            rows = dict(line.split() for line in stat.read_text().splitlines())
        except OSError:
            continue
        if "nr_throttled" in rows:  # cgroup v2 has it only where the cpu controller is on
            counts[endpoint.index] = int(rows["nr_throttled"])
    return counts


def _with_throttling(pair: Pair, before: dict[int, int], after: dict[int, int]) -> Pair:
    if pair.index not in before or pair.index not in after:
        return pair
    return pair.model_copy(update={"throttled_periods": after[pair.index] - before[pair.index]})


def _unique(words: list[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def mean_bitrate(record: Record) -> float | None:
    """The run's bitrate, Mbit/s: the mean over its pairs; None where one has no number."""
    rates = [pair.bitrate_mbps for pair in record.pairs]
    known = [rate for rate in rates if rate is not None]
    return sum(known) / len(known) if known and len(known) == len(rates) else None


def mean_of(cores: Sequence[Core], name: str) -> float | None:
    """Mean over the cores of one of their percentages."""
    values = [value for core in cores if (value := getattr(core, name)) is not None]
    return sum(values) / len(values) if values else None
