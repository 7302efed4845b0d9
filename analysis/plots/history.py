"""Figure of a history: the effect of a configuration in several sweeps, by date."""

from __future__ import annotations

from analysis.history import Course, History
from analysis.plots.library import Axes
from analysis.plots.style import COLOURS, Drawing, figure, label
from analysis.verdict import where

_ROW, _MARGIN = 0.42, 0.2  # inches of a row, and of a panel beside its rows
_LONGEST, _KERNEL = 32, 15  # characters of a directory and of a kernel beside a row
_MOST_NAMED = 3


def courses(history: History) -> Drawing:
    """A panel for each configuration, the first sweep at the top.

    A dashed line is a change of conditions, with their names; the grey band is the effect over all sweeps.
    """
    most = max(len(course.rows) for course in history.courses)
    made, axes = figure(len(history.courses), 1, _ROW * most + _MARGIN)
    made.subplots_adjust(left=0.4, right=0.96)
    for axis, course in zip(axes, history.courses, strict=True):
        _course(axis, course)
        axis.set_title(label(f"{course.configuration}, {where(course.path, course.replicas)}"))
    metric = history.metric
    kind = "ratio to" if metric.scale == "ratio" else f"difference [{metric.unit}] from"
    axes[-1].set_xlabel(f"{metric.title}, {kind} the baseline of each sweep")
    return made


def _course(axis: Axes, course: Course) -> None:
    axis.axvline(course.rows[0].contrast.effect.null, color="#555555", lw=0.8)
    if course.mean and course.mean.low is not None and course.mean.high is not None:
        axis.axvspan(course.mean.low, course.mean.high, color="#dddddd", zorder=0)
    for place, row in enumerate(course.rows):
        effect = row.contrast.effect
        if effect.estimate is not None:
            low = effect.estimate if effect.low is None else effect.low
            high = effect.estimate if effect.high is None else effect.high
            around = [[effect.estimate - low], [high - effect.estimate]]
            sure = row.contrast.verdict != "inconclusive"
            axis.errorbar(
                effect.estimate, place, xerr=around, color=COLOURS[2], marker="o", ms=5, capsize=2.5,
                lw=1.2, mfc=COLOURS[2] if sure else "white",
            )  # fmt: skip
        if row.changed:
            axis.axhline(place - 0.5, color=COLOURS[4], lw=0.9, ls="--")
            more = len(row.conditions) - _MOST_NAMED
            names = [*row.conditions[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])]
            axis.annotate(
                label(", ".join(names)), (0.995, place - 0.5), (0, 2), ha="right", va="bottom",
                xycoords=("axes fraction", "data"), textcoords="offset points",
                color=COLOURS[4], size=7,
            )  # fmt: skip
    names = [
        f"{row.date or 'no date'}, kernel {_cut(row.kernel or 'unknown')}\n{_tail(row.sweep)}"
        for row in course.rows
    ]
    axis.set_yticks(range(len(names)), names, size=7)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def _cut(kernel: str) -> str:
    text = label(kernel)
    return text if len(text) <= _KERNEL else f"{text[: _KERNEL - 1]}…"


def _tail(sweep: str) -> str:
    text = label(sweep)
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"
