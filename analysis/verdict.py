"""What the statistics support, in words, and no more than that (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.pairing import StateKey
from analysis.statistics import Effect

Verdict = Literal["better", "worse", "no significant difference", "inconclusive"]

ALPHA = 0.05
# An experiment that would miss a doubling cannot support "no significant difference".
COARSE = 1.0
# Numbers from here on are written with an exponent.
MOST_DIGITS = 1e6


@dataclass(frozen=True)
class Quantity:
    """What is compared, as a ratio: a column of the run table, in words, and which way is up."""

    column: str
    unit: str
    higher: bool = True


BITRATE = Quantity("bitrate_mbps", "Mbit/s a pair")


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
    """Overlay over host network of one configuration at one replica count (an estimate)."""

    replicas: int
    configuration: str
    effect: Effect
    doubt: str = ""


def contrast(
    a: StateKey,
    b: StateKey,
    effect: Effect,
    p: float | None,
    quantity: Quantity = BITRATE,
    *,
    alpha: float = ALPHA,
    doubt: str = "",
) -> Contrast:
    """The comparison of two states with its verdict; `p` is the p value that counts."""
    judged, why = judge(effect, p, quantity, alpha=alpha, doubt=doubt)
    return Contrast(b[0], b[1], a[2], b[2], effect, p, judged, why)


def judge(
    effect: Effect,
    p: float | None,
    quantity: Quantity = BITRATE,
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
        return "inconclusive", effect.problem or doubt or "no interval"
    if doubt:
        return "inconclusive", doubt
    if p < alpha:
        up = (effect.estimate > 1) == quantity.higher
        return ("better" if up else "worse"), ""
    if effect.mde is None or effect.mde > COARSE:
        return "inconclusive", "so few or so unequal runs would miss a doubling"
    return "no significant difference", ""


def sentences(
    contrasts: Sequence[Contrast], pairwise: Sequence[Contrast], paths: Sequence[PathRatio] = ()
) -> list[str]:
    """What the report says in words: overlay first, the largest replica count first.

    Of `paths` the last one speaks for all.
    """
    groups = sorted(
        {(one.path, one.replicas) for one in contrasts}, key=lambda g: (g[0] != "overlay", -g[1])
    )
    return [
        _group(
            path,
            replicas,
            [one for one in contrasts if (one.path, one.replicas) == (path, replicas)],
            [one for one in pairwise if (one.path, one.replicas) == (path, replicas)],
        )
        for path, replicas in groups
    ] + [_path(one) for one in paths[-1:]]


def _group(
    path: str, replicas: int, contrasts: Sequence[Contrast], pairwise: Sequence[Contrast]
) -> str:
    where = f"At {pairs(replicas)}" + (" over the host network" if path == "host" else "")
    better = [one for one in contrasts if one.verdict == "better"]
    worse = [one for one in contrasts if one.verdict == "worse"]
    clauses = []
    if better:
        best = max(better, key=lambda one: one.effect.estimate or 0)
        clauses.append(f"{where} {best.b} carries {measured(best.effect)}")
        if len(contrasts) > 1:
            clauses.append(_standing(best.b, pairwise))
    elif worse:
        clauses.append(f"{where} no configuration is shown to carry more than the baseline")
    elif any(one.verdict == "no significant difference" for one in contrasts):
        clauses.append(
            f"{where} no configuration differs significantly from the baseline; {_power(contrasts)}"
        )
    else:
        known = [one for one in contrasts if one.effect.estimate is not None]
        if not known:
            return f"{where} the runs are inconclusive: {_doubts(contrasts)}."
        top = max(known, key=lambda one: one.effect.estimate or 0)
        return (
            f"{where} the runs are inconclusive: {top.b} measured {measured(top.effect)}, but "
            f"{_doubts(contrasts)}."
        )
    if worse:
        lower = [f"{one.b} ({interval(one.effect)})" for one in worse]
        clauses.append(f"{joined(lower)} {'carries' if len(lower) == 1 else 'carry'} less than it")
    unsettled = [one for one in contrasts if one.verdict == "inconclusive"]
    if unsettled:
        names = joined([one.b for one in unsettled])
        clauses.append(f"inconclusive: {names} ({_doubts(unsettled)})")
    return "; ".join(clauses) + "."


def _power(contrasts: Sequence[Contrast]) -> str:
    """What the test that decided would have found: Holm's first step over the whole family."""
    found = [
        one.effect.mde
        for one in contrasts
        if one.verdict == "no significant difference" and one.effect.mde is not None
    ]
    sizes = " to ".join(dict.fromkeys((percent(min(found)), percent(max(found)))))
    return (
        f"a difference of {sizes} in one of them alone would have been found in 80 % of such "
        "experiments (t test with Holm's adjustment)"
    )


def _standing(best: str, pairwise: Sequence[Contrast]) -> str:
    """How the best stands against the others that were steered."""
    rivals = {one.a if one.b == best else one.b: one for one in pairwise if best in (one.a, one.b)}
    if not rivals:
        return "the others are not compared with it"
    alike = [name for name, one in rivals.items() if one.verdict == "no significant difference"]
    unclear = [name for name, one in rivals.items() if one.verdict == "inconclusive"]
    words = []
    if alike:
        words.append(f"no significant difference from {joined(alike)}")
    if unclear:
        words.append(f"inconclusive against {joined(unclear)}")
    return " and ".join(words) or "it differs significantly from every other configuration"


def _path(one: PathRatio) -> str:
    why = one.effect.problem or one.doubt
    doubt = f" (inconclusive: {why})" if why else ""
    return (
        f"At {pairs(one.replicas)} under {one.configuration} the overlay carries "
        f"{interval(one.effect)} of the host network{doubt}."
    )


def _doubts(contrasts: Sequence[Contrast]) -> str:
    """Why these are inconclusive, each reason once."""
    return joined(list(dict.fromkeys(one.doubt for one in contrasts if one.doubt)))


def measured(effect: Effect) -> str:
    """1.24x the baseline [1.18, 1.30]."""
    if effect.low is None or effect.high is None:
        return f"{times(effect.estimate)} the baseline"
    return f"{times(effect.estimate)} the baseline [{digits(effect.low)}, {digits(effect.high)}]"


def interval(effect: Effect) -> str:
    """1.24x [1.18, 1.30]."""
    if effect.low is None or effect.high is None:
        return times(effect.estimate)
    return f"{times(effect.estimate)} [{digits(effect.low)}, {digits(effect.high)}]"


def times(value: float | None) -> str:
    """A ratio as sentences and tables write it."""
    return "?" if value is None else f"{digits(value)}x"


def digits(value: float, places: int = 2) -> str:
    """A number with its decimals; with an exponent where it would fill the line."""
    return f"{value:.{places}f}" if abs(value) < MOST_DIGITS else f"{value:.2e}"


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


def joined(names: Sequence[str]) -> str:
    """a, b and c."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
