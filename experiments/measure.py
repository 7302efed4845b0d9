"""One run: verify, start all pairs together, read /proc at the window's edges, verify, record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from analysis.schema import (
    Confounders,
    Core,
    Harness,
    Machine,
    Pair,
    QueueSteering,
    Record,
    Steering,
)
from experiments import edges, machine, site
from experiments.edges import Edge
from experiments.iperf import BarrierBroken
from experiments.site import AnyMeasurement, Driven, Site
from infra.refusals import Refusal

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where a run stands in a sweep; nothing of it outside one."""

    block: int | None = None
    order: int | None = None
    seed: int | None = None
    plan: str | None = None


@dataclass
class _Verdict:
    """Whether a run counts, and why not."""

    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def asked(self, question: Callable[[], T], otherwise: T) -> T:
        """The answer; a site that cannot give it makes the run invalid."""
        try:
            return question()
        except Refusal as error:
            self.reasons.append(str(error))
            return otherwise


def run(
    what: AnyMeasurement,
    *,
    replicas: int | None = None,
    place: Place | None = None,
    on: Machine | None = None,
) -> tuple[Record, list[bytes]]:
    """Measure what is converged once with its first `replicas` pairs, the others idle.

    Returns the record and iperf3's raw output. What goes wrong makes the run invalid, with the
    reason: it raises nothing that traffic or drift could cause.
    """
    at = site.of(what)
    count = what.replicas if replicas is None else replicas
    place = place or Place()
    verdict = _Verdict()
    steering_before = _verified(at, verdict, "before the run")
    unknown: dict[int, int] = {}
    confounders_before = verdict.asked(at.confounders, Confounders())
    throttled_before = verdict.asked(lambda: at.throttled(count), unknown)
    started = datetime.now(UTC)
    try:
        driven = at.drive(count)
    except (BarrierBroken, Refusal) as error:
        silent = [Pair(index=i, bitrate_mbps=None, reason=str(error)) for i in range(1, count + 1)]
        driven = Driven([(pair, b"") for pair in silent], {}, [str(error)])
    verdict.reasons += driven.reasons
    throttled_after = verdict.asked(lambda: at.throttled(count), unknown)
    confounders_after = verdict.asked(at.confounders, Confounders())
    steering_after = _verified(at, verdict, "after the run")

    pairs = [
        _with_throttling(pair, throttled_before, throttled_after) for pair, _ in driven.results
    ]
    verdict.reasons += [
        f"pair {pair.index}: {pair.reason}"
        for pair in pairs
        if pair.reason and pair.reason not in verdict.reasons
    ]
    verdict.warnings += machine.moved_interrupts(confounders_before, confounders_after)
    nothing: dict[str, Any] = {}
    accounts = verdict.asked(lambda: _accounts(driven.edges), nothing)
    record = Record(
        target=what.target,
        stack=what.stack,
        configuration=what.configuration,
        replicas=count,
        path=what.path,
        valid=not verdict.reasons,
        reasons=_unique(verdict.reasons),
        warnings=_unique(verdict.warnings),
        pairs=pairs,
        idle_pairs=what.replicas - count,
        block=place.block,
        order=place.order,
        seed=place.seed,
        plan=place.plan,
        start=started,
        duration=what.duration,
        omit=what.omit,
        streams=what.streams,
        pod_cpu_limit=what.pod_cpu_limit,
        steering_before=steering_before,
        steering_after=steering_after,
        machine=on or at.describe(),
        confounders_before=confounders_before,
        confounders_after=confounders_after,
        **accounts,
    )
    return record, [raw for _, raw in driven.results]


def _accounts(read: Mapping[str, tuple[Edge, Edge]]) -> dict[str, Any]:
    """What the edge reads say; empty where the traffic never came to its window."""
    if not read:
        return {}
    spans = [after.at - before.at for before, after in read.values()]
    own = [after.own_cpu - before.own_cpu for before, after in read.values()]
    return {
        "cores": [core for node, both in read.items() for core in edges.cores(*both, node)],
        "softnet": [row for node, both in read.items() for row in edges.softnet(*both, node)],
        "window": round(sum(spans) / len(spans), 6),
        "harness": Harness(cpu_seconds=round(max(own), 6)),
    }


def _verified(at: Site, verdict: _Verdict, when: str) -> Steering | None:
    """The steering as read back; drift makes the run invalid. Renews the lease."""
    try:
        answers = at.verify()
        steering = _steering(answers)
    except Exception as error:  # whatever it is, the run is invalid
        verdict.reasons.append(f"steering {when}: {error}")
        return None
    for _, answer in answers:
        verdict.reasons += [f"steering {when}: {_words(drift)}" for drift in answer["drift"]]
        verdict.warnings += answer["warnings"]
    return steering


def _steering(answers: Sequence[tuple[str, dict[str, Any]]]) -> Steering:
    queues: list[QueueSteering] = []
    table: int | None = None
    for node, answer in answers:
        queues += [_queue(node, queue) for queue in answer["queues"]]
        table = answer["sock_flow_entries"] if table is None else table
    return Steering(sock_flow_entries=table, queues=queues)


def _words(drift: Any) -> str:
    return drift if isinstance(drift, str) else str(drift.get("message", drift))


def _queue(node: str, queue: dict[str, Any]) -> QueueSteering:
    fields = ("role", "device", "queue", "rps_cpus", "rps_flow_cnt", "pod")
    known = {name: queue.get(name) for name in fields}
    return QueueSteering.model_validate({"node": node, **known})


def _with_throttling(pair: Pair, before: dict[int, int], after: dict[int, int]) -> Pair:
    if pair.index not in before or pair.index not in after:
        return pair
    return pair.model_copy(update={"throttled_periods": after[pair.index] - before[pair.index]})


def _unique(words: list[str]) -> list[str]:
    return list(dict.fromkeys(words))


def mean_bitrate(record: Record) -> float | None:
    """The run's bitrate, Mbit/s: the mean over its pairs; None where one has no number."""
    rates = [pair.bitrate_mbps for pair in record.pairs]
    known = [rate for rate in rates if rate is not None]
    return sum(known) / len(known) if known and len(known) == len(rates) else None


def mean_of(cores: Sequence[Core], name: str) -> float | None:
    """Mean over the cores of one of their percentages."""
    values = [value for core in cores if (value := getattr(core, name)) is not None]
    return sum(values) / len(values) if values else None
