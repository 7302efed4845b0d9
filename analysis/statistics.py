"""Statistics of runs: effects with intervals, tests and power (pure, numpy and scipy).

Everything here works on runs, never on pairs. A ratio is that of geometric means, computed on
logarithms, so it does not depend on the unit or on which side is divided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pandas as pd
import scipy  # loads stats and optimize, which take long, where they are first used
from numpy.typing import NDArray
from scipy import special

from analysis.metrics import Scale

if TYPE_CHECKING:
    from pandas.api.typing import SeriesGroupBy

Floats = NDArray[np.float64]
Method = Literal["paired", "unpaired", "relative"]
Amount = TypeVar("Amount", float, Floats)

# The problem of an effect that is the same in every run: neither side has a spread, or no paired difference.
NO_SPREAD = "the runs have no spread"
POWER = 0.8
ALPHA = 0.05
# Weight of a pooled variance in a moderated one, in runs or windows.
MODERATION = 4
_RESAMPLES = 1999
_NODES = 200
_LEAST_SPREAD = 1e-9
_LARGEST = 700.0
_MOST_FREEDOM = 1e6


@dataclass(frozen=True)
class Trend:
    """Trend of a configuration's runs over its run order: `change` from first to last run, 0.21 is +21 %."""

    change: float | None
    p: float | None


@dataclass(frozen=True)
class Effect:
    """B against A: `estimate` with its interval, a ratio or a difference as `scale` states.

    `p` is two-sided and not adjusted. Interval, test and power rest on `error` (of the logarithm
    of a ratio) and `freedom`. `mde` is the smallest effect that another such experiment finds in
    80 % of cases (see `with_power`): relative for a ratio (0.08 is x1.08 or /1.08), otherwise in
    the unit of the values. `mean_a` is A's mean, for a difference. `median` is that of the paired
    effects (of all runs where unpaired), `check` the bootstrap's interval, `lag1` the
    autocorrelation of the values behind the interval. None is "not known"; `problem` is the
    reason.
    """

    estimate: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    error: float | None = None
    freedom: float | None = None
    mde: float | None = None
    median: float | None = None
    check: tuple[float, float] | None = None
    n_a: int = 0
    n_b: int = 0
    method: Method = "paired"
    lag1: float | None = None
    problem: str | None = None
    scale: Scale = "ratio"
    mean_a: float | None = None

    @property
    def null(self) -> float:
        """The estimate of two equal sides."""
        return 1.0 if self.scale == "ratio" else 0.0

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """`low` and `high`; an effect that is the same in every run needs none: its estimate, twice."""
        if self.problem == NO_SPREAD:
            return self.estimate, self.estimate
        return self.low, self.high

    @property
    def misses_a_doubling(self) -> bool:
        """Whether the experiment is too coarse to support "no significant difference"."""
        if self.mde is None:
            return True
        return self.mde > (1.0 if self.scale == "ratio" else abs(self.mean_a or 0.0))


def effect(
    scale: Scale,
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    *,
    paired: bool,
    confidence: float = 0.95,
    check: bool = True,
    allowance: float = 0.0,
    worth: float = 1.0,
) -> Effect:
    """B against A: ratio of geometric means, or difference of means in the unit of the values.

    `a` and `b` are run values in run order; with `paired` the i-th of each share a block, and the
    interval is Student's t on the paired differences, otherwise Welch's; for a ratio all on
    logarithms. `check` adds the bootstrap's interval. `allowance` is an assumed standard deviation
    between the two sides as a whole: it widens the interval and weakens the test, as does a `worth`
    below 1, the number of independent runs that a run is worth. Where there is no estimate or no interval,
    `problem` is the reason.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    found = Effect(
        None,
        n_a=len(first),
        n_b=len(second),
        method="paired" if paired else "unpaired",
        scale=scale,
    )
    if not len(first) or not len(second):
        return replace(found, problem="no runs to compare")
    if scale == "difference":
        return _estimated(found, first, second, confidence, check, allowance, worth)
    if not (np.all(first > 0) and np.all(second > 0)):
        return replace(found, problem="a run has 0")
    logs = (np.log(first), np.log(second))
    return exponential(_estimated(found, *logs, confidence, check, allowance, worth))


ratio = partial(effect, "ratio")
difference = partial(effect, "difference")


def _estimated(
    found: Effect,
    a: Floats,
    b: Floats,
    confidence: float,
    check: bool,
    allowance: float,
    worth: float,
) -> Effect:
    """The effect with the difference of the means and all that follows from the spread."""
    paired = found.method == "paired"
    estimate = float(np.mean(b) - np.mean(a))
    found = replace(found, estimate=estimate, mean_a=float(np.mean(a)))
    if len(a) < 2 or len(b) < 2:
        what = "one shared block" if paired else "one run"
        return replace(found, problem=f"{what} has no spread")
    samples = (b - a,) if paired else (b, a)
    spread = max(float(np.ptp(sample)) for sample in samples)
    if spread <= _LEAST_SPREAD * max(1.0, float(np.max(np.abs([*a, *b])))):
        return replace(found, problem=NO_SPREAD)
    error, freedom = _error(samples, allowance, worth)
    if not (error > 0 and math.isfinite(error) and math.isfinite(freedom)):
        return replace(found, problem="the spread is out of range")
    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    known = [value for value in map(lag1, samples) if value is not None]
    return replace(
        found,
        low=estimate - half,
        high=estimate + half,
        p=float(2 * special.stdtr(freedom, -abs(estimate / error))),
        error=error,
        freedom=freedom,
        median=float(np.median(b - a) if paired else np.median(b) - np.median(a)),
        check=_bootstrap(a, b, paired, confidence) if check else None,
        lag1=max(known, default=None),
    )


def exponential(effect: Effect) -> Effect:
    """A difference of logarithms as a ratio; error and freedom stay those of the logarithm."""
    return replace(
        effect,
        scale="ratio",
        mean_a=None,
        estimate=_known(effect.estimate),
        low=_known(effect.low),
        high=_known(effect.high),
        median=_known(effect.median),
        check=effect.check and (exp(effect.check[0]), exp(effect.check[1])),
    )


def with_power(effect: Effect, *, family: int, kept: float = 1.0, alpha: float = ALPHA) -> Effect:
    """An effect with the smallest one that its test would find: `mde`.

    The test is the first step of Holm's procedure in a family of so many comparisons: if one
    configuration alone differs, that step decides. `kept` is the share of sound experiments whose
    verdict no other check withholds.
    """
    if effect.error is None or effect.freedom is None:
        return effect
    shift = detectable(
        max(1, math.floor(effect.freedom)), alpha=alpha / max(1, family), power=POWER / kept
    )
    size = effect.error * shift
    return replace(effect, mde=exp(size) - 1 if effect.scale == "ratio" else size)


def _error(samples: Sequence[Floats], allowance: float, worth: float) -> tuple[float, float]:
    """Standard error of the difference of means, and its degrees of freedom (Satterthwaite)."""
    sizes = [worth * len(sample) for sample in samples]
    variances = [
        float(np.var(sample, ddof=1)) / size for sample, size in zip(samples, sizes, strict=True)
    ]
    measured = math.fsum(variances)
    total = measured + allowance**2
    if not total > 0 or math.isinf(total):
        return math.nan, math.nan
    # scaled, so that the squares of tiny or huge variances stay finite
    weights = [
        (variance / total) ** 2 / max(1.0, size - 1)
        for variance, size in zip(variances, sizes, strict=True)
    ]
    return math.sqrt(total), min(1 / math.fsum(weights), _MOST_FREEDOM)


def spread(grouped: SeriesGroupBy[Any, Any], confidence: float = 0.95) -> pd.DataFrame:
    """`mean` and `half` (half-width of the t interval) of each group of runs; NaN is left out.

    `half` is NaN for a group of one run, which has no spread.
    """
    table = grouped.agg(["mean", "sem", "count"])
    quantiles = scipy.stats.t.ppf((1 + confidence) / 2, np.maximum(table["count"] - 1, 1))
    return pd.DataFrame({"mean": table["mean"], "half": table["sem"] * quantiles})


@lru_cache(maxsize=4096)
def detectable(freedom: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """The effect, in observed standard errors, that another experiment finds with this power.

    Solves the power of the two-sided t test (noncentral t, scipy.stats.nct). The observed
    standard error is itself uncertain, so the power is the mean over its chi distribution: with
    6 blocks, taking it at face value would promise 80 % and find 68 %.
    """
    limit = float(special.stdtrit(freedom, 1 - alpha / 2))
    errors = scipy.stats.chi.ppf((np.arange(_NODES) + 0.5) / _NODES, freedom) / math.sqrt(freedom)

    def short(shift: float) -> float:
        return float(np.mean(scipy.stats.nct.sf(limit, freedom, shift * errors))) - power

    return float(scipy.optimize.brentq(short, 0.0, 10.0 * limit + 10.0, xtol=1e-4))


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


def moderated(own: Amount, pooled: float, weight: Amount) -> Amount:
    """A variance of few values, which weighs `weight`, moderated by that of all of its table.

    After Smyth (2004), "Linear models and empirical Bayes methods for assessing differential expression
    in microarray experiments".
    """
    return (weight * own + MODERATION * pooled) / (weight + MODERATION)


def scaled(values: Floats, scale: Scale) -> tuple[Floats, bool]:
    """The values on the scale on which their mean is taken, and whether these are logarithms.

    They are logarithms for a ratio, unless a value is 0.
    """
    logs = scale == "ratio" and bool(np.all(values > 0))
    return (np.log(values) if logs else values), logs


def lag1(values: Floats) -> float | None:
    """Lag-1 autocorrelation of a series in run order: a description, not a test."""
    if len(values) < 3 or float(np.ptp(values)) <= _LEAST_SPREAD:
        return None
    centred = values - np.mean(values)
    return float(np.sum(centred[1:] * centred[:-1]) / np.sum(centred * centred))


def drift(values: Floats) -> Trend:
    """Trend of positive run values over their order: Theil-Sen slope of the logs, Kendall's p.

    Kendall's tau is the rank test that belongs to Theil-Sen's slope and, unlike Spearman's, has
    an exact p at six runs.
    """
    if len(values) < 3 or not np.all(values > 0) or float(np.ptp(np.log(values))) <= _LEAST_SPREAD:
        return Trend(None, None)
    order = np.arange(len(values))
    slope = scipy.stats.theilslopes(np.log(values), order).slope
    return Trend(
        change=math.expm1(float(slope) * (len(values) - 1)),
        p=float(scipy.stats.kendalltau(order, values).pvalue),
    )


def _bootstrap(a: Floats, b: Floats, paired: bool, confidence: float) -> tuple[float, float]:
    """Percentile block bootstrap of the difference: sweep blocks, else stretches of n^(1/3) runs.

    Percentile intervals are narrow for few blocks: a check of the t interval, not a substitute.
    """
    data = (b - a,) if paired else (_stretches(b), _stretches(a))

    def statistic(*arms: Floats, axis: int = -1) -> Floats:
        means = [np.mean(arm, axis=axis) for arm in arms]
        return np.asarray(means[0] if paired else means[0] - means[1])

    interval = scipy.stats.bootstrap(
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


def exp(value: float) -> float:
    """Converts logarithms back; the interval of two very unequal runs may overflow a float."""
    return math.exp(min(value, _LARGEST))


def _known(value: float | None) -> float | None:
    return None if value is None else exp(value)
