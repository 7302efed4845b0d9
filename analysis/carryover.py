"""Checks of switchback: effects that outlast a switch, and windows that were late (pure).

A window measures its configuration only if the previous one has no effect any more (carry-over),
and if it has settled (both halves of a window give the same ratio), in goodput and in latency.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import scipy  # loads its parts where they are first used

from analysis import statistics, verdict
from analysis.episodes import Episode, halves, latency_halves
from analysis.metrics import BITRATE, METRICS, Metric
from analysis.statistics import Floats

# A ratio within 1 ± this share counts as no effect.
LIMIT = 0.03
REMEDY = "give a longer --settle or --window, or use --method isolated"
# The cause of records that do not count because of a delay.
LATE = "window"
# What is checked, and both halves of a window. The median: p99 of single windows varies too much.
_CHECKED = {BITRATE.name: halves, "p50_us": latency_halves}
_NO_SPREAD = 1e-9
_RANK = 1e-10


@dataclass(frozen=True)
class Shift:
    """A ratio that is 1 without an effect, with its interval; `p_holm` is adjusted over the check."""

    path: str
    replicas: int
    configuration: str
    metric: str
    estimate: float
    low: float
    high: float
    p_holm: float

    @property
    def within(self) -> bool:
        """Whether the whole interval is within the limit."""
        return max(1 - self.low, self.high - 1) <= LIMIT

    @property
    def found(self) -> bool:
        """Whether there is an effect that may exceed the limit."""
        return self.p_holm < verdict.ALPHA and not self.within

    @property
    def words(self) -> str:
        """rps at 4 pairs, median latency: 1.050x [1.020, 1.080]; without the metric for goodput."""
        where = verdict.where(self.path, self.replicas)
        of = "" if self.metric == BITRATE.name else f", {METRICS[self.metric].title}"
        return (
            f"{self.configuration} at {where}{of}: {self.estimate:.3f}x "
            f"[{self.low:.3f}, {self.high:.3f}]"
        )


@dataclass(frozen=True)
class Movement(Shift):
    """Ratio to the baseline in the second half of the windows, divided by that in the first half."""

    first: float
    second: float


@dataclass(frozen=True)
class SwitchbackChecks:
    """`carryover`: goodput or latency in the windows after a configuration, relative to the mean of these.

    `movements`: change of the ratio to the baseline within a window. Both are of the `metrics` that were
    measured. `late` of the `windows` do not count because they, or others that their episode needs, were late.
    """

    metrics: list[str]
    carryover: list[Shift]
    movements: list[Movement]
    windows: int
    late: int

    def sentences(self) -> list[str]:
        """One sentence for each check and metric."""
        checks: dict[str, Sequence[Shift]] = {
            "Carry-over to the next window": self.carryover,
            "Change of the ratio within a window": self.movements,
        }
        return [
            *(
                _sentence(what, metric, [one for one in shifts if one.metric == metric])
                for what, shifts in checks.items()
                for metric in self.metrics
            ),
            f"Delays: {self.late} of {self.windows} windows do not count because of them.",
        ]

    def warnings(self) -> list[str]:
        """The checks that failed, with the remedy."""
        checks: dict[str, Sequence[Shift]] = {
            "a configuration affects the window after it": self.carryover,
            "the ratio still changes from the first to the second half of a window": self.movements,
        }
        found = {
            what: "; ".join(one.words for one in shifts if one.found)
            for what, shifts in checks.items()
        }
        return [f"Switchback: {what} ({who}): {REMEDY}." for what, who in found.items() if who]

    def to_json(self) -> dict[str, Any]:
        rows = {
            name: [{**asdict(one), "within": one.within, "found": one.found} for one in shifts]
            for name, shifts in (("carryover", self.carryover), ("movements", self.movements))
        }
        return {**rows, "limit": LIMIT, "windows": self.windows, "late": self.late}


def check(episodes: Sequence[Episode], baseline: str, confidence: float) -> SwitchbackChecks | None:
    """All checks; None without an episode."""
    if not episodes:
        return None
    places: dict[tuple[str, int], list[Episode]] = {}
    for episode in episodes:
        places.setdefault((episode.path, episode.replicas), []).append(episode)
    windows = [window.record for episode in episodes for window in episode.windows]
    metrics = [
        METRICS[name]
        for name in _CHECKED
        if name == BITRATE.name or any(METRICS[name].value(one) is not None for one in windows)
    ]
    every = [(own, metric) for metric in metrics for own in places.values()]
    return SwitchbackChecks(
        [metric.name for metric in metrics],
        _adjusted([one for own in every for one in _carryover(*own, confidence)]),
        _adjusted([one for own in every for one in _movements(*own, baseline, confidence)]),
        len(windows),
        sum(LATE in record.causes for record in windows),
    )


S = TypeVar("S", bound=Shift)


def _adjusted(shifts: Sequence[S]) -> list[S]:
    """With p values that are adjusted over all of these."""
    adjusted = statistics.holm([one.p_holm for one in shifts])
    return [
        replace(one, p_holm=p) for one, p in zip(shifts, adjusted, strict=True) if p is not None
    ]


def _sentence(what: str, metric: str, shifts: Sequence[Shift]) -> str:
    if metric != BITRATE.name:
        what += f", {METRICS[metric].title}"
    if not shifts:
        return f"{what}: not known, there are too few windows or readings."
    found = [one.configuration for one in shifts if one.found]
    largest = max(shifts, key=lambda one: abs(math.log(one.estimate)))
    within = sum(one.within for one in shifts)
    return (
        f"{what}: {f'found for {verdict.joined(found)}' if found else 'not found'}; {within} of "
        f"{len(shifts)} intervals are within {LIMIT * 100:g} % of 1; largest effect: {largest.words}."
    )


def _carryover(episodes: Sequence[Episode], metric: Metric, confidence: float) -> Iterator[Shift]:
    """The effect of each preceding configuration, relative to the mean of these effects.

    Weighted least squares on the logarithm of the metric, with an effect of each episode, of each
    configuration and of each preceding one. The weights are the inverse variances of the
    configurations. The first window of an episode has no predecessor and is left out.
    """
    rows = [
        (window.preceding, window.record.configuration, str(number), math.log(value))
        for number, episode in enumerate(episodes)
        for window in episode.windows
        if window.counts and window.preceding and (value := metric.value(window.record))
    ]
    if not rows:
        return
    *factors, logs = zip(*rows, strict=True)
    preceding, own, number = (np.unique(one, return_inverse=True) for one in factors)
    design = scipy.sparse.hstack(
        [_indicators(codes) for _, codes in (preceding, own, number)]
    ).tocsr()
    values = np.array(logs)
    equal = np.ones(len(values))
    first = _Fit.of(design, values, equal)
    if first.freedom < 1 or first.variance < _NO_SPREAD**2:
        return
    counts = np.bincount(own[1]).astype(float)
    squares = np.bincount(own[1], first.rest**2) * len(values) / first.freedom
    # weights alone: unlike a decision to stop, they may also profit from a smaller variance
    variances = statistics.moderated(squares / counts, first.variance, counts)
    fit = _Fit.of(design, values, 1 / variances[own[1]])
    names = preceding[0]
    contrast = np.zeros((len(names), design.shape[1]))
    contrast[:, : len(names)] = np.eye(len(names)) - 1 / len(names)
    if not fit.estimable(contrast):
        return
    estimates = contrast @ fit.coefficients
    errors = np.sqrt(np.diag(contrast @ fit.covariance @ contrast.T))
    half = scipy.stats.t.ppf((1 + confidence) / 2, fit.freedom) * errors
    ps = 2 * scipy.stats.t.sf(np.abs(estimates / errors), fit.freedom)
    for place, name in enumerate(names):
        middle, around = estimates[place], half[place]
        estimate, low, high = map(math.exp, (middle, middle - around, middle + around))
        at = episodes[0].path, episodes[0].replicas
        yield Shift(*at, str(name), metric.name, estimate, low, high, float(ps[place]))


@dataclass(frozen=True)
class _Fit:
    """Weighted least squares; the coefficients themselves need not be unique."""

    coefficients: Floats
    inverse: Floats  # of `normal`
    normal: Floats
    rest: Floats
    variance: float
    freedom: int

    @classmethod
    def of(cls, design: Any, values: Floats, weights: Floats) -> _Fit:
        weighted = design.T.multiply(weights).tocsr()
        normal = (weighted @ design).toarray()
        inverse, rank = scipy.linalg.pinvh(normal, rtol=_RANK, return_rank=True)
        coefficients = inverse @ (weighted @ values)
        rest = values - design @ coefficients
        freedom = len(values) - int(rank)
        variance = float(np.sum(weights * rest**2)) / max(1, freedom)
        return cls(coefficients, inverse, normal, rest, variance, freedom)

    @property
    def covariance(self) -> Floats:
        return self.inverse * self.variance

    def estimable(self, contrast: Floats) -> bool:
        """Whether the data tell these effects from all others."""
        return bool(np.allclose(contrast @ self.inverse @ self.normal, contrast, atol=1e-6))


def _indicators(codes: Any) -> Any:
    """A column for each code."""
    rows = np.arange(len(codes))
    return scipy.sparse.csr_array((np.ones(len(codes)), (rows, codes)))


def _movements(
    episodes: Sequence[Episode], metric: Metric, baseline: str, confidence: float
) -> Iterator[Movement]:
    """For each configuration, by episode; none where both halves are not known."""
    of_window = _CHECKED[metric.name]
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for number, episode in enumerate(episodes):
        for window in episode.windows:
            if window.counts and (both := of_window(window.record)):
                found.setdefault(window.record.configuration, {})[number] = both
    base = found.pop(baseline, {})
    for name, own in found.items():
        shared = sorted(own.keys() & base.keys())
        ratios = np.array([np.divide(own[number], base[number]) for number in shared])
        if not shared:
            continue
        moved = statistics.ratio(*ratios.T, paired=True, confidence=confidence, check=False)
        if not (moved.estimate and moved.low and moved.high) or moved.p is None:
            continue
        first, second = np.exp(np.log(ratios).mean(axis=0))
        yield Movement(
            episodes[0].path, episodes[0].replicas, name, metric.name,
            moved.estimate, moved.low, moved.high, moved.p, float(first), float(second),
        )  # fmt: skip
