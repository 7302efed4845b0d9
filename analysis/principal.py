"""The metric that decides unless one is named: the same for report, `compare` and `history` (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from analysis import comparisons
from analysis.choice import WORTHWHILE
from analysis.evidence import Evidence
from analysis.metrics import BITRATE, METRICS, Metric
from analysis.statistics import Effect

# Those whose evidence decides which one it is.
CANDIDATES = tuple(one for one in METRICS.values() if one.shown == "always")
_LATENCY = METRICS["p99_us"]

Sweep = tuple[Mapping[str, Evidence], str]  # by metric, with at least the candidates; baseline


def principal(sweeps: Sequence[Sweep], confidence: float) -> Metric:
    """The metric to compare in these sweeps.

    It is the bitrate, or the first other metric that is always shown where no valid run has a
    bitrate. Streams at a rate that every configuration delivers have the same bitrate, so that it
    decides nothing: then p99 latency does, where each sweep has it.
    """
    measured = [m for m in CANDIDATES if any(one[m.name].series for one, _ in sweeps)]
    found = next(iter(measured), BITRATE)
    with_latency = all(one[_LATENCY.name].series for one, _ in sweeps)
    if found == BITRATE and with_latency and all(_same(*one, confidence) for one in sweeps):
        return _LATENCY
    return found


def _same(evidence: Mapping[str, Evidence], baseline: str, confidence: float) -> bool:
    """Whether every configuration is known to have the bitrate of the baseline.

    The whole interval counts, not a rate that was asked for: a rate that is not delivered is a
    difference, and so may be an estimate that is close to 1 by chance.
    """
    bitrates = evidence[BITRATE.name]
    effects = [
        bitrates.effect(*couple, confidence=confidence)
        for couple in comparisons.against_couples(bitrates, baseline)
    ]
    return bool(effects) and all(map(_equal, effects))


def _equal(effect: Effect) -> bool:
    bounds = effect.interval
    return all(one and abs(math.log(one)) < math.log1p(WORTHWHILE) for one in bounds)
