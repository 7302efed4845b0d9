"""Which configuration to keep: one that gains, loses nowhere and changes least (pure)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.metrics import BITRATE, Metric
from analysis.schema import Record
from analysis.verdict import Contrast, amount, gain, joined, where

# A configuration is not recommended where its estimate is below the baseline by more than this.
MARGIN = 0.05
# A smaller gain is no reason to steer, even if it is certain.
WORTHWHILE = 0.01
_UNKNOWN = 10**6

Place = tuple[str, int]  # path, replicas


@dataclass(frozen=True)
class Recommendation:
    """The recommended configuration. `configuration` is None where no single one can be recommended.

    The baseline is recommended where nothing is significantly better. `by_count` has the choice
    for each replica count where one for all does not exist; a count without comparisons has none.
    """

    sentence: str
    configuration: str | None = None
    by_count: dict[int, str] = field(default_factory=dict)


def recommend(
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    complexity: Mapping[str, int],
    baseline: str,
    places: Collection[Place] = (),
    metric: Metric = BITRATE,
) -> Recommendation | None:
    """The choice over all replica counts and paths; None where nothing was compared.

    `places` are those that were measured or attempted, also where no run is valid: a
    configuration without evidence at one of them is not recommended for all.
    A configuration *gains* where its verdict is "better" and its gain at least 1 %. It *may lose*
    where its verdict is "worse" or "inconclusive", where its interval lies wholly on the worse
    side (harm does not wait for Holm), where its estimate is more than 5 % worse than the
    baseline, and where it was not measured. (The percentages apply to ratios.)
    Recommended is one that gains somewhere and may lose nowhere: of those that are not
    significantly worse than the leader anywhere, as far as they are compared with it, the one that
    changes the fewest values. The leader has the highest mean gain. Where none is left, the choice
    is made for each count.
    """
    contrasts = [one for one in contrasts if one.a == baseline]
    if not contrasts:
        return None
    wanted = sorted({*places, *map(_place, contrasts)}, key=lambda one: (one[1], one[0]))
    if all(one.verdict == "inconclusive" for one in contrasts):
        reasons = joined(list(dict.fromkeys(one.doubt for one in contrasts if one.doubt)))
        return Recommendation(f"No recommendation: the runs are inconclusive ({reasons}).")
    unknown = [place for place in wanted if place not in set(map(_place, contrasts))]
    places_unknown = joined([where(*place) for place in unknown])
    nothing = f" Nothing is compared at {places_unknown}." if unknown else ""
    if not any(_gains(one, metric) for one in contrasts):
        return Recommendation(
            f"Recommended: {baseline}. No configuration is significantly better by at least "
            f"{WORTHWHILE * 100:.0f} %.{nothing}",
            baseline,
        )
    chosen = _choice(contrasts, pairwise, complexity, wanted, metric)
    if chosen is not None:
        return Recommendation(_single(chosen, contrasts, complexity, metric), chosen)
    by_count = {
        count: _choice(
            contrasts, pairwise, complexity, [one for one in wanted if one[1] == count], metric
        )
        or baseline
        for count in sorted({one.replicas for one in contrasts})
    }
    sentence = _several(by_count, contrasts, baseline, wanted, metric) + nothing
    alone = set(by_count.values()) == {baseline} and not unknown
    return Recommendation(sentence, baseline if alone else None, by_count)


def _place(one: Contrast) -> Place:
    return one.path, one.replicas


def _at(one: Contrast) -> str:
    return where(one.path, one.replicas)


def _gains(one: Contrast, metric: Metric) -> bool:
    least = math.log1p(WORTHWHILE) if one.effect.scale == "ratio" else 0.0
    return one.verdict == "better" and gain(one.effect, metric) >= least


def changed_values(records: Iterable[Record], reference: Iterable[Record]) -> int | None:
    """The number of values that differ between a configuration and the reference.

    Each knob of a role counts once, however many pods or queues there are. None where no record
    has its steering.
    """
    found, other = _values(records), _values(reference)
    if not found or not other:
        return None
    return sum(found.get(key) != other.get(key) for key in found.keys() | other.keys())


def _values(records: Iterable[Record]) -> dict[tuple[str, str], set[str]]:
    values: dict[tuple[str, str], set[str]] = {}
    for record in records:
        if record.steering_before:
            table = str(record.steering_before.sock_flow_entries)
            values.setdefault(("machine", "sock_flow_entries"), set()).add(table)
            for queue in record.steering_before.queues:
                values.setdefault((queue.role, "rps_cpus"), set()).add(queue.rps_cpus)
                flows = str(queue.rps_flow_cnt)
                values.setdefault((queue.role, "rps_flow_cnt"), set()).add(flows)
            for one in record.steering_before.settings:
                values.setdefault((one.role, one.knob), set()).add(one.value)
    return values


def _choice(
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    complexity: Mapping[str, int],
    places: Collection[Place],
    metric: Metric,
) -> str | None:
    """The configuration to keep at all these places."""
    own = {
        name: {_place(one): one for one in contrasts if one.b == name and _place(one) in places}
        for name in dict.fromkeys(one.b for one in contrasts)
    }
    fit = {
        name: math.fsum(gain(one.effect, metric) for one in found.values()) / len(found)
        for name, found in own.items()
        if set(found) == set(places)
        and any(_gains(one, metric) for one in found.values())
        and not any(may_lose(one, metric) for one in found.values())
    }
    if not fit:
        return None
    leader = max(fit, key=lambda name: fit[name])
    behind = {
        name
        for one in pairwise
        if _place(one) in places and leader in (one.a, one.b)
        for name in (one.a, one.b)
        if name != leader and one.verdict == ("better" if one.b == leader else "worse")
    }
    compared = {name for one in pairwise for name in (one.a, one.b) if leader in (one.a, one.b)}
    return min(
        (name for name in fit if name == leader or (name in compared and name not in behind)),
        key=lambda name: (complexity.get(name, _UNKNOWN), -fit[name], name),
    )


def may_lose(one: Contrast, metric: Metric) -> bool:
    """Whether the configuration may be worse than the baseline there, as `recommend` defines it."""
    effect = one.effect
    margin = math.log(1 - MARGIN) if effect.scale == "ratio" else -math.inf
    bound = effect.high if metric.better == "higher" else effect.low
    return (
        one.verdict in ("worse", "inconclusive")
        or gain(effect, metric) < margin
        or (bound is not None and metric.sign * (bound - effect.null) < 0)
    )


def _single(
    chosen: str, contrasts: Sequence[Contrast], complexity: Mapping[str, int], metric: Metric
) -> str:
    places = list(dict.fromkeys(map(_place, contrasts)))
    own = sorted(
        (one for one in contrasts if one.b == chosen),
        key=lambda one: (one.replicas, one.path == "host"),
    )
    gains = [
        f"{amount(one.effect, metric)} at {_at(one)}" for one in own if one.verdict == "better"
    ]
    others = [
        f"{_at(one)} ({amount(one.effect, metric)})" for one in own if one.verdict != "better"
    ]
    text = f"Recommended: {chosen}. Against {own[0].a}, {metric.title} {joined(gains)}"
    if others:
        text += f"; no significant difference at {joined(others)}"
    text += "."
    mine = {_place(one): gain(one.effect, metric) for one in own}
    losses = {
        one.b: _loss(contrasts, one.b, places, metric)
        for one in contrasts
        if one.verdict == "better" and gain(one.effect, metric) > mine[_place(one)]
    }
    losing = [f"{name} ({loss})" for name, loss in losses.items() if loss]
    complex_ = [
        name
        for name, loss in losses.items()
        if not loss and complexity.get(name, 0) > complexity.get(chosen, 0)
    ]
    if losing:
        text += f" Better at some places, but not recommended: {joined(losing)}."
    if complex_:
        text += f" Better at some places, but changes more values: {joined(complex_)}."
    return text


def _loss(contrasts: Sequence[Contrast], name: str, places: Sequence[Place], metric: Metric) -> str:
    """Where a configuration may lose, its worst case; empty where it may lose nowhere."""
    own = {_place(one) for one in contrasts if one.b == name}
    missing = [place for place in places if place not in own]
    lost = [one for one in contrasts if one.b == name and may_lose(one, metric)]
    if not lost:
        return f"not measured at {where(*missing[0])}" if missing else ""
    known = [one for one in lost if one.effect.estimate is not None] or lost
    worst = min(known, key=lambda one: gain(one.effect, metric))
    text = f"{amount(worst.effect, metric)} at {_at(worst)}"
    return f"{text}, inconclusive" if worst.verdict == "inconclusive" else text


def _several(
    by_count: Mapping[int, str],
    contrasts: Sequence[Contrast],
    baseline: str,
    places: Sequence[Place],
    metric: Metric,
) -> str:
    gaining = dict.fromkeys(one.b for one in contrasts if _gains(one, metric))
    losses = {name: _loss(contrasts, name, places, metric) for name in gaining}
    losing = [f"{name} ({loss})" for name, loss in losses.items() if loss]
    choices: dict[str, list[int]] = {}
    for count, name in by_count.items():
        choices.setdefault(name, []).append(count)
    parts = [
        f"{name} for {joined([str(count) for count in found])} "
        f"{'pair' if found == [1] else 'pairs'}"
        for name, found in sorted(choices.items(), key=lambda item: item[0] != baseline)
    ]
    return (
        "No single configuration is recommended, because each that gains at some places may lose "
        f"at others: {joined(losing)}. By replica count: {joined(parts)}."
    )
