"""One state (configuration, replica count and path) over its valid runs."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.statistics import Trend


@dataclass(frozen=True)
class CellSummary:
    """One configuration at one replica count and path: means over its valid runs.

    `value` is the mean of the metric that is compared and `half` the half-width of its t
    interval; `means` has every metric by name. `soft_busiest` is the softirq time of the server
    core that has most of it, percent. `lag1` describes the series of runs. `invalid` counts
    attempts. None is "not known".
    """

    path: str
    replicas: int
    configuration: str
    runs: int
    invalid: int
    value: float | None
    half: float | None
    means: dict[str, float | None]
    soft_busiest: float | None
    lag1: float | None
    drift: Trend
    drift_p_holm: float | None
