"""Figures of CPU: idle and softirq time of each core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from analysis import paths, statistics
from analysis.plots.library import Axes, PolyCollection
from analysis.plots.style import Drawing, Look, figure, label, legend, legend_rows
from analysis.summary import Summary
from analysis.verdict import pairs

State = Literal["idle", "soft"]
WORDS: dict[State, str] = {"idle": "idle", "soft": "softirq"}
# Beyond these, bars and numbers are too small to read on a phone; cores.csv has them all.
MOST_BARS = 16
MOST_NUMBERS = 48


def heat_map(
    summary: Summary, names: Sequence[str], styles: dict[str, Look], state: State
) -> Drawing | None:
    """Mean of each core by configuration at the smallest and the largest replica count."""
    del styles
    panels = _extremes(summary, state)
    if not panels:
        return None
    rows = max(len(set(table["configuration"])) for _, table in panels)
    made, axes = figure(len(panels), 1, 0.28 * rows + 0.1)
    for axis, (title, table) in zip(axes, panels, strict=True):
        means = table.pivot_table(
            index="configuration", columns=["node", "core"], values=state, aggfunc="mean"
        ).reindex([name for name in names if name in set(table["configuration"])])
        values = means.to_numpy(dtype=float)
        mesh = axis.pcolormesh(np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=100)
        if values.size <= MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(values):
                if not np.isnan(value):
                    axis.text(column + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center",
                              fontsize=8, color="white" if value < 55 else "black")  # fmt: skip
        labels = _labels(_places(table))
        step = -(-len(labels) // MOST_BARS)
        axis.set_xticks(np.arange(0, len(labels), step) + 0.5, labels[::step])
        axis.set_yticks(np.arange(len(means)) + 0.5, [label(name) for name in means.index])
        axis.invert_yaxis()
        axis.grid(visible=False)
        axis.set_title(title)
        axis.set_xlabel("core")
        bar = made.colorbar(mesh, ax=axis, pad=0.02, fraction=0.04)
        bar.set_label(f"{WORDS[state]} [%]")
    made.subplots_adjust(left=0.2, right=0.91)
    return made


def bars(
    summary: Summary, names: Sequence[str], styles: dict[str, Look], state: State
) -> Drawing | None:
    """Mean of each core with its interval at the smallest and the largest replica count.

    None beyond 16 cores, where bars are too narrow; the heat map has them.
    """
    panels = _extremes(summary, state)
    if not panels or any(len(_places(table)) > MOST_BARS for _, table in panels):
        return None
    made, axes = figure(len(panels), 1, 2.1, legend_rows(names))
    for axis, (title, table) in zip(axes, panels, strict=True):
        _bars(made, axis, table, names, styles, state, summary.confidence)
        axis.set_title(title)
    legend(made, names, styles, filled=True)
    return made


def _bars(
    made: Drawing,
    axis: Axes,
    table: pd.DataFrame,
    names: Sequence[str],
    styles: dict[str, Look],
    state: State,
    confidence: float,
) -> None:
    places = _places(table)
    width = 0.84 / len(names)
    spread = statistics.spread(table.groupby(["configuration", "node", "core"])[state], confidence)
    for position, name in enumerate(names):
        rows = spread.reindex([(name, node, core) for node, core in places])
        middle = np.arange(len(places)) + (position - (len(names) - 1) / 2) * width
        heights = rows["mean"].fillna(0).to_numpy()
        look = styles[name]
        # One collection instead of a patch a bar: drawn several times faster.
        boxes = [
            [(x - width / 2, 0), (x - width / 2, y), (x + width / 2, y), (x + width / 2, 0)]
            for x, y in zip(middle, heights, strict=True)
        ]
        areas = PolyCollection(
            boxes, facecolor=look.colour, hatch=look.hatch, edgecolor="white", lw=0.4
        )
        axis.add_collection(areas)
        made.mark(areas, name)
        axis.errorbar(middle, rows["mean"], yerr=rows["half"].fillna(0), ls="", ecolor="#444444",
                      elinewidth=0.8, capsize=1.5)  # fmt: skip
    axis.set_xticks(range(len(places)), _labels(places))
    axis.set_ylim(0, 100)
    axis.grid(visible=False, axis="x")
    axis.set_xlabel("core")
    axis.set_ylabel(f"{WORDS[state]} [%]")


def _extremes(summary: Summary, state: State) -> list[tuple[str, pd.DataFrame]]:
    """The cores at the smallest and the largest replica count (overlay where there is one)."""
    measured = summary.cores[summary.cores[state].notna()]
    if measured.empty:
        return []
    path = paths.first(measured["path"].unique())
    measured = measured[measured["path"] == path]
    counts = sorted({int(measured["replicas"].min()), int(measured["replicas"].max())})
    return [(pairs(count), measured[measured["replicas"] == count]) for count in counts]


def _places(table: pd.DataFrame) -> list[tuple[str, int]]:
    found = table[["node", "core"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted((str(node), int(core)) for node, core in found)


def _labels(places: Sequence[tuple[str, int]]) -> list[str]:
    several = len({node for node, _ in places}) > 1
    return [f"{label(node)}\n{core}" if several else str(core) for node, core in places]
