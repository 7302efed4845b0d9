"""Figures of costs: a cost against throughput, and the distribution of the latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis import paths
from analysis.metrics import METRICS
from analysis.plots.library import Axes, LogLocator
from analysis.plots.style import Drawing, Look, figure, legend, legend_rows, points
from analysis.summary import Summary
from analysis.tradeoff import Interval
from analysis.verdict import digits, pairs, where

RATE = METRICS["total_mbps"]
# The marks of the axis of a distribution.
_FRACTIONS = (0.5, 0.9, 0.99, 0.999, 0.9999)


def against_rate(
    summary: Summary, names: Sequence[str], styles: dict[str, Look], *, cost: str
) -> Drawing | None:
    """A metric against the bitrate of all pairs together, with intervals on both axes."""
    metric = METRICS[cost]
    path = paths.first(one.path for one in summary.tradeoff.rows)
    rows = [
        one
        for one in summary.tradeoff.rows
        if one.path == path and {RATE.name, cost} <= one.levels.keys()
    ]
    if not rows:
        return None
    made, (axis,) = figure(1, 1, 3.3, legend_rows(names))
    for name in names:
        own = [one for one in rows if one.configuration == name]
        rates, costs = ([one.levels[key] for one in own] for key in (RATE.name, cost))
        tips = [
            f"{name}, {pairs(row.replicas)}: {_text(rate, RATE.digits)} {RATE.unit}, "
            f"{metric.title} {_text(level, metric.digits)} {metric.unit}"
            for row, rate, level in zip(own, rates, costs, strict=True)
        ]
        (x, x_bars), (y, y_bars) = _bars(rates), _bars(costs)
        points(made, axis, name, styles[name], (x, y), x_bars=x_bars, y_bars=y_bars, tips=tips)
        for row, across, up in zip(own, x, y, strict=True):
            axis.annotate(str(row.replicas), (across, up), xytext=(4, 3), fontsize=7,
                          textcoords="offset points", color=styles[name].colour)  # fmt: skip
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.set_xlabel(f"{RATE.heading}; figures at the points: replicas")
    axis.set_ylabel(metric.heading)
    legend(made, names, styles)
    return made


def _bars(levels: Sequence[Interval]) -> tuple[list[float], tuple[list[float], list[float]]]:
    """Estimates, and the distances of their bounds; 0 where there are none."""
    middle = [one.estimate or 0.0 for one in levels]
    low = [m if one.low is None else one.low for m, one in zip(middle, levels, strict=True)]
    high = [m if one.high is None else one.high for m, one in zip(middle, levels, strict=True)]
    return middle, (
        [m - b for m, b in zip(middle, low, strict=True)],
        [b - m for m, b in zip(middle, high, strict=True)],
    )


def _text(level: Interval, places: int) -> str:
    text = digits(level.estimate or 0.0, places)
    if level.low is None or level.high is None:
        return text
    return f"{text} [{digits(level.low, places)}, {digits(level.high, places)}]"


def distribution(summary: Summary, names: Sequence[str], styles: dict[str, Look]) -> Drawing | None:
    """Latency by percentile at the smallest and the largest replica count, both axes logarithmic.

    The axis of percentiles is that of the share of slower messages; the largest value has none.
    """
    table = summary.latency[summary.latency["fraction"] < 1]
    if table.empty:
        return None
    path = paths.first(table["path"].unique())
    table = table[table["path"] == path]
    counts = sorted({int(table["replicas"].min()), int(table["replicas"].max())})
    made, axes = figure(len(counts), 1, 2.6, legend_rows(names))
    for axis, count in zip(axes, counts, strict=True):
        here = table[table["replicas"] == count]
        for name in names:
            own = here[here["configuration"] == name]
            look = styles[name]
            (line,) = axis.plot(_nines(own["fraction"].to_numpy()), own["us"].to_numpy(),
                                color=look.colour, marker=look.marker, ms=4, lw=1.1)  # fmt: skip
            tips = [
                f"{name}: {fraction * 100:g} % of the messages within {digits(us, 1)} us"
                for fraction, us in zip(own["fraction"], own["us"], strict=True)
            ]
            made.mark(line, name, tips)
        _percentiles(axis, float(here["fraction"].max()))
        axis.set_title(where(path, count))
    legend(made, names, styles)
    return made


def _nines(fractions: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    return [float(one) for one in -np.log10(1 - fractions)]


def _percentiles(axis: Axes, most: float) -> None:
    shown = [one for one in _FRACTIONS if one <= most]
    axis.set_xticks(_nines(np.array(shown)), [f"{one * 100:g}" for one in shown])
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    axis.set_xlabel("percentile of the messages")
    axis.set_ylabel("latency [microseconds]")
