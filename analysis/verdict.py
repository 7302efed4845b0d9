"""Verdicts on comparisons, and the sentences that state them (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from analysis.metrics import BITRATE, Metric
from analysis.pairing import StateKey
from analysis.statistics import Effect

Verdict = Literal["better", "worse", "no significant difference", "inconclusive"]

ALPHA = 0.05
# Numbers from here on are written with an exponent.
MOST_DIGITS = 1e6


@dataclass(frozen=True)
class Contrast:
    """Configuration `b` against `a` at one replica count and path, as judged in its family.

    `p_holm` is adjusted over the family; the interval in `effect` is not. `doubt` is why the
    comparison is inconclusive, where it is.
    """

    path: str
    replicas: int
    a: str
    b: str
    effect: Effect
    p_holm: float | None
    verdict: Verdict
    doubt: str = ""


@dataclass(frozen=True)
class PathRatio:
    """Overlay against host network of one configuration at one replica count (an estimate)."""

    replicas: int
    configuration: str
    effect: Effect
    doubt: str = ""


def contrast(
    a: StateKey,
    b: StateKey,
    effect: Effect,
    p: float | None,
    metric: Metric = BITRATE,
    *,
    alpha: float = ALPHA,
    doubt: str = "",
) -> Contrast:
    """The comparison of two states with its verdict; `p` is the p value that counts."""
    judged, why = judge(effect, p, metric, alpha=alpha, doubt=doubt)
    return Contrast(b[0], b[1], a[2], b[2], effect, p, judged, why)


def judge(
    effect: Effect,
    p: float | None,
    metric: Metric = BITRATE,
    *,
    alpha: float = ALPHA,
    doubt: str = "",
) -> tuple[Verdict, str]:
    """The verdict on B against A, and why it is inconclusive where it is.

    Inconclusive, whatever the p value: a doubt about the runs, no interval, and an experiment that
    would have missed even a doubling. "No significant difference" is therefore always
    the answer of an experiment that would have found a difference of a known size.
    """
    if p is None or effect.estimate is None:
        return "inconclusive", doubt or effect.problem or "no interval"
    if doubt:
        return "inconclusive", doubt
    if p < alpha:
        higher = effect.estimate > effect.null
        return ("better" if higher == (metric.better == "higher") else "worse"), ""
    if effect.misses_a_doubling:
        return "inconclusive", "the runs are too few or too unequal to find a doubling"
    return "no significant difference", ""


def gain(effect: Effect, metric: Metric) -> float:
    """How much better B is than A (a logarithm for ratios); 0 is equal, unknown sorts last."""
    if effect.estimate is None:
        return -math.inf
    size = math.log(effect.estimate) if effect.scale == "ratio" else effect.estimate
    return metric.sign * size


def sentences(
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    paths: Sequence[PathRatio] = (),
    metric: Metric = BITRATE,
) -> list[str]:
    """The report's sentences: overlay first, the largest replica count first.

    Of `paths`, the last one is reported.
    """
    places = sorted({(one.path, one.replicas) for one in contrasts}, key=_rank)
    return [
        _at_place(
            place,
            [one for one in contrasts if (one.path, one.replicas) == place],
            [one for one in pairwise if (one.path, one.replicas) == place],
            metric,
        )
        for place in places
    ] + [_path(one, metric) for one in paths[-1:]]


def _rank(place: tuple[str, int]) -> tuple[bool, int]:
    return place[0] != "overlay", -place[1]


def _at_place(
    place: tuple[str, int],
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    metric: Metric,
) -> str:
    at = f"At {where(*place)}"
    by = {
        verdict: [one for one in contrasts if one.verdict == verdict]
        for verdict in get_args(Verdict)
    }
    if by["better"]:
        best = max(by["better"], key=lambda one: gain(one.effect, metric))
        clauses = [f"{at}, {best.b} is better than {best.a}: {change(best.effect, metric)}"]
        if len(contrasts) > 1:
            clauses.append(_rivals(best.b, pairwise))
    elif by["worse"]:
        clauses = [
            f"{at}, no configuration is significantly better than {contrasts[0].a} in {metric.title}"
        ]
    elif by["no significant difference"]:
        clauses = [
            f"{at}, no configuration differs significantly from {contrasts[0].a} in {metric.title}",
            _power(by["no significant difference"], metric),
        ]
    else:
        top = max(contrasts, key=lambda one: gain(one.effect, metric))
        known = top.effect.estimate is not None
        measured = f"{top.b} measured {change(top.effect, metric)}, but " if known else ""
        return f"{at}, the runs are inconclusive: {measured}{_doubts(contrasts)}."
    if by["worse"]:
        names = [f"{one.b} ({amount(one.effect, metric)})" for one in by["worse"]]
        clauses.append(f"worse: {joined(names)}")
    if by["inconclusive"]:
        names = [one.b for one in by["inconclusive"]]
        clauses.append(f"inconclusive: {joined(names)} ({_doubts(by['inconclusive'])})")
    return "; ".join(clauses) + "."


def _power(contrasts: Sequence[Contrast], metric: Metric) -> str:
    """The differences that the test would have found: Holm's first step over the whole family."""
    found = [one.effect for one in contrasts if one.effect.mde is not None]
    least, most = (pick(found, key=lambda one: one.mde or 0) for pick in (min, max))
    sizes = " to ".join(dict.fromkeys((detectable(least, metric), detectable(most, metric))))
    return (
        f"a difference of {sizes} in one of them alone would be found in 80 % of such "
        "experiments (t test with Holm's adjustment)"
    )


def _rivals(best: str, pairwise: Sequence[Contrast]) -> str:
    """The comparison of the best with the other configurations."""
    rivals = {one.a if one.b == best else one.b: one for one in pairwise if best in (one.a, one.b)}
    if not rivals:
        return "the other configurations are not compared with it"
    alike = [name for name, one in rivals.items() if one.verdict == "no significant difference"]
    unclear = [name for name, one in rivals.items() if one.verdict == "inconclusive"]
    words = []
    if alike:
        words.append(f"no significant difference from {joined(alike)}")
    if unclear:
        words.append(f"inconclusive against {joined(unclear)}")
    return " and ".join(words) or "it differs significantly from every other configuration"


def _path(one: PathRatio, metric: Metric) -> str:
    why = one.effect.problem or one.doubt
    doubt = f" (inconclusive: {why})" if why else ""
    return (
        f"At {pairs(one.replicas)} with {one.configuration}, the overlay against the host network: "
        f"{change(one.effect, metric)}{doubt}."
    )


def _doubts(contrasts: Sequence[Contrast]) -> str:
    """Why these are inconclusive, each reason once."""
    return joined(list(dict.fromkeys(one.doubt for one in contrasts if one.doubt)))


def change(effect: Effect, metric: Metric) -> str:
    """bitrate 1.24x [1.18, 1.30]; retransmits -120 [-140, -100] per Gbit."""
    return f"{metric.title} {amount(effect, metric)}"


def amount(effect: Effect, metric: Metric) -> str:
    """1.24x [1.18, 1.30]; -120 [-140, -100] per Gbit."""
    places = decimals(effect, metric)
    text = f"{estimate(effect, places)} {bounds(effect, places)}".rstrip()
    return text if effect.scale == "ratio" else f"{text} {metric.unit}"


def decimals(effect: Effect, metric: Metric) -> int:
    """Those of an effect: of a difference, the decimals of its metric."""
    return 2 if effect.scale == "ratio" else metric.digits


def estimate(effect: Effect, places: int = 2) -> str:
    """1.24x, or -120.00 for a difference."""
    if effect.estimate is None:
        return "?"
    return number(effect, effect.estimate, places) + ("x" if effect.scale == "ratio" else "")


def bounds(effect: Effect, places: int = 2) -> str:
    """[1.18, 1.30], or nothing where there is no interval."""
    if effect.low is None or effect.high is None:
        return ""
    return f"[{number(effect, effect.low, places)}, {number(effect, effect.high, places)}]"


def number(effect: Effect, value: float, places: int = 2) -> str:
    """A number on the scale of an effect; differences have a sign."""
    sign = "+" if effect.scale == "difference" and value > 0 else ""
    return f"{sign}{digits(value, places)}"


def detectable(effect: Effect, metric: Metric) -> str:
    """The smallest difference that would be found: 8.0 %, or 12.00 per Gbit."""
    if effect.scale == "ratio" or effect.mde is None:
        return percent(effect.mde)
    return f"{digits(effect.mde)} {metric.unit}"


def digits(value: float, places: int = 2) -> str:
    """A number with its decimals; with an exponent where it would fill the line."""
    return f"{value:z.{places}f}" if abs(value) < MOST_DIGITS else f"{value:.2e}"


def percent(fraction: float | None) -> str:
    """A fraction in percent, with a decimal below 10 %."""
    if fraction is None:
        return "–"
    if fraction > 10:
        return ">1000 %"
    return f"{fraction * 100:.0f} %" if fraction >= 0.1 else f"{fraction * 100:.1f} %"


def p_value(p: float | None) -> str:
    """A p value as tables write it."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def pairs(count: int) -> str:
    """1 pair, 16 pairs."""
    return f"{count} pair" if count == 1 else f"{count} pairs"


def where(path: str, replicas: int) -> str:
    """16 pairs over the host network."""
    suffix = {"host": " over the host network", "direct": " without a tunnel"}
    return pairs(replicas) + suffix.get(path, "")


def joined(names: Sequence[str]) -> str:
    """a, b and c."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
