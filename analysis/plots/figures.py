"""The figures of a report with their captions; writes them as files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from analysis import files
from analysis.caveats import MOST_DRAWN
from analysis.plots import cores, effects, episodes, tradeoffs
from analysis.plots.library import PdfPages
from analysis.plots.style import Drawing, Look, Mark, looks, save, styled
from analysis.summary import Summary
from analysis.tables import configuration_order

Draw = Callable[[Summary, Sequence[str], dict[str, Look]], Drawing | None]


class Picture(NamedTuple):
    """A figure before it is drawn; `draw` returns None where it has no data."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Drawing | None]


@dataclass(frozen=True)
class Plot:
    """One figure on disk; `caption` describes content and error bars.

    `marks` are the configurations of its parts, by the id of a group of the SVG.
    """

    name: str
    title: str
    caption: str
    svg: Path
    png: Path
    pdf: Path
    page: int
    marks: Mapping[str, Mark]


_PLOTS: tuple[tuple[str, str, str, Draw], ...] = (
    ("against-baseline", "{title} against the baseline",
     "Effect over runs; bars are {level} intervals that include the baseline's own spread.",
     effects.against_baseline),
    ("values", "{title}", "Mean over runs; bars are {level} t intervals.", effects.values),
    ("overlay-host", "Overlay against host network",
     "{title} over the overlay against the host network; bars are {level} intervals.",
     effects.overlay_over_host),
    ("latency-rate", "Latency against total bitrate",
     "p99 latency; lower and further right is better. Bars are {level} intervals on both axes.",
     partial(tradeoffs.against_rate, cost="p99_us")),
    ("latency-distribution", "Latency by percentile",
     "Median over runs and pairs, at the smallest and the largest replica count; both axes are "
     "logarithmic.", tradeoffs.distribution),
    ("softirq-heatmap", "Softirq of each core",
     "Mean over runs, percent of the window, at the smallest and the largest replica count.",
     partial(cores.heat_map, state="soft")),
    ("softirq-bars", "Softirq of each core, with spread",
     "Mean over runs at the smallest and the largest replica count; bars are {level} t intervals.",
     partial(cores.bars, state="soft")),
    ("idle-heatmap", "Idle time of each core",
     "Mean over runs, percent of the window, at the smallest and the largest replica count.",
     partial(cores.heat_map, state="idle")),
    ("idle-bars", "Idle time of each core, with spread",
     "Mean over runs at the smallest and the largest replica count; bars are {level} t intervals.",
     partial(cores.bars, state="idle")),
    ("softirq-cost", "Softirq against total bitrate",
     "Lower and further right is cheaper; bars are {level} intervals on both axes.",
     partial(tradeoffs.against_rate, cost="softirq_cores")),
    ("run-sequence", "Run by run",
     "Each valid run in time order: a slope is drift, steps are dependence.",
     effects.run_sequence),
    ("within-episodes", "Goodput within an episode",
     "All pairs together in the first episodes, at the smallest and the largest number of pairs. "
     "Each window has the colour of its configuration; the lighter part settles and is not "
     "measured.", episodes.over_time),
)  # fmt: skip


def of(summary: Summary) -> list[Picture]:
    """The figures of a summary; none for more configurations than a figure can distinguish."""
    names = configuration_order(
        summary.runs.loc[summary.runs["valid"], "configuration"], summary.baseline
    )
    if len(names) > MOST_DRAWN:
        return []
    styles = looks(configuration_order([*names, summary.baseline], summary.baseline))
    title = summary.metric.title
    words = {"level": f"{summary.confidence * 100:g} %", "title": title[0].upper() + title[1:]}
    return [
        Picture(
            name,
            heading.format(**words),
            caption.format(**words),
            partial(draw, summary, names, styles),
        )
        for name, heading, caption, draw in _PLOTS
    ]


def write(pictures: Sequence[Picture], directory: Path) -> list[Plot]:
    """Draw every figure that has data as SVG and PNG, and all in one PDF.

    Creates `directory`. The PDF has its fonts once, as outlines that publishers accept (Type 42);
    `page` is the page of a figure. Raises OSError where `directory` is a symbolic link.
    """
    files.folder(directory)
    found: list[Plot] = []
    pdf = directory / "figures.pdf"
    pages = io.BytesIO()
    with styled(), PdfPages(pages, metadata={"CreationDate": None}) as book:
        for name, title, caption, draw in pictures:
            figure = draw()
            if figure is not None:
                svg, png = save(figure, directory, name, book)
                page = len(found) + 1
                found.append(
                    Plot(name, title, caption, svg, png, pdf, page=page, marks=figure.marks)
                )
    if found:
        files.write(pdf, pages.getvalue())
    return found
