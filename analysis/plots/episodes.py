"""Figure of goodput over time within episodes of switchback."""

from __future__ import annotations

from collections.abc import Sequence

from analysis import paths
from analysis.episodes import Episode, is_settling
from analysis.metrics import METRICS
from analysis.plots.library import Axes, PolyCollection
from analysis.plots.style import Drawing, Look, figure, legend, legend_rows
from analysis.schema import Goodput, Record
from analysis.summary import Summary
from analysis.verdict import where

# Episodes of one number of pairs.
_SHOWN = 2
_SETTLING, _MEASURED = 0.3, 0.85  # opacity
_NO_GAP = 1e-4  # seconds between two readings


def over_time(summary: Summary, names: Sequence[str], styles: dict[str, Look]) -> Drawing | None:
    """The first episodes at the smallest and the largest number of pairs; settling is lighter."""
    shown = _shown(summary.episodes)
    if not shown:
        return None
    made, axes = figure(len(shown), 1, 1.7, legend_rows(names))
    for axis, episode in zip(axes, shown, strict=True):
        for window in episode.windows:
            _window(made, axis, window.record, styles[window.record.configuration])
        block = episode.windows[0].record.block
        axis.set_title(f"{where(episode.path, episode.replicas)}, episode {block}")
        axis.autoscale_view()
        axis.set_ylim(bottom=0)
        axis.grid(visible=False, axis="x")
        axis.set_ylabel(METRICS["total_mbps"].heading)
        axis.set_xlabel("time in the episode [s]")
    legend(made, names, styles, filled=True)
    return made


def _shown(episodes: Sequence[Episode]) -> list[Episode]:
    """The first complete episodes of the smallest and the largest number of pairs."""
    whole = [
        one for one in episodes if all(each.counts and each.record.goodput for each in one.windows)
    ]
    path = paths.first(one.path for one in whole)
    own = [one for one in whole if one.path == path]
    counts = sorted({one.replicas for one in own})
    return [
        episode
        for count in dict.fromkeys([*counts[:1], *counts[-1:]])
        for episode in [one for one in own if one.replicas == count][:_SHOWN]
    ]


def _window(made: Drawing, axis: Axes, record: Record, look: Look) -> None:
    """The parts of a window as areas."""
    for settling, opacity in ((True, _SETTLING), (False, _MEASURED)):
        parts = [part for part in record.goodput if is_settling(part, record) == settling]
        areas = PolyCollection(
            [outline(parts)] if parts else [],
            facecolor=look.colour,
            alpha=opacity,
            hatch=look.hatch,
            edgecolor="white",
            lw=0,
        )
        axis.add_collection(areas)
        made.mark(areas, record.configuration)


def outline(parts: Sequence[Goodput]) -> list[tuple[float, float]]:
    """The corners of the area below the parts; it has one path, with steps to 0 in gaps only."""
    corners: list[tuple[float, float]] = []
    for part in parts:
        if corners and part.at - corners[-1][0] < _NO_GAP:
            corners.pop()
        else:
            corners.append((part.at, 0))
        corners += [(part.at, part.mbps), (part.end, part.mbps), (part.end, 0)]
    return corners
