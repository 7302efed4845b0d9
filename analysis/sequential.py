"""The stopping rule of `--until-ci`: which states need more runs.

Stopping as soon as an interval looks narrow favours runs that agree by chance, so the interval
at that moment covers less than nominal (Anscombe 1953, Chow and Robbins 1965). Two measures keep
the loss small (simulated in benchmarks/promises.json): nothing stops before 10 runs, and a variance
that is small by chance is moderated by that of the other configurations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from scipy import special

from analysis import statistics
from analysis.metrics import BITRATE
from analysis.pairing import Series, StateKey, arms, series
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.tables import run_table

FEWEST = 10


def precise(
    effects: Mapping[StateKey, Effect], half_width: float, *, confidence: float = 0.95
) -> set[StateKey]:
    """The ratios that are known to within `half_width` (0.05 is ±5 % of them) from enough runs.

    `effects` are a table's: all paired ratios to the baseline of one replica count and path. A
    variance below the pooled one of the table is moderated by it, with its degrees of freedom as weight.
    The variance of a single ratio is its own.
    """
    known = {key: one for key, one in effects.items() if one.error is not None}
    freedom = sum(one.n_a - 1 for one in known.values())
    pooled = sum((one.n_a - 1) * _variance(one) for one in known.values()) / max(1, freedom)
    found = set()
    for key, one in known.items():
        own, weight = _variance(one), one.n_a - 1
        # never less than its own: a ratio that spreads more than the others would stop too early
        variance = statistics.moderated(own, max(own, pooled), weight)
        half = special.stdtrit(weight, (1 + confidence) / 2) * math.sqrt(variance / one.n_a)
        # as a fraction of the ratio: (exp(half) - exp(-half)) / 2
        if one.n_a >= FEWEST and math.sinh(half) <= half_width:
            found.add(key)
    return found


def _variance(effect: Effect) -> float:
    """The variance of the paired differences of logarithms."""
    return effect.n_a * (effect.error or 0.0) ** 2


def relative_half_width(effect: Effect) -> float | None:
    """Half the width of a ratio's interval as a fraction of the ratio."""
    if effect.low is None or effect.high is None or not effect.estimate:
        return None
    return (effect.high - effect.low) / 2 / effect.estimate


def open_states(
    records: Sequence[Record],
    states: Iterable[StateKey],
    half_width: float,
    *,
    baseline: str = "baseline",
    confidence: float = 0.95,
) -> set[StateKey]:
    """Which of `states` (path, replicas, configuration) need more runs.

    A baseline is open while any state at its replica count and path is, and a state without
    two blocks in common with its baseline always: the caller limits the number of blocks. Raises
    ValueError where `half_width` is not positive.
    """
    if not half_width > 0:
        raise ValueError(f"half width: {half_width:g} is not positive")
    runs = series(run_table(records), BITRATE.name)
    wanted = set(states)
    still = {key for key in wanted if key[2] != baseline}
    for path, replicas in {key[:2] for key in wanted}:
        effects = _effects(runs, (path, replicas, baseline))
        still -= precise(effects, half_width, confidence=confidence)
    places = {key[:2] for key in still}
    return still | {key for key in wanted if key[2] == baseline and key[:2] in places}


def _effects(runs: Mapping[StateKey, Series], reference: StateKey) -> dict[StateKey, Effect]:
    """The paired ratios to a baseline."""
    found = {}
    for key in runs if reference in runs else ():
        if key[:2] == reference[:2] and key != reference:
            first, second, paired = arms(runs[reference], runs[key])
            if paired:
                found[key] = statistics.ratio(first, second, paired=True, check=False)
    return found
