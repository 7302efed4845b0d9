"""One episode of switchback: the configurations in turn under one set of connections, and records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from analysis.metrics import BITRATE
from analysis.schema import Machine, Record
from experiments import validity
from experiments.host import machine
from experiments.run import arrivals, episodes, measure
from experiments.run.measure import Place
from experiments.run.readback import steering_of, verified
from experiments.run.verdict import Verdict, in_words
from experiments.targets import TARGETS
from experiments.targets.contract import (
    AnyMeasurement,
    Backend,
    BarrierBroken,
    EpisodeLost,
    PairResult,
    TrafficResult,
    WindowResult,
)
from experiments.validity import Cause, Reason
from infra import traffic
from infra.errors import Refusal
from infra.traffic.contract import Failure, Kind


@dataclass
class _Episode:
    """What all windows have in common."""

    verdict: Verdict
    windows: Sequence[WindowResult]
    began: datetime
    fields: Mapping[str, Any]


def run(
    whats: Sequence[AnyMeasurement],
    key: str,
    *,
    replicas: int,
    timing: episodes.Timing,
    places: Sequence[Place],
    on: Machine | None = None,
    base: AnyMeasurement | None = None,
) -> list[Record]:
    """Measure a converged stack under each of these measurements once, in their order.

    The episode does not count without the window of the configuration `key`. The stack has that
    one, or `base`. The measurements differ in their configuration alone. Errors make records
    invalid, with the reason; only an interrupt is raised.
    """
    names = [what.configuration for what in whats]
    episode = _measured(whats, base or whats[names.index(key)], replicas, timing, on)
    kinds = traffic.of(whats[0].traffic).pairs(whats[0].replicas, replicas)
    windows = list(episode.windows) or [_nothing(kinds, episode.verdict)] * len(whats)
    verdicts, fields = [], []
    for number, (what, place, window) in enumerate(zip(whats, places, windows, strict=True)):
        verdict = Verdict()
        fields.append({
            **_window(what, replicas, kinds, place, window, timing, verdict, episode),
            "omit": timing.settle_of(number),
            "start": _start(window, episode.began, number, timing),
        })  # fmt: skip
        verdicts.append(verdict)
    own = {name: verdict.reasons for name, verdict in zip(names, verdicts, strict=True)}
    whole = episode.verdict.reasons or episodes.too_few(own, key)
    return [
        measure.recorded(
            one,
            Verdict(
                list(verdict.reasons or whole),
                [*episode.verdict.warnings, *verdict.warnings],
            ),
        )
        for one, verdict in zip(fields, verdicts, strict=True)
    ]


def _measured(
    whats: Sequence[AnyMeasurement],
    base: AnyMeasurement,
    count: int,
    timing: episodes.Timing,
    on: Machine | None,
) -> _Episode:
    """The windows of an episode, none where it failed, and what was true of all of them."""
    at = TARGETS[base.target].backend(base)
    verdict = Verdict()
    topology = measure.topology_of(at, base, count, verdict)
    before = measure.confounders(at, verdict)
    began = datetime.now(UTC)
    windows = _switched(at, whats, count, timing, verdict)
    after = measure.confounders(at, verdict)
    # also what changed before it: the agent restores the values that it found
    steering_of(verified(at, verdict, "after the episode"), verdict, "after the episode")
    described = on or verdict.attempt(Cause.MACHINE, "machine", at.describe, None)
    if described and windows:
        first = windows[0].traffic
        verdict.add(
            verdict.attempt(
                Cause.CORES, "cores", lambda: measure.same_machine(described, first), []
            )
        )
    verdict.warnings += machine.moved_interrupts(before, after)
    fields = {
        "method": "switchback",
        "duration": timing.window,
        "pod_cpu_limit": topology.pod_cpu_limit,
        "machine": described,
        "confounders_before": before,
        "confounders_after": after,
    }
    return _Episode(verdict, windows, began, fields)


def _switched(
    at: Backend,
    whats: Sequence[AnyMeasurement],
    count: int,
    timing: episodes.Timing,
    verdict: Verdict,
) -> Sequence[WindowResult]:
    streams = whats[0].streams
    try:
        return at.switch(
            count,
            whats,
            lambda plans, receivers: episodes.schedule(plans, receivers, timing, streams),
            timing.traffic(len(whats)),
        )
    except EpisodeLost as error:
        verdict.add(error.reasons)
    except BarrierBroken as error:
        verdict.add([Reason(Cause.START, str(error))])
    except Exception as error:  # a lost connection may raise anything
        cause = Cause.AGENT if isinstance(error, Refusal) else Cause.TRAFFIC
        verdict.add([Reason(cause, f"episode: {in_words(error)}")])
    return []


def _nothing(pairs: Iterable[int], verdict: Verdict) -> WindowResult:
    """The window of an episode that failed."""
    text = verdict.reasons[0].text if verdict.reasons else "the episode has no windows"
    failure = Failure("traffic", text)
    results = [PairResult(index, failure) for index in pairs]
    return WindowResult(TrafficResult(results, {}), [])


def _window(
    what: AnyMeasurement,
    count: int,
    kinds: Mapping[int, Kind],
    place: Place,
    window: WindowResult,
    timing: episodes.Timing,
    verdict: Verdict,
    episode: _Episode,
) -> dict[str, Any]:
    """The fields of a record, and in its verdict what is wrong with this window."""
    driven = window.traffic
    verdict.add(driven.reasons)
    verdict.warnings += [
        f"pair {one.index}: {line}" for one in driven.results for line in one.outcome.warnings
    ]
    metrics = {index: episodes.metrics_of(kind) for index, kind in kinds.items()}
    received = [one.outcome for one in driven.results if BITRATE.name in metrics[one.index]]
    verdict.add(validity.unreached(received, BITRATE.name))
    accounts: dict[str, Any] = verdict.attempt(
        Cause.WINDOW,
        "CPU figures",
        lambda: measure.accounts_of(driven, timing.window, verdict),
        {},
    )
    steering = steering_of(window.steering, verdict, "in the window")
    pairs = measure.pairs_of(driven, kinds, metrics, {})
    verdict.warnings += arrivals.unused(window.received)
    return {
        **measure.fields_of(what, count, place, pairs),
        **episode.fields,
        "path": arrivals.path(what, window.received, steering),
        "received": list(window.received),
        "congestion": measure.congestion_of(received),
        "steering_before": steering if window.steering else None,
        "steering_after": steering if window.steering else None,
        "goodput": list(window.goodput),
        **accounts,
    }


def _start(window: WindowResult, began: datetime, number: int, timing: episodes.Timing) -> datetime:
    """When the window began, as measured else as planned, so that no two are the same.

    The clients connect between `began` and the start of the episode, which takes less than a second.
    """
    planned = timing.at(number)
    return began + timedelta(seconds=planned if window.at is None else window.at)
