"""The stopping rule of `--until-ci`: which states need more runs.

Stopping as soon as an interval looks narrow favours runs that agree by chance, so the interval
at that moment covers less than nominal (Anscombe 1953, Chow and Robbins 1965). From 8 runs on the
loss is small: simulated coverage of nominal 95 % intervals is 94 % for normal noise and 93 % for
skewed noise (benchmarks/promises.json).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis import statistics
from analysis.metrics import BITRATE
from analysis.pairing import StateKey, arms, series
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.tables import run_table

FEWEST = 8


def enough(effect: Effect, half_width: float, *, fewest: int = FEWEST) -> bool:
    """Whether a ratio is known to within `half_width` (0.05 is ±5 % of it) from enough runs."""
    width = relative_half_width(effect)
    return width is not None and width <= half_width and min(effect.n_a, effect.n_b) >= fewest


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
    its baseline always: the caller limits the number of blocks. Raises ValueError where
    `half_width` is not positive.
    """
    if not half_width > 0:
        raise ValueError(f"half width: {half_width:g} is not positive")
    runs = series(run_table(records), BITRATE.name)
    wanted = set(states)
    still = set()
    for path, replicas, name in wanted:
        key, reference = (path, replicas, name), (path, replicas, baseline)
        if name == baseline:
            continue
        if key in runs and reference in runs:
            first, second, paired = arms(runs[reference], runs[key])
            effect = statistics.ratio(
                first, second, paired=paired, confidence=confidence, check=False
            )
            if enough(effect, half_width):
                continue
        still.add(key)
    return still | {
        (path, replicas, baseline)
        for path, replicas, _ in still
        if (path, replicas, baseline) in wanted
    }
