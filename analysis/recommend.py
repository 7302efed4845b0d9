"""The recommendation in words: what to keep, what it changes, what the limits exclude (pure)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from analysis.choice import WORTHWHILE, Case, Choice, Place, choose, may_lose, place, wholly_worse
from analysis.limits import Limit, Standing
from analysis.metrics import BITRATE, Metric
from analysis.tradeoff import NOTHING, LimitCheck, Tradeoff, changed, stated
from analysis.verdict import Contrast, amount, change, gain, joined, where

# Of configurations that the limits exclude or may exclude; the trade-off has the others.
_MOST_NAMED = 4
# The runs for an interval that ends before a limit in 80 % of cases, relative to half of them.
_FOR_POWER = ((1.96 + 0.84) / 1.96) ** 2
_MOST_TIMES = 20


@dataclass(frozen=True)
class Recommendation:
    """A choice (`analysis.choice.Choice`) and the sentences that state and explain it.

    The first one has the choice with its interval, and what the limits exclude.
    """

    sentences: Sequence[str]
    configuration: str | None = None
    by_count: dict[int, str] = field(default_factory=dict)
    tentative: str | None = None

    @property
    def sentence(self) -> str:
        """All sentences together."""
        return " ".join(self.sentences)

    def named(self, replicas: int) -> str | None:
        """The configuration that is, or tentatively would be, recommended at a replica count."""
        return self.configuration or self.tentative or self.by_count.get(replicas)

    def to_json(self) -> dict[str, Any]:
        return {"sentence": self.sentence, **asdict(self)}


def recommend(
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    complexity: Mapping[str, int],
    baseline: str,
    places: Collection[Place] = (),
    metric: Metric = BITRATE,
    tradeoff: Tradeoff = NOTHING,
) -> Recommendation | None:
    """The choice over all replica counts and paths; None where nothing was compared."""
    own = [one for one in contrasts if one.a == baseline]
    if not own:
        return None
    wanted = sorted({*places, *map(place, own)}, key=lambda one: (one[1], one[0]))
    found = Case(own, pairwise, complexity, baseline, wanted, metric, tradeoff)
    choice = choose(found)
    return Recommendation(
        _text(found, choice), choice.configuration, choice.by_count, choice.tentative
    )


def _text(found: Case, choice: Choice) -> list[str]:
    if all(one.verdict == "inconclusive" for one in found.contrasts):
        reasons = joined(list(dict.fromkeys(one.doubt for one in found.contrasts if one.doubt)))
        return [f"No recommendation: the runs are inconclusive ({reasons})."]
    chosen = choice.configuration
    if chosen and chosen != found.baseline:
        first = _single(found, chosen)
        more = [*_changes(found, chosen), *_not_chosen(found, chosen)]
    elif chosen:
        first, more = _baseline(found), _elsewhere(found)
    elif choice.tentative:
        first, more = _tentative(found, choice.tentative), _changes(found, choice.tentative)
    else:
        first, more = _several(found), []
    if choice.by_count and not chosen:
        more.append(f"By replica count: {_by_count(choice.by_count, found.baseline)}")
    unknown = [one for one in found.places if one not in set(map(place, found.contrasts))]
    if unknown:
        more.append(f"Nothing is compared at {joined([where(*one) for one in unknown])}")
    limits = _of_limits(found, chosen, choice.tentative)
    return [f"{one}." for one in ("; ".join([first, *limits]), *more)]


def _single(found: Case, chosen: str) -> str:
    own = sorted(found.of(chosen, found.places), key=lambda one: (one.replicas, one.path == "host"))
    first = [one for one in own if one.verdict == "better"]
    if not first:
        return _rescuing(found, chosen, own)
    text = f"Recommended: {chosen}, with {found.metric.title} {_amounts(found, first)} against {found.baseline}"
    for verdict in ("worse", "no significant difference"):
        if rest := [one for one in own if one not in first and one.verdict == verdict]:
            text += f" ({verdict}: {_amounts(found, rest)})"
    return text


def _rescuing(found: Case, chosen: str, own: Sequence[Contrast]) -> str:
    """The choice that is better nowhere, but keeps the limits that the baseline exceeds."""
    limits = joined([str(one.limit) for one in _checks(found, found.baseline, "exceeded")])
    first = f"Recommended: {chosen}, because {found.baseline} exceeds {limits}"
    return "; ".join([first, *_not_better(found, own)])


def _not_better(found: Case, own: Sequence[Contrast]) -> list[str]:
    texts = {"worse": "costs", "no significant difference": "no significant difference in"}
    return [
        f"{text} {found.metric.title} {_amounts(found, some)}"
        for verdict, text in texts.items()
        if (some := [one for one in own if one.verdict == verdict])
    ]


def _amounts(found: Case, some: Sequence[Contrast]) -> str:
    return joined([_placed(one, found.metric) for one in some])


def _baseline(found: Case) -> str:
    if losing := _losing(found):
        return (
            f"Recommended: {found.baseline}, because each configuration that gains at some places "
            f"may lose at others: {losing}"
        )
    least = f" by at least {WORTHWHILE * 100:.0f} %" if found.metric.scale == "ratio" else ""
    limits = "within the limits " if found.tradeoff.limits else ""
    text = (
        f"Recommended: {found.baseline}, because no configuration {limits}is significantly better "
        f"in {found.metric.title}{least}"
    )
    possible = [
        one
        for one in found.contrasts
        if one.effect.estimate is not None and found.standing(one.b, [place(one)]) != "exceeded"
    ]
    if possible:
        top = max(possible, key=lambda one: gain(one.effect, found.metric))
        worse = ", worse" if top.verdict == "worse" else ""
        text += f" (the best estimate is that of {top.b}: {_placed(top, found.metric)}{worse})"
    return text


def _tentative(found: Case, name: str) -> str:
    checks = _checks(found, name, "inconclusive")
    better = [one for one in found.of(name, found.places) if one.verdict == "better"]
    gained = f" ({found.metric.title} {_amounts(found, better)} against {found.baseline})"
    if not checks:  # the limits that decide are those of the baseline
        first = (
            f"No certain recommendation: {name} would be best{gained if better else ''}, if "
            f"{found.baseline} exceeds a limit about which its runs are inconclusive"
        )
        rest = [] if better else _not_better(found, found.of(name, found.places))
        return "; ".join([first, *rest])
    text = (
        f"No certain recommendation: {name} would be best{gained if better else ''}, but the runs are "
        f"inconclusive about {_stated(checks)}"
    )
    beyond = [one for one in checks if one.found.estimate is not None and _margin(one) < 0]
    if beyond:
        text += ", and its estimate exceeds the limit"
    # one limit that it exceeds is enough to exclude it
    times = min(map(_times, beyond)) if beyond else max(map(_times, checks), default=0.0)
    if times <= _MOST_TIMES:
        result = f"exclude {name}" if beyond else "be conclusive"
        text += (
            f": about {math.ceil(times)} times as many runs would {result} in 80 % of cases, "
            "if the estimate is right"
        )
    return text


def _times(check: LimitCheck) -> float:
    """How many times as many runs would decide on a limit, if the estimate is the truth."""
    low, high, middle = check.found.low, check.found.high, check.found.estimate
    if check.doubt or low is None or high is None or middle is None:
        return math.inf
    measured = [low, high, middle, check.limit.bound]
    if check.limit.kind == "ratio":
        measured = [math.log(one) for one in measured]
    low, high, middle, bound = measured
    half, distance = (high - low) / 2, abs(bound - middle)
    return _FOR_POWER * (half / distance) ** 2 if distance else math.inf


def _several(found: Case) -> str:
    if not found.keeps_baseline and not found.gaining(excluded=False):
        return "No recommendation: no configuration is known to keep the limits"
    text = "No single configuration is recommended"
    if losing := _losing(found):
        text += f", because each that gains at some places may lose at others: {losing}"
    return text


def _losing(found: Case) -> str:
    """The configurations that gain somewhere and may lose elsewhere, with their worst case."""
    losses = {name: _loss(found, name) for name in found.gaining(excluded=False)}
    return joined([f"{name} ({loss})" for name, loss in losses.items() if loss])


def _by_count(by_count: Mapping[int, str], baseline: str) -> str:
    choices: dict[str, list[int]] = {}
    for count, name in by_count.items():
        choices.setdefault(name, []).append(count)
    return joined(
        [
            f"{name} for {joined([str(count) for count in counts])} "
            f"{'pair' if counts == [1] else 'pairs'}"
            for name, counts in sorted(choices.items(), key=lambda item: item[0] != baseline)
        ]
    )


def _of_limits(found: Case, chosen: str | None, tentative: str | None) -> list[str]:
    """What the choice keeps or may not keep, and what each limit excludes or may exclude of the others."""
    # of the baseline alone: another choice is within all limits
    unclear = _checks(found, chosen, "inconclusive") if chosen else []
    kept = [
        check
        for check in (_checks(found, chosen, "within") if chosen else ())
        if (chosen != found.baseline or check.limit.kind == "value")
        and check.limit not in {one.limit for one in unclear}
    ]
    rivals = found.gaining() if found.keeps_baseline else found.names
    others = [name for name in (found.baseline, *rivals) if name not in (chosen, tentative)]
    texts: tuple[tuple[Standing, str], ...] = (
        ("exceeded", "excluded by the limit"),
        ("inconclusive", "not certain to be within the limit"),
    )
    parts = [f"within {_stated(kept)}"] if kept else []
    if unclear:
        parts.append(f"but the runs are inconclusive about {_stated(unclear)}")
    for standing, text in texts:
        by_limit: dict[Limit, dict[str, list[str]]] = {}
        for name in others:
            if found.standing(name, found.places) == standing:
                for check in _checks(found, name, standing):
                    known = by_limit.setdefault(check.limit, {})
                    known.setdefault(stated(check), []).append(name)
        for limit, known in by_limit.items():
            named = [f"{joined(names)} ({why})" for why, names in known.items()]
            more = len(named) - _MOST_NAMED
            named[_MOST_NAMED:] = [f"{more} more"] if more > 0 else []
            parts.append(f"{text} {limit}: {joined(named)}")
    return parts


def _checks(found: Case, name: str, standing: Standing) -> list[LimitCheck]:
    """The checks of a configuration with this standing: of each limit, that of the worst place."""
    worst: dict[Limit, LimitCheck] = {}
    for row in found.rows(name, found.places):
        for check in row.limits:
            if check.standing == standing:
                known = worst.get(check.limit, check)
                worst[check.limit] = min(known, check, key=_margin)
    return list(worst.values())


def _margin(check: LimitCheck) -> float:
    """How far the estimate is on the good side of the limit."""
    if check.found.estimate is None:
        return -math.inf
    return check.limit.metric.sign * (check.found.estimate - check.limit.bound)


def _stated(checks: Sequence[LimitCheck]) -> str:
    return joined([f"the limit {check.limit} ({stated(check)})" for check in checks])


def _changes(found: Case, chosen: str) -> list[str]:
    """What the choice costs, buys and does not change in other metrics, each at its worst place."""
    parts: dict[str, list[str]] = {
        "Costs": [], "Probably costs": [], "Also better": [], "No significant difference": [], "Inconclusive": []
    }  # fmt: skip
    limited = {limit.metric.name for limit in found.tradeoff.limits}
    for metric in found.tradeoff.metrics:
        rows = [row for row in found.rows(chosen, found.places) if metric.name in row.contrasts]
        if metric == found.metric or not rows:
            continue
        costs = [row for row in rows if metric.name in row.costs]
        buys = [row for row in rows if metric.name in row.buys]
        unclear = [row for row in rows if row.contrasts[metric.name].verdict == "inconclusive"]
        harmed = [row for row in unclear if _harmed(row.contrasts[metric.name], metric)]
        some = costs or harmed or buys or unclear or rows
        own = [row.contrasts[metric.name] for row in some]
        worst = min(own, key=lambda one: gain(one.effect, metric))
        if harmed and not costs:
            text = f"{_changed(found, worst, metric)} (inconclusive: {worst.doubt})"
            parts["Probably costs"].append(text)
        elif costs or buys:
            parts["Costs" if costs else "Also better"].append(_changed(found, worst, metric))
        elif metric.shown == "always" and metric.name not in limited:
            kind = "Inconclusive" if unclear else "No significant difference"
            parts[kind].append(_changed(found, worst, metric))
    return [f"{kind}: {joined(texts)}" for kind, texts in parts.items() if texts]


def _harmed(one: Contrast, metric: Metric) -> bool:
    """Whether it would be worse, by an amount that counts, but for the doubt about the runs."""
    counts = changed(metric.name, replace(one, verdict="worse"))
    return bool(one.doubt and counts) and wholly_worse(one, metric)


def _elsewhere(found: Case) -> list[str]:
    """What is better than the baseline in another metric that is always shown."""
    parts = []
    for metric in found.tradeoff.metrics:
        better = [
            f"{row.configuration} {_placed(row.buys[metric.name], metric)}"
            for row in found.tradeoff.rows
            if metric.name in row.buys and row.standing != "exceeded"
        ]
        if better and metric.shown == "always" and metric != found.metric:
            more = [f"{len(better) - _MOST_NAMED} more"] if len(better) > _MOST_NAMED else []
            named = joined([*better[:_MOST_NAMED], *more])
            parts.append(f"Better in {metric.title}: {named} (--metric {metric.name})")
    return parts


def _not_chosen(found: Case, chosen: str) -> list[str]:
    """Why configurations with a higher gain at some place are not recommended."""
    own = found.of(chosen, found.places)
    mine = {place(one): gain(one.effect, found.metric) for one in own}
    higher = dict.fromkeys(
        one.b
        for one in found.contrasts
        if one.verdict == "better"
        and gain(one.effect, found.metric) > mine[place(one)]
        and found.standing(one.b, found.places) == "within"
    )
    losses = {name: _loss(found, name) for name in higher}
    losing = [f"{name} ({loss})" for name, loss in losses.items() if loss]
    changes, least = found.complexity, found.mean_gain(chosen)
    complex_, lower = [], []
    for name, loss in losses.items():
        if not loss and found.mean_gain(name) < least:
            lower.append(name)
        elif not loss and changes.get(name, 0) > changes.get(chosen, 0):
            complex_.append(name)
    parts = []
    if losing:
        parts.append(f"Better at some places, but not recommended: {joined(losing)}")
    if lower:
        parts.append(f"Better at some places, but not on average: {joined(lower)}")
    if complex_:
        parts.append(f"Little better on average, but changes more values: {joined(complex_)}")
    return parts


def _loss(found: Case, name: str) -> str:
    """Where a configuration may lose, its worst case; empty where it may lose nowhere."""
    own = found.of(name, found.places)
    missing = [one for one in found.places if one not in set(map(place, own))]
    lost = [one for one in own if may_lose(one, found.metric)]
    if not lost:
        if not missing:
            return ""
        measured = any(found.metric.name in row.levels for row in found.rows(name, missing[:1]))
        whose = f"{found.baseline} was " if measured else ""
        return f"{whose}not measured at {where(*missing[0])}"
    known = [one for one in lost if one.effect.estimate is not None] or lost
    worst = min(known, key=lambda one: gain(one.effect, found.metric))
    text = _placed(worst, found.metric)
    return f"{text}, inconclusive" if worst.verdict == "inconclusive" else text


def _changed(found: Case, one: Contrast, metric: Metric) -> str:
    """A change in a metric, with its place where there are several."""
    text = change(one.effect, metric)
    return f"{text} at {_at(one)}" if len(found.places) > 1 else text


def _placed(one: Contrast, metric: Metric) -> str:
    return f"{amount(one.effect, metric)} at {_at(one)}"


def _at(one: Contrast) -> str:
    return where(one.path, one.replicas)
