"""Figures of the metric: against the baseline, absolute, overlay against host, run by run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import paths
from analysis.plots.library import Axes
from analysis.plots.style import Drawing, Look, figure, legend, legend_rows, points
from analysis.statistics import Effect, Floats
from analysis.summary import Summary
from analysis.verdict import digits, pairs

Point = tuple[int, str, float, float, float]  # replicas, configuration, value, low, high
Styles = dict[str, Look]


def against_baseline(summary: Summary, names: Sequence[str], styles: Styles) -> Drawing | None:
    """Ratio to the baseline, or difference, with its interval; a panel for each path."""
    panels = {
        path: _points(
            (one.replicas, one.b, one.effect) for one in summary.contrasts if one.path == path
        )
        for path in dict.fromkeys(one.path for one in summary.contrasts)
    }
    null = _null(summary)
    for own in panels.values():
        counts = dict.fromkeys(point[0] for point in own)
        own += [(count, summary.baseline, null, null, null) for count in counts]
    return _drawn(panels, names, styles, _against(summary, "baseline"), null)


def values(summary: Summary, names: Sequence[str], styles: Styles) -> Drawing | None:
    """Mean with its interval, grouped by replicas; a panel for each path."""
    panels: dict[str, list[Point]] = {}
    for one in summary.states:
        if one.value is not None:
            half = one.half or 0
            point = (one.replicas, one.configuration, one.value, one.value - half, one.value + half)
            panels.setdefault(one.path, []).append(point)
    return _drawn(
        panels, names, styles, summary.metric.heading, bottom=0, places=summary.metric.digits
    )


def overlay_over_host(summary: Summary, names: Sequence[str], styles: Styles) -> Drawing | None:
    """Overlay against host network, where both were run."""
    found = _points((one.replicas, one.configuration, one.effect) for one in summary.paths)
    panels = {"overlay": found} if found else {}
    return _drawn(panels, names, styles, _against(summary, "host network"), _null(summary))


def _drawn(
    panels: Mapping[str, Sequence[Point]],
    names: Sequence[str],
    styles: Styles,
    label: str,
    line: float | None = None,
    bottom: float | None = None,
    places: int = 2,
) -> Drawing | None:
    """A panel of grouped points for each path; None without panels."""
    if not panels:
        return None
    made, axes = figure(len(panels), 1, 2.9, legend_rows(names))
    for axis, (path, own) in zip(axes, panels.items(), strict=True):
        if line is not None:
            axis.axhline(line, color="#555555", lw=0.8)
        _grouped(made, axis, own, names, styles, places)
        axis.set_ylim(bottom=bottom)
        axis.set_ylabel(label)
        if len(panels) > 1:
            axis.set_title(paths.NAMES[path])
    legend(made, names, styles)
    return made


def run_sequence(summary: Summary, names: Sequence[str], styles: Styles) -> Drawing | None:
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
            (line,) = axis.plot(turns[own], runs[summary.metric.name].to_numpy()[own],
                                color=look.colour, marker=look.marker, ms=3, lw=0.6)  # fmt: skip
            made.mark(line, name)
        axis.set_title(
            f"{pairs(int(str(replicas)))}{'' if path == 'overlay' else f', {paths.NAMES[str(path)]}'}"
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
        (replicas, name, effect.estimate,
         effect.estimate if effect.low is None else effect.low,
         effect.estimate if effect.high is None else effect.high)
        for replicas, name, effect in effects
        if effect.estimate is not None
    ]  # fmt: skip


def _grouped(
    made: Drawing,
    axis: Axes,
    found: Sequence[Point],
    names: Sequence[str],
    styles: Styles,
    places: int,
) -> None:
    """Points with error bars: a group for each replica count, within it a place for each name."""
    counts = sorted({point[0] for point in found})
    step = 0.8 / max(len(names), 1)
    for position, name in enumerate(names):
        own = [point for point in found if point[1] == name]
        if not own:
            continue
        x = [counts.index(point[0]) + (position - (len(names) - 1) / 2) * step for point in own]
        value, low, high = (np.array([point[i] for point in own]) for i in (2, 3, 4))
        tips = [
            f"{name}, {pairs(count)}: {digits(middle, places)}"
            + f" [{digits(least, places)}, {digits(most, places)}]" * (least < most)
            for count, _, middle, least, most in own
        ]
        bars = (value - low, high - value)
        points(made, axis, name, styles[name], (x, value), y_bars=bars, tips=tips)
    for edge in range(1, len(counts)):
        axis.axvline(edge - 0.5, color="#bbbbbb", lw=0.6)
    axis.set_xlim(-0.5, max(len(counts), 1) - 0.5)
    axis.set_xticks(range(len(counts)), [str(count) for count in counts])
    axis.grid(visible=False, axis="x")
    axis.set_xlabel("replicas (pairs)")
