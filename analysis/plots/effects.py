"""Figures of the metric: against the baseline, absolute, overlay against host, run by run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from analysis.plots.library import Axes, Figure
from analysis.plots.style import Look, figure, legend, legend_rows
from analysis.statistics import Effect, Floats
from analysis.summary import Summary
from analysis.verdict import pairs

Point = tuple[int, str, float, float, float]  # replicas, configuration, value, low, high


def against_baseline(
    summary: Summary, names: Sequence[str], styles: dict[str, Look]
) -> Figure | None:
    """Ratio to the baseline, or difference, with its interval; a panel for each path."""
    paths = list(dict.fromkeys(one.path for one in summary.contrasts))
    if not paths:
        return None
    made, axes = figure(len(paths), 1, 2.9, legend_rows(names))
    for axis, path in zip(axes, paths, strict=True):
        points = _points(
            (one.replicas, one.b, one.effect) for one in summary.contrasts if one.path == path
        )
        null = _null(summary)
        counts = {point[0] for point in points}
        reference = [(count, summary.baseline, null, null, null) for count in counts]
        axis.axhline(null, color=styles[summary.baseline].colour, lw=0.8)
        _grouped(axis, [*points, *reference], names, styles)
        axis.set_ylabel(_against(summary, "baseline"))
        _title(axis, path, paths)
    legend(made, names, styles)
    return made


def values(summary: Summary, names: Sequence[str], styles: dict[str, Look]) -> Figure | None:
    """Mean with its interval, grouped by replicas, a panel a path."""
    paths = list(dict.fromkeys(one.path for one in summary.states if one.value is not None))
    if not paths:
        return None
    made, axes = figure(len(paths), 1, 2.9, legend_rows(names))
    for axis, path in zip(axes, paths, strict=True):
        points = [
            (one.replicas, one.configuration, one.value,
             one.value - (one.half or 0), one.value + (one.half or 0))
            for one in summary.states
            if one.path == path and one.value is not None
        ]  # fmt: skip
        _grouped(axis, points, names, styles)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(summary.metric.heading)
        _title(axis, path, paths)
    legend(made, names, styles)
    return made


def overlay_over_host(
    summary: Summary, names: Sequence[str], styles: dict[str, Look]
) -> Figure | None:
    """Overlay against host network, where both were run."""
    points = _points((one.replicas, one.configuration, one.effect) for one in summary.paths)
    if not points:
        return None
    made, (axis,) = figure(1, 1, 2.9, legend_rows(names))
    _grouped(axis, points, names, styles)
    axis.axhline(_null(summary), color="#555555", lw=1)
    axis.set_ylabel(_against(summary, "host network"))
    legend(made, names, styles)
    return made


def run_sequence(summary: Summary, names: Sequence[str], styles: dict[str, Look]) -> Figure | None:
    """Every valid run in the order in which it was made, a panel a replica count and path."""
    valid = summary.runs[summary.runs["valid"]]
    groups = sorted(valid.groupby(["path", "replicas"]), key=lambda g: (g[0][0] != "overlay", g[0]))
    if not groups:
        return None
    columns = 1 if len(groups) == 1 else 2
    made, axes = figure(-(-len(groups) // columns), columns, 1.75, legend_rows(names))
    for axis, ((path, replicas), runs) in zip(axes, groups, strict=False):
        turns = _turns(runs)
        for name in names:
            own = (runs["configuration"] == name).to_numpy()
            look = styles[name]
            axis.plot(turns[own], runs[summary.metric.name].to_numpy()[own], color=look.colour,
                      marker=look.marker, ms=3, lw=0.6)  # fmt: skip
        axis.set_title(
            f"{pairs(int(str(replicas)))}{'' if path == 'overlay' else ', host network'}"
        )
        axis.set_xlabel("run")
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    for axis in axes[::columns]:
        axis.set_ylabel(summary.metric.unit)
    legend(made, names, styles)
    return made


def _null(summary: Summary) -> float:
    return 1.0 if summary.metric.scale == "ratio" else 0.0


def _against(summary: Summary, what: str) -> str:
    """The label of an axis of ratios or differences."""
    metric = summary.metric
    if metric.scale == "ratio":
        return f"{metric.title}, ratio to {what}"
    return f"{metric.title}, difference from {what} [{metric.unit}]"


def _turns(runs: pd.DataFrame) -> Floats:
    """The place of each run in its panel: by `order` where all have one, else within its state."""
    if runs["order"].notna().all():
        return np.asarray(runs["order"].rank(method="dense"), dtype=np.float64)
    return np.asarray(runs.groupby("configuration").cumcount() + 1, dtype=np.float64)


def _points(effects: Iterable[tuple[int, str, Effect]]) -> list[Point]:
    return [
        (replicas, name, effect.estimate, effect.low or effect.estimate,
         effect.high or effect.estimate)
        for replicas, name, effect in effects
        if effect.estimate is not None
    ]  # fmt: skip


def _grouped(
    axis: Axes, points: Sequence[Point], names: Sequence[str], styles: dict[str, Look]
) -> None:
    """Points with error bars: a group for each replica count, within it a place for each name."""
    counts = sorted({point[0] for point in points})
    step = 0.8 / max(len(names), 1)
    for position, name in enumerate(names):
        own = [point for point in points if point[1] == name]
        if not own:
            continue
        x = [counts.index(point[0]) + (position - (len(names) - 1) / 2) * step for point in own]
        value, low, high = (np.array([point[i] for point in own]) for i in (2, 3, 4))
        look = styles[name]
        axis.errorbar(
            x,
            value,
            yerr=(value - low, high - value),
            color=look.colour,
            marker=look.marker,
            ms=5,
            ls="",
            capsize=2.5,
            lw=1.2,
        )
    for edge in range(1, len(counts)):
        axis.axvline(edge - 0.5, color="#bbbbbb", lw=0.6)
    axis.set_xlim(-0.5, max(len(counts), 1) - 0.5)
    axis.set_xticks(range(len(counts)), [str(count) for count in counts])
    axis.grid(visible=False, axis="x")
    axis.set_xlabel("replicas (pairs)")


def _title(axis: Axes, path: str, paths: Sequence[str]) -> None:
    if len(paths) > 1:
        axis.set_title("overlay" if path == "overlay" else "host network")
