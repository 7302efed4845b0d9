"""Which configuration to keep: what gains, loses nowhere, and changes least (pure)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.schema import Record
from analysis.verdict import Contrast, interval, joined, pairs

# A configuration is not recommended where its estimate is below the baseline by more than this.
MARGIN = 0.05
# A gain of less is no reason to steer, however surely it is known.
WORTHWHILE = 0.01
_UNKNOWN = 10**6

Place = tuple[str, int]  # path, replicas


@dataclass(frozen=True)
class Recommendation:
    """What to keep. `configuration` is None where no single one can be recommended.

    The baseline is recommended where nothing is shown to carry more. `by_count` names the choice
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
) -> Recommendation | None:
    """The choice over all replica counts and paths; None where nothing was compared.

    `places` are those that were measured or attempted, also where no run is valid: a
    configuration without evidence at one of them is not recommended for all.
    A configuration *gains* where its verdict is "better" and its estimate at least 1 % above the
    baseline. It *may lose* where its verdict is
    "worse" or "inconclusive", where its interval lies wholly below 1 (harm does not wait for
    Holm), where its estimate is more than 5 % below the baseline, and where it was not measured.
    Recommended is one that gains somewhere and may lose nowhere: of those that do not carry
    significantly less than the leader anywhere, as far as they are compared with it, the one that changes the fewest values. The
    leader has the highest mean ratio. Where none is left, the choice is made for each count.
    """
    contrasts = [one for one in contrasts if one.a == baseline]
    if not contrasts:
        return None
    wanted = sorted({*places, *map(_place, contrasts)}, key=lambda one: (one[1], one[0]))
    if all(one.verdict == "inconclusive" for one in contrasts):
        reasons = joined(list(dict.fromkeys(one.doubt for one in contrasts if one.doubt)))
        return Recommendation(f"No recommendation: the runs are inconclusive ({reasons}).")
    unknown = [place for place in wanted if place not in set(map(_place, contrasts))]
    nothing = f" Nothing is compared at {joined(list(map(_words, unknown)))}." if unknown else ""
    if not any(map(_gains, contrasts)):
        return Recommendation(
            f"Recommended: {baseline}. No configuration is shown to carry at least "
            f"{WORTHWHILE * 100:.0f} % more.{nothing}",
            baseline,
        )
    chosen = _choice(contrasts, pairwise, complexity, wanted)
    if chosen is not None:
        return Recommendation(_single(chosen, contrasts, complexity), chosen)
    by_count = {
        count: _choice(contrasts, pairwise, complexity, [one for one in wanted if one[1] == count])
        or baseline
        for count in sorted({one.replicas for one in contrasts})
    }
    sentence = _several(by_count, contrasts, baseline, wanted) + nothing
    alone = set(by_count.values()) == {baseline} and not unknown
    return Recommendation(sentence, baseline if alone else None, by_count)


def _place(one: Contrast) -> Place:
    return one.path, one.replicas


def _words(place: Place) -> str:
    return pairs(place[1]) + (" over the host network" if place[0] == "host" else "")


def _gains(one: Contrast) -> bool:
    return one.verdict == "better" and (one.effect.estimate or 0) >= 1 + WORTHWHILE


def changed_values(records: Iterable[Record], reference: Iterable[Record]) -> int | None:
    """How many values a configuration sets otherwise than the reference, by kind of device.

    A role's masks count once and its flow tables once, however many pods or queues there are, and
    the machine's flow table once. None where no record has its steering.
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
    return values


def _choice(
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    complexity: Mapping[str, int],
    places: Collection[Place],
) -> str | None:
    """The configuration to keep at all these places."""
    own = {
        name: {_place(one): one for one in contrasts if one.b == name and _place(one) in places}
        for name in dict.fromkeys(one.b for one in contrasts)
    }
    fit = {
        name: _mean(found.values())
        for name, found in own.items()
        if set(found) == set(places)
        and any(map(_gains, found.values()))
        and not any(may_lose(one) for one in found.values())
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


def may_lose(one: Contrast) -> bool:
    """Whether the configuration may carry less than the baseline there, as `recommend` defines it."""
    effect = one.effect
    return (
        one.verdict in ("worse", "inconclusive")
        or effect.estimate is None
        or effect.estimate < 1 - MARGIN
        or (effect.high is not None and effect.high < 1)
    )


def _mean(found: Iterable[Contrast]) -> float:
    logs = [math.log(one.effect.estimate or 1) for one in found]
    return math.fsum(logs) / len(logs)


def _single(chosen: str, contrasts: Sequence[Contrast], complexity: Mapping[str, int]) -> str:
    places = list(dict.fromkeys(map(_place, contrasts)))
    own = sorted(
        (one for one in contrasts if one.b == chosen),
        key=lambda one: (one.replicas, one.path == "host"),
    )
    gains = [
        f"{interval(one.effect)} at {_words(_place(one))}" for one in own if one.verdict == "better"
    ]
    others = [
        f"{_words(_place(one))} ({interval(one.effect)})" for one in own if one.verdict != "better"
    ]
    words = f"Recommended: {chosen}. It carries {joined(gains)} of the baseline"
    if others:
        words += f"; no significant difference at {joined(others)}"
    better = [
        one for one in contrasts if one.verdict == "better" and one.b != chosen and _above(one, own)
    ]
    text = f"{words}."
    losses = {one.b: _loss(contrasts, one.b, places) for one in better}
    losing = [f"{name} ({loss})" for name, loss in losses.items() if loss]
    simpler = [
        name
        for name, loss in losses.items()
        if not loss and complexity.get(name, 0) > complexity.get(chosen, 0)
    ]
    if losing:
        text += f" Higher in places, but not recommended: {joined(losing)}."
    if simpler:
        text += f" Higher in places, but it changes more values: {joined(simpler)}."
    return text


def _above(one: Contrast, own: Sequence[Contrast]) -> bool:
    return any(
        (one.effect.estimate or 0) > (mine.effect.estimate or 0)
        for mine in own
        if _place(mine) == _place(one)
    )


def _loss(contrasts: Sequence[Contrast], name: str, places: Sequence[Place]) -> str:
    """Where a configuration may lose, its worst case; empty where it may lose nowhere."""
    own = {_place(one) for one in contrasts if one.b == name}
    missing = [place for place in places if place not in own]
    lost = [one for one in contrasts if one.b == name and may_lose(one)]
    if not lost:
        return f"not measured at {_words(missing[0])}" if missing else ""
    worst = min(lost, key=lambda one: one.effect.estimate or math.inf)
    where = f"{interval(worst.effect)} at {_words(_place(worst))}"
    return f"{where}, inconclusive" if worst.verdict == "inconclusive" else where


def _several(
    by_count: Mapping[int, str],
    contrasts: Sequence[Contrast],
    baseline: str,
    places: Sequence[Place],
) -> str:
    gaining = dict.fromkeys(one.b for one in contrasts if _gains(one))
    losses = {name: _loss(contrasts, name, places) for name in gaining}
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
        "No single configuration is recommended: each that gains somewhere may lose elsewhere: "
        f"{joined(losing)}. By replica count: {joined(parts)}."
    )
