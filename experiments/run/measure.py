"""One run: verify, start all pairs together, read /proc at both ends of the window, verify, record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from analysis.metrics import described as metric_words
from analysis.schema import (
    Confounders,
    Core,
    Harness,
    Machine,
    Pair,
    Record,
)
from experiments import validity
from experiments.host import machine, procstat
from experiments.run import arrivals, background
from experiments.run.readback import steering_of, verified
from experiments.run.verdict import Verdict, in_words
from experiments.targets import TARGETS
from experiments.targets.contract import (
    AnyMeasurement,
    Backend,
    BarrierBroken,
    PairResult,
    Topology,
    TrafficResult,
)
from experiments.validity import Cause, Reason
from infra import traffic
from infra.traffic.contract import Failure, Kind, Values


@dataclass(frozen=True)
class Place:
    """Position of a run in its sweep, and its attempt; all fields are None outside a sweep."""

    block: int | None = None
    order: int | None = None
    seed: int | None = None
    plan: str | None = None
    attempt: int = 1


def run(
    what: AnyMeasurement,
    *,
    replicas: int | None = None,
    place: Place | None = None,
    on: Machine | None = None,
) -> tuple[Record, list[bytes]]:
    """Measure a converged stack once with its first `replicas` pairs, the others idle.

    Returns the record and the raw output of the clients. Errors make the run invalid, with
    the reason; only an interrupt is raised.
    """
    at = TARGETS[what.target].backend(what)
    count = what.replicas if replicas is None else replicas
    place = place or Place()
    verdict = Verdict()
    unknown: dict[int, int] = {}

    def throttled() -> dict[int, int]:
        return verdict.attempt(Cause.MACHINE, "quotas", lambda: at.throttled(count), unknown)

    before = verified(at, verdict, "before the run")
    steering_before = steering_of(before, verdict, "before the run")
    topology = topology_of(at, what, count, verdict)
    confounders_before, throttled_before = confounders(at, verdict), throttled()
    started = datetime.now(UTC)
    driven = _driven(at, what, count, verdict)
    throttled_after, confounders_after = throttled(), confounders(at, verdict)
    after = verified(at, verdict, "after the run")
    steering_after = steering_of(after, verdict, "after the run")
    described = on or verdict.attempt(Cause.MACHINE, "machine", at.describe, None)

    failures = {
        one.index: one.outcome for one in driven.results if isinstance(one.outcome, Failure)
    }
    verdict.add(
        [
            Reason(Cause(failure.cause), f"pair {index}: {failure.text}")
            for index, failure in failures.items()
            if failure.text not in {reason.text for reason in driven.reasons}
        ]
    )
    verdict.warnings += [
        f"pair {one.index}: {line}" for one in driven.results for line in one.outcome.warnings
    ]
    outcomes = {one.index: one.outcome for one in driven.results}
    kinds = traffic.of(what.traffic).pairs(what.replicas, count)
    for kind in set(kinds.values()):
        of_kind = [one for index, one in outcomes.items() if kinds[index] == kind]
        verdict.add(validity.unreached(of_kind, kind.metrics[0]))
    verdict.warnings += validity.unmeasured(outcomes, kinds)
    congestion = congestion_of(outcomes.values())
    if congestion and ", " in congestion:
        verdict.warnings.append(f"senders use several congestion controls: {congestion}")
    verdict.warnings += machine.moved_interrupts(confounders_before, confounders_after)
    verdict.warnings += _quota_words(topology, what)
    accounts: dict[str, Any] = verdict.attempt(
        Cause.WINDOW, "CPU figures", lambda: accounts_of(driven, what.duration, verdict), {}
    )
    if described and accounts.get("cores"):
        verdict.add(same_machine(described, driven))
    periods = _throttled(throttled_before, throttled_after, verdict)
    pairs = pairs_of(driven, kinds, {i: kind.metrics for i, kind in kinds.items()}, periods)
    received = arrivals.differences(before, after)
    verdict.warnings += arrivals.unused(received)
    fields = {
        **fields_of(what, count, place, pairs),
        "path": arrivals.path(what, received, steering_before),
        "received": received,
        "start": started,
        "duration": what.duration,
        "omit": what.omit,
        "congestion": congestion,
        "pod_cpu_limit": topology.pod_cpu_limit,
        "steering_before": steering_before,
        "steering_after": steering_after,
        "machine": described,
        "confounders_before": confounders_before,
        "confounders_after": confounders_after,
        **accounts,
    }
    return recorded(fields, verdict), [one.raw for one in driven.results]


def fields_of(
    what: AnyMeasurement, count: int, place: Place, pairs: Sequence[Pair]
) -> dict[str, Any]:
    """The fields of a record that say what was measured (pure)."""
    return {
        "traffic": what.traffic,
        "target": what.target,
        "stack": what.stack,
        "configuration": what.configuration,
        "definition": what.definition,
        "replicas": count,
        "metrics": metric_words(dict.fromkeys(name for pair in pairs for name in pair.values)),
        "path": what.path,
        "pairs": pairs,
        "idle_pairs": what.replicas - count,
        "block": place.block,
        "order": place.order,
        "seed": place.seed,
        "plan": place.plan,
        "attempt": place.attempt,
        "streams": what.streams,
    }


def topology_of(at: Backend, what: AnyMeasurement, count: int, verdict: Verdict) -> Topology:
    """The pods and servers of the first pairs; differences from the measurement make the run invalid."""
    default = Topology(pod_cpu_limit=what.pod_cpu_limit)
    found = verdict.attempt(Cause.TOPOLOGY, "pods and servers", lambda: at.topology(count), default)
    verdict.add(found.reasons)
    return found


def confounders(at: Backend, verdict: Verdict) -> Confounders:
    return verdict.attempt(Cause.MACHINE, "confounders", at.confounders, Confounders())


def congestion_of(outcomes: Iterable[Values | Failure]) -> str | None:
    """The congestion controls of the senders, separated by commas."""
    known = {one.congestion for one in outcomes if isinstance(one, Values) and one.congestion}
    return ", ".join(sorted(known)) or None


def _quota_words(topology: Topology, what: AnyMeasurement) -> list[str]:
    if topology.pod_cpu_limit == what.pod_cpu_limit:
        return []
    return [
        f"the pods have a CPU quota of {topology.pod_cpu_limit or 'none'}; the stack declares "
        f"{what.pod_cpu_limit or 'none'} (a LimitRange?)"
    ]


def recorded(fields: Mapping[str, Any], verdict: Verdict) -> Record:
    """The record, valid where there is no reason against it.

    Values that the schema refuses are left out, and the run is not valid.
    """

    def judged(which: Mapping[str, Any]) -> Record:
        return Record(
            **which,
            valid=not verdict.reasons,
            reasons=list(dict.fromkeys(reason.text for reason in verdict.reasons)),
            causes=list(dict.fromkeys(str(reason.cause) for reason in verdict.reasons)),
            warnings=list(dict.fromkeys(verdict.warnings)),
        )

    try:
        return judged(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        verdict.reasons.append(Reason(Cause.RECORD, f"cannot be recorded: {where}: {first['msg']}"))
        empty: dict[str, Any] = {
            "cores": [],
            "softnet": [],
            "datagrams": [],
            "goodput": [],
            "received": [],
        }
        return judged({**fields, **dict.fromkeys(_OPTIONAL), **empty})


# The optional fields of a record.
_OPTIONAL = (
    "window", "harness", "foreign_cpu", "congestion", "machine", "steering_before",
    "steering_after", "confounders_before", "confounders_after",
)  # fmt: skip


def _driven(at: Backend, what: AnyMeasurement, count: int, verdict: Verdict) -> TrafficResult:
    """The traffic; where it failed to run, pairs without values and the reason."""
    try:
        driven = at.drive(count)
    except Exception as error:  # a lost connection may raise anything
        known = isinstance(error, BarrierBroken)
        text = str(error) if known else in_words(error)
        reason = Reason(Cause.START if known else Cause.TRAFFIC, text)
        failure = Failure("start" if known else "traffic", text)
        pairs = traffic.of(what.traffic).pairs(what.replicas, count)
        results = [PairResult(pair, failure) for pair in pairs]
        driven = TrafficResult(results, {}, [reason])
    verdict.add(driven.reasons)
    if not driven.edges and not driven.reasons:
        verdict.add([Reason(Cause.WINDOW, "/proc was not read at both ends of the window")])
    return driven


def accounts_of(driven: TrafficResult, asked: float, verdict: Verdict) -> dict[str, Any]:
    """The CPU data of the window; empty where the traffic never reached its window."""
    read = driven.edges
    if not read:
        return {}
    used: list[float] = []
    cores: list[Core] = []
    for node, (before, after) in read.items():
        online = before.cores.keys() & after.cores.keys()
        using = _of(driven.using, node, online)
        verdict.add(validity.window_reasons(node, after.at - before.at, asked))
        verdict.add(validity.core_reasons(node, set(before.cores), set(after.cores)))
        verdict.add(validity.missing_cores(node, using, set(before.cores)))
        verdict.warnings += procstat.backward(before, after, node)
        serving = _of(driven.serving, node, online) if node in driven.serving else ()
        of_node = procstat.cores(before, after, node, serving, using)
        cores += of_node
        span = driven.around.get(node, (before, after))
        others = span if isinstance(span, str) else background.measured(*span, using)
        if isinstance(others, str):
            verdict.warnings.append(f"CPU time of other programs on {node} is not known: {others}")
        else:
            used.append(others.cores)
            verdict.add(validity.foreign(node, others.cores, len(using), others.who))
        mine = [core for core in of_node if core.core in using]
        verdict.add(validity.stolen(node, mine, before.tick * (after.at - before.at)))
    spans = [after.at - before.at for before, after in read.values()]
    own = [after.own_cpu - before.own_cpu for before, after in read.values()]
    udp = [procstat.datagrams(*both, node) for node, both in read.items()]
    seen = all(client in read for _, client in driven.nodes.values())
    return {
        "cores": cores,
        "softnet": [row for node, both in read.items() for row in procstat.softnet(*both, node)],
        "datagrams": [one if seen else one.model_copy(update={"sent": None}) for one in udp if one],
        "window": round(sum(spans) / len(spans), 6) or None,
        "harness": Harness(cpu_seconds=round(max(0.0, *own), 6)),
        "foreign_cpu": round(sum(used), 4) if len(used) == len(read) else None,
    }


def _of(by_node: Mapping[str, Any], node: str, online: Collection[int]) -> set[int]:
    """The cores listed for a node; all online ones where there is no list."""
    cores = by_node.get(node)
    return set(online if cores is None else cores)


def same_machine(described: Machine, driven: TrafficResult) -> list[Reason]:
    """Why the machine of the record is not the one that ran: other cores are online (pure)."""
    before, _ = next(iter(driven.edges.values()))
    if len(before.cores) == described.cores:
        return []
    text = f"the machine has {len(before.cores)} cores online, it had {described.cores}"
    return [Reason(Cause.CORES, text)]


def _throttled(
    before: Mapping[int, int], after: Mapping[int, int], verdict: Verdict
) -> dict[int, int]:
    """Throttled periods by pair; a counter that went back belongs to another cgroup."""
    periods = {index: after[index] - before[index] for index in before.keys() & after.keys()}
    for index in sorted(periods):
        if periods[index] < 0:
            text = f"pair {index}: nr_throttled went back: its server pod was recreated"
            verdict.add([Reason(Cause.TOPOLOGY, text)])
    return {index: count for index, count in periods.items() if count >= 0}


def pairs_of(
    driven: TrafficResult,
    kinds: Mapping[int, Kind],
    metrics: Mapping[int, Sequence[str]],
    throttled: Mapping[int, int],
) -> list[Pair]:
    """The pairs, with a value for each of their metrics, and their kind where there are several."""
    several = len(set(kinds.values())) > 1
    found = []
    for one in driven.results:
        server, client = driven.nodes.get(one.index, (None, None))
        known = one.outcome if isinstance(one.outcome, Values) else Values({})
        found.append(
            Pair(
                index=one.index,
                kind=kinds[one.index].name if several else None,
                values={**dict.fromkeys(metrics[one.index]), **known.numbers},
                latency=list(known.latency),
                halves=known.halves,
                reason=one.outcome.text if isinstance(one.outcome, Failure) else None,
                server_node=server,
                client_node=client,
                throttled_periods=throttled.get(one.index),
            )
        )
    return found
