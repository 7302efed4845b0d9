"""The metric that decides unless one is named: the same for report, `compare` and `history` (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from analysis import comparisons, statistics
from analysis.choice import WORTHWHILE
from analysis.evidence import Evidence
from analysis.metrics import BITRATE, METRICS, Metric
from analysis.statistics import Effect

# Those whose evidence decides which one it is.
CANDIDATES = tuple(one for one in METRICS.values() if one.shown == "always")
_LATENCY = METRICS["p99_us"]

Sweep = tuple[Mapping[str, Evidence], str]  # by metric, with at least the candidates; baseline


def principal(
    sweeps: Sequence[Sweep], confidence: float, directly: tuple[str, str] | None = None
) -> Metric:
    """The metric to compare in these sweeps.

    It is the bitrate, or the first other metric that is always shown where no valid run has a
    bitrate. Streams at a rate that every configuration delivers have the same bitrate, so that it
    decides nothing: then p99 latency does, where each sweep has it. `directly` are configurations of
    two sweeps that are compared without their baselines: their bitrates must be the same too.

    The whole intervals count, not a rate that was asked for: a rate that is not delivered is a
    difference, and so may be an estimate that is close to 1 by chance.
    """
    measured = [m for m in CANDIDATES if any(one[m.name].series for one, _ in sweeps)]
    found = next(iter(measured), BITRATE)
    with_latency = all(one[_LATENCY.name].series for one, _ in sweeps)
    if found != BITRATE or not with_latency:
        return found
    ratios = [_within(one[BITRATE.name], baseline, confidence) for one, baseline in sweeps]
    if directly:
        (before, _), (after, _) = sweeps
        ratios.append(_between(before[BITRATE.name], after[BITRATE.name], *directly, confidence))
    same = all(of_one and all(map(_equal, of_one)) for of_one in ratios)
    return _LATENCY if same else found


def _within(evidence: Evidence, baseline: str, confidence: float) -> list[Effect]:
    """Of each configuration of a sweep to its baseline, at each place."""
    return [
        evidence.effect(*couple, confidence=confidence)
        for couple in comparisons.against_couples(evidence, baseline)
    ]


def _between(before: Evidence, after: Evidence, a: str, b: str, confidence: float) -> list[Effect]:
    """Of B of one sweep to A of another, at each place that both have."""
    return [
        statistics.ratio(one.values, other.values, paired=False, confidence=confidence, check=False)
        for (path, replicas, name), one in before.series.items()
        if name == a and (other := after.series.get((path, replicas, b)))
    ]


def _equal(effect: Effect) -> bool:
    bounds = effect.interval
    return all(one and abs(math.log(one)) < math.log1p(WORTHWHILE) for one in bounds)
