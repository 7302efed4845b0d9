"""The metrics of a run: the registry that everything in analysis iterates over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from analysis.schema import MetricWords


@dataclass(frozen=True)
class Metric:
    """One number of a run. `scale` tells whether two values are compared by ratio or difference."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    scale: Literal["ratio", "difference"]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("bitrate_mbps", "bitrate", "Mbit/s", "higher", "ratio"),
        Metric("retransmits", "retransmits", "segments", "lower", "difference"),
    )
}


def described(names: Iterable[str]) -> dict[str, MetricWords]:
    """What a record says about the metrics of its pairs' values."""
    return {
        name: MetricWords(
            title=metric.title, unit=metric.unit, better=metric.better, scale=metric.scale
        )
        for name in names
        if (metric := METRICS.get(name))
    }
