"""What is known of one state over its valid runs."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.statistics import Trend


@dataclass(frozen=True)
class CellSummary:
    """One configuration at one replica count and path: means over its valid runs.

    `bitrate` is the mean over runs of the mean over pairs, `half` the half-width of its t
    interval and `total` the sum over pairs, all Mbit/s; `soft_busiest` (the core with the highest
    mean), `soft_total` and `idle` (mean) are percent of a core, over the server's cores.
    `soft_cost` is core-seconds of softirq per Gbit; `retransmits`, `dropped` and `squeezed` are
    per Gbit; `slowest` is the slowest pair's share of the fastest one's bitrate. `lag1` describes
    the series of runs. `invalid` counts attempts.
    """

    path: str
    replicas: int
    configuration: str
    runs: int
    invalid: int
    bitrate: float | None
    half: float | None
    total: float | None
    soft_busiest: float | None
    soft_total: float | None
    idle: float | None
    soft_cost: float | None
    retransmits: float | None
    dropped: float | None
    squeezed: float | None
    slowest: float | None
    lag1: float | None
    drift: Trend
    drift_p_holm: float | None
