"""Words for what the statistics support, and no more than that (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.statistics import Effect

Verdict = Literal["better", "worse", "no difference established", "not established"]

ALPHA = 0.05


@dataclass(frozen=True)
class Contrast:
    """Configuration `b` against `a` at one replica count and path, as judged in its family.

    `p_holm` is adjusted over the family; the interval in `effect` is not.
    """

    path: str
    replicas: int
    a: str
    b: str
    effect: Effect
    p_holm: float | None
    verdict: Verdict


@dataclass(frozen=True)
class PathRatio:
    """Overlay over host network of one configuration at one replica count (an estimate)."""

    replicas: int
    configuration: str
    effect: Effect


def judge(
    effect: Effect,
    p: float | None,
    *,
    alpha: float = ALPHA,
    neutral: float = 1.0,
    higher: bool = True,
) -> Verdict:
    """The verdict on B against A, given the p value that counts.

    `neutral` is the estimate of no effect (1 for a ratio, 0 for a difference) and `higher` says
    whether more is better. Dependent runs and missing intervals are "not established", whatever
    the p value.
    """
    if p is None or effect.estimate is None or effect.dependence.strong:
        return "not established"
    if p >= alpha:
        return "no difference established"
    return "better" if (effect.estimate > neutral) == higher else "worse"


def reason(effect: Effect) -> str:
    """Why an effect is not established, in a few words; empty where nothing speaks against it."""
    if effect.problem:
        return effect.problem
    if effect.dependence.strong:
        return f"lag-1 {effect.dependence.lag1:.2f}"
    return ""


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
    elif any(one.verdict == "no difference established" for one in contrasts):
        found = [one.effect.mde for one in contrasts if one.effect.mde is not None]
        if not found or min(found) > 1:
            return f"{where} nothing is established: so few runs would not show a doubling."
        sizes = " to ".join(dict.fromkeys((percent(min(found)), percent(max(found)))))
        clauses.append(
            f"{where} no configuration is shown to differ from the baseline; a difference of "
            f"{sizes} would have been found in 80 % of such experiments"
        )
    else:
        known = [one for one in contrasts if one.effect.estimate is not None]
        if not known:
            return f"{where} nothing can be said: {_reasons(contrasts)}."
        top = max(known, key=lambda one: one.effect.estimate or 0)
        return (
            f"{where} nothing is established: {top.b} measured {measured(top.effect)}, but "
            f"{_reasons(contrasts)}."
        )
    if worse:
        lower = [f"{one.b} ({interval(one.effect)})" for one in worse]
        clauses.append(f"{joined(lower)} {'carries' if len(lower) == 1 else 'carry'} less than it")
    unsettled = [one for one in contrasts if one.verdict == "not established"]
    if unsettled:
        names = joined([one.b for one in unsettled])
        clauses.append(f"{names} not established ({_reasons(unsettled)})")
    return "; ".join(clauses) + "."


def _standing(best: str, pairwise: Sequence[Contrast]) -> str:
    """How the best stands against the others that were steered."""
    rivals = {one.a if one.b == best else one.b: one for one in pairwise if best in (one.a, one.b)}
    alike = [name for name, one in rivals.items() if one.verdict == "no difference established"]
    unclear = [name for name, one in rivals.items() if one.verdict == "not established"]
    if alike:
        words = f"it is not distinguishable from {joined(alike)}"
    elif unclear:
        words = "it is distinguishable from the others"
    else:
        return "it is distinguishable from every other configuration"
    return (
        f"{words}, and how it stands to {joined(unclear)} is not established" if unclear else words
    )


def _path(one: PathRatio) -> str:
    doubt = reason(one.effect) and f" (not established: {reason(one.effect)})"
    return (
        f"At {pairs(one.replicas)} under {one.configuration} the overlay carries "
        f"{interval(one.effect)} of the host network{doubt}."
    )


def _reasons(contrasts: Sequence[Contrast]) -> str:
    """Why these are not established: dependence with its largest figure, other reasons once."""
    strong = [one.effect.dependence.lag1 or 0 for one in contrasts if one.effect.dependence.strong]
    others = dict.fromkeys(one.effect.problem for one in contrasts if one.effect.problem)
    dependent = [f"the runs are not independent (lag-1 {max(strong):.2f})"] if strong else []
    return joined([*dependent, *others])


def measured(effect: Effect) -> str:
    """1.24x the baseline [1.18, 1.30]."""
    if effect.low is None or effect.high is None:
        return f"{times(effect.estimate)} the baseline"
    return f"{times(effect.estimate)} the baseline [{effect.low:.2f}, {effect.high:.2f}]"


def interval(effect: Effect) -> str:
    """1.24x [1.18, 1.30]."""
    if effect.low is None or effect.high is None:
        return times(effect.estimate)
    return f"{times(effect.estimate)} [{effect.low:.2f}, {effect.high:.2f}]"


def times(value: float | None) -> str:
    """A ratio as sentences and tables write it."""
    return "?" if value is None else f"{value:.2f}x"


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
