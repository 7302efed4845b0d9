"""One look for every figure: palette, markers, sizes, and saving without pyplot."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import files
from analysis.garbage import uncollected
from analysis.plaintext import one_line
from analysis.plots.library import (
    Artist,
    Axes,
    Figure,
    FigureCanvasAgg,
    Line2D,
    Patch,
    PdfPages,
    alone,
    mpl,
)

# The palette of Okabe and Ito, distinguishable with every common kind of colour vision; black is
# the baseline. Markers and hatches repeat the distinction without colour; hatches are lines, because an SVG
# with one of dots or circles has each of them as a curve, 68 kB for every use.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
HATCHES = ("", "//", "||", "\\\\", "xx", "++", "--", "/|")
WIDTH = 5.4  # inches: text stays readable where a phone shrinks the figure to its width

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titley": 1.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "path.simplify": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "steerlab",
    "text.parse_math": False,  # a $ in a name is a $
}
# No dates: the same runs give the same files. PNG is written fast rather than small.
_FORMATS: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None}},
    "png": {"dpi": 144, "pil_kwargs": {"compress_level": 2}},
}


@dataclass(frozen=True)
class Look:
    """How one configuration is drawn everywhere."""

    colour: str
    marker: str
    hatch: str


@dataclass(frozen=True)
class Mark:
    """The configuration that a part of a figure shows, and a text for each of its points."""

    name: str
    tips: tuple[str, ...] = ()


class Drawing(Figure):
    """A figure with its marks by the id of their SVG group, for hover on the page."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height))
        FigureCanvasAgg(self)
        self.marks: dict[str, Mark] = {}

    def mark(self, artist: Artist, name: str, tips: Sequence[str] = ()) -> None:
        """State what an artist shows; `tips` are of its points, in their order."""
        group = f"of-{len(self.marks)}"
        artist.set_gid(group)
        self.marks[group] = Mark(name, tuple(tips))


def looks(configurations: Sequence[str]) -> dict[str, Look]:
    """A look for each configuration; beyond eight, colours repeat with other markers."""
    found = {}
    for position, name in enumerate(configurations):
        turn, place = divmod(position, len(COLOURS))
        other = (place + turn) % len(MARKERS)
        found[name] = Look(COLOURS[place], MARKERS[other], HATCHES[other])
    return found


def figure(
    rows: int, columns: int, height: float, legend_rows: int = 0
) -> tuple[Drawing, list[Axes]]:
    """A figure of equal panels, row by row; `height` is of one panel in inches, margins apart."""
    top, bottom, gap = 0.3 + 0.2 * legend_rows, 0.5, 0.75
    tall = top + bottom + rows * height + (rows - 1) * gap
    made = Drawing(WIDTH, tall)
    axes = made.subplots(rows, columns, squeeze=False)
    made.subplots_adjust(
        left=0.125,
        right=0.985,
        top=1 - top / tall,
        bottom=bottom / tall,
        hspace=gap / height,
        wspace=0.22,
    )
    return made, list(axes.flat)


def points(
    made: Drawing,
    axis: Axes,
    name: str,
    look: Look,
    where: tuple[Any, Any],
    *,
    x_bars: Any = None,
    y_bars: Any = None,
    tips: Sequence[str] = (),
) -> None:
    """Points of one configuration with error bars, as distances below and above the point."""
    drawn = axis.errorbar(
        *where, xerr=x_bars, yerr=y_bars, color=look.colour, marker=look.marker, ms=5, ls="",
        capsize=2.5, lw=1.1,
    )  # fmt: skip
    line, caps, bars = drawn.lines
    made.mark(line, name, tips)
    for artist in (*caps, *bars):
        made.mark(artist, name)


def legend(
    made: Figure, names: Sequence[str], styles: dict[str, Look], *, filled: bool = False
) -> None:
    """The configurations above all panels, as points or as filled bars."""
    handles = [
        Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white", label=label(name))
        if filled
        else Line2D([], [], color=look.colour, marker=look.marker, ls="", label=label(name))
        for name, look in ((name, styles[name]) for name in names)
    ]
    made.legend(handles=handles, loc="upper center", ncols=_columns(names))


def label(name: str) -> str:
    """A name as figures show it; matplotlib omits names with a leading _ from a legend."""
    text = one_line(name)
    return f" {text}" if text.startswith("_") else text


def legend_rows(names: Sequence[str]) -> int:
    """How many rows a legend of these names takes."""
    return -(-len(names) // _columns(names))


def _columns(names: Sequence[str]) -> int:
    """As many names side by side as fit, at about 0.07 in a character."""
    return max(1, min(len(names), int(WIDTH / (0.4 + 0.07 * max(map(len, names))))))


def save(made: Drawing, directory: Path, name: str, book: PdfPages) -> list[Path]:
    """The figure as `directory`/`name`.svg and .png, and as the next page of `book`."""
    book.savefig(made)  # type: ignore[no-untyped-call]
    paths = []
    for kind, options in _FORMATS.items():
        drawn = io.BytesIO()
        made.savefig(drawn, format=kind, **options)
        paths.append(files.write(directory / f"{name}.{kind}", drawn.getvalue()))
    return paths


@contextmanager
def styled() -> Iterator[None]:
    """The context in which every figure is drawn and saved, independent of the environment."""
    with uncollected(), alone(), mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)  # type: ignore[arg-type] # the stub lists every key
        yield
