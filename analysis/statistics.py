"""What the numbers support: ratios with intervals, tests, power, dependence (pure, scipy).

Everything here works on runs, never on pairs, and on logarithms of positive run values: a
ratio is that of geometric means, so it does not depend on the unit or on which side is divided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

if TYPE_CHECKING:
    from pandas.api.typing import SeriesGroupBy

Floats = NDArray[np.float64]
Method = Literal["paired", "unpaired"]

POWER = 0.8
LAG1_LIMIT = 0.3
LAG1_ALPHA = 0.01
_RESAMPLES = 1999
_NODES = 200
_NO_SPREAD = 1e-9
_LARGEST = 700.0


@dataclass(frozen=True)
class Dependence:
    """Lag-1 autocorrelation of a series in run order, and whether it breaks an interval.

    `p` is known where `lag1` is above the limit: below it nothing hangs on it.
    """

    lag1: float | None
    p: float | None

    @property
    def strong(self) -> bool:
        """Above the limit, and more than chance makes of independent runs.

        With 6 independent runs the estimate exceeds 0.3 in 6 % of cases and with 20 in 5 %, so
        the limit alone would disown sound results all day. The permutation test at 1 % can
        speak from 6 runs on (two of 5! orders are already 1.7 %).
        """
        return (
            self.lag1 is not None
            and self.p is not None
            and self.lag1 > LAG1_LIMIT
            and self.p < LAG1_ALPHA
        )


@dataclass(frozen=True)
class Drift:
    """Trend of a state over its run order: `change` from first to last run, 0.21 is +21 %."""

    change: float | None
    p: float | None


@dataclass(frozen=True)
class Effect:
    """B against A: `estimate` with its interval; a ratio, or a difference in points.

    `p` is two-sided; `mde` the smallest effect (relative, 0.08 is x1.08 or /1.08; or points)
    that another sweep would find in 80 % of cases at two-sided 5 %;
    `median` the median of the paired ratios (of all runs where unpaired); `check` the
    bootstrap's interval. None is "cannot be said", and `problem` says why.
    """

    estimate: float | None
    low: float | None
    high: float | None
    p: float | None
    mde: float | None
    median: float | None
    check: tuple[float, float] | None
    n_a: int
    n_b: int
    method: Method
    dependence: Dependence
    problem: str | None = None


def ratio(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    *,
    paired: bool,
    confidence: float = 0.95,
    check: bool = True,
) -> Effect:
    """Ratio of B's geometric mean to A's, A's own spread included.

    `a` and `b` are run values in run order; with `paired` the i-th of each share a block.
    Paired: t interval on the log ratios (scipy.stats.ttest_1samp). Unpaired: Welch's on the
    logs (scipy.stats.ttest_ind). A value of zero or less has no logarithm: `problem` says so.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not (np.all(first > 0) and np.all(second > 0)):
        return _nothing(first, second, paired, None, "a run carried nothing: no ratio")
    effect = difference(
        np.log(first), np.log(second), paired=paired, confidence=confidence, check=check
    )
    return replace(
        effect,
        estimate=_known(effect.estimate),
        low=_known(effect.low),
        high=_known(effect.high),
        mde=None if effect.mde is None else _exp(effect.mde) - 1,
        median=_known(effect.median),
        check=effect.check and (_exp(effect.check[0]), _exp(effect.check[1])),
    )


def difference(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    *,
    paired: bool,
    confidence: float = 0.95,
    check: bool = True,
) -> Effect:
    """Difference of means B - A in the unit of the values; otherwise as `ratio`."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not len(first) or not len(second):
        return _nothing(first, second, paired, None, "no runs to compare")
    estimate = float(np.mean(second) - np.mean(first))
    if len(first) < 2 or len(second) < 2:
        problem = "one shared block has no spread" if paired else "one run has no spread"
        return _nothing(first, second, paired, estimate, problem)
    if paired:
        deltas = second - first
        spread = float(np.ptp(deltas))
        median = float(np.median(deltas))
        dependence = lag1(deltas)
    else:
        spread = min(float(np.ptp(first)), float(np.ptp(second)))
        median = float(np.median(second) - np.median(first))
        dependence = max(lag1(first), lag1(second), key=_alarm)
    if spread <= _NO_SPREAD * max(1.0, float(np.max(np.abs([*first, *second])))):
        return _nothing(first, second, paired, estimate, "the runs have no spread")
    if paired:
        one = stats.ttest_1samp(deltas, 0.0)
        interval = one.confidence_interval(confidence)
        p, freedom, error = one.pvalue, one.df, stats.sem(deltas)
    else:
        two = stats.ttest_ind(second, first, equal_var=False)
        interval = two.confidence_interval(confidence)
        p, freedom = two.pvalue, two.df
        error = math.hypot(float(stats.sem(first)), float(stats.sem(second)))
    return Effect(
        estimate=estimate,
        low=float(interval.low),
        high=float(interval.high),
        p=float(p),
        mde=float(error) * detectable(max(1, math.floor(freedom)), series=1 if paired else 2),
        median=median,
        check=_bootstrap(first, second, paired, confidence) if check else None,
        n_a=len(first),
        n_b=len(second),
        method="paired" if paired else "unpaired",
        dependence=dependence,
    )


def spread(grouped: SeriesGroupBy[Any, Any], confidence: float = 0.95) -> pd.DataFrame:
    """`mean` and `half` (half-width of the t interval) of each group of runs; NaN is left out.

    `half` is NaN for a group of one run, which has no spread.
    """
    table = grouped.agg(["mean", "sem", "count"])
    quantiles = stats.t.ppf((1 + confidence) / 2, np.maximum(table["count"] - 1, 1))
    return pd.DataFrame({"mean": table["mean"], "half": table["sem"] * quantiles})


@lru_cache(maxsize=1024)
def detectable(
    freedom: int, power: float = POWER, alpha: float = 0.05, *, series: int = 1
) -> float:
    """The effect, in observed standard errors, that another sweep would find with this power.

    Solves the power of the two-sided t test (noncentral t, scipy.stats.nct). The observed
    standard error is itself uncertain, so the power is the mean over its chi distribution: with
    6 blocks, taking it at face value would promise 80 % and find 68 %. The dependence test on
    `series` series, which withholds one sound verdict in a hundred, is paid for too.
    """
    power /= (1 - LAG1_ALPHA) ** series
    limit = stats.t.ppf(1 - alpha / 2, freedom)
    errors = stats.chi.ppf((np.arange(_NODES) + 0.5) / _NODES, freedom) / math.sqrt(freedom)

    def short(shift: float) -> float:
        return float(np.mean(stats.nct.sf(limit, freedom, shift * errors))) - power

    return float(optimize.brentq(short, 0.0, 10.0 * float(limit) + 10.0, xtol=1e-6))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of a family of p values; None stays None and does not count.

    S. Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = highest
    return adjusted


def lag1(values: Floats) -> Dependence:
    """Lag-1 autocorrelation of a series in run order; above the limit, with a one-sided p value.

    The permutation test (scipy.stats.permutation_test) is against every order being equally
    likely, exact up to 6 runs, and so knows of the estimator's own bias of about -1/n.
    """
    if len(values) < 3 or float(np.ptp(values)) <= _NO_SPREAD:
        return Dependence(None, None)
    estimate = float(_lag1(values))
    if estimate <= LAG1_LIMIT:
        return Dependence(estimate, None)
    test = stats.permutation_test(
        (values,),
        _lag1,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_RESAMPLES,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    return Dependence(estimate, float(test.pvalue))


def drift(values: Floats) -> Drift:
    """Trend of positive run values over their order: Theil-Sen slope of the logs, Kendall's p.

    Kendall's tau is the rank test that belongs to Theil-Sen's slope and, unlike Spearman's, has
    an exact p at six runs.
    """
    if len(values) < 3 or not np.all(values > 0) or float(np.ptp(np.log(values))) <= _NO_SPREAD:
        return Drift(None, None)
    order = np.arange(len(values))
    slope = stats.theilslopes(np.log(values), order).slope
    return Drift(
        change=math.expm1(float(slope) * (len(values) - 1)),
        p=float(stats.kendalltau(order, values).pvalue),
    )


def _lag1(values: Floats, axis: int = -1) -> Floats:
    centred = np.moveaxis(values, axis, -1) - np.mean(values, axis=axis, keepdims=True)
    together = np.sum(centred[..., 1:] * centred[..., :-1], axis=-1)
    return np.asarray(together / np.sum(centred * centred, axis=-1), dtype=float)


def _alarm(dependence: Dependence) -> tuple[bool, float]:
    return dependence.strong, -math.inf if dependence.lag1 is None else dependence.lag1


def _bootstrap(a: Floats, b: Floats, paired: bool, confidence: float) -> tuple[float, float]:
    """Percentile block bootstrap of the difference: sweep blocks, else stretches of n^(1/3) runs.

    Percentile intervals are narrow for few blocks: a check of the t interval, not a substitute.
    """
    data = (b - a,) if paired else (_stretches(b), _stretches(a))

    def statistic(*arms: Floats, axis: int = -1) -> Floats:
        means = [np.mean(arm, axis=axis) for arm in arms]
        return np.asarray(means[0] if paired else means[0] - means[1])

    interval = stats.bootstrap(
        data,
        statistic,
        n_resamples=_RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _stretches(values: Floats) -> Floats:
    """Means of neighbouring runs, so that resampling keeps what neighbours share."""
    length = max(1, round(len(values) ** (1 / 3)))
    parts = np.array_split(values, max(2, len(values) // length))
    return np.array([float(np.mean(part)) for part in parts])


def _nothing(a: Floats, b: Floats, paired: bool, estimate: float | None, problem: str) -> Effect:
    return Effect(
        estimate=estimate,
        low=None,
        high=None,
        p=None,
        mde=None,
        median=None,
        check=None,
        n_a=len(a),
        n_b=len(b),
        method="paired" if paired else "unpaired",
        dependence=Dependence(None, None),
        problem=problem,
    )


def _exp(value: float) -> float:
    """Back from logs; two wild runs may know a ratio only to within more than a float holds."""
    return math.exp(min(value, _LARGEST))


def _known(value: float | None) -> float | None:
    return None if value is None else _exp(value)
