"""A history as a table for the terminal, as CSV, and as a figure."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis import files
from analysis.history import Course, History, Row
from analysis.plots import history as plots
from analysis.plots.library import PdfPages
from analysis.plots.style import save, styled
from analysis.report.grid import DASH, Column, aligned, table
from analysis.report.pages import spreadsheet
from analysis.verdict import bounds, decimals, estimate, p_value

# Rows that a figure shows: its height in pixels has a limit, and so has a reader.
MOST_DRAWN = 240


def text_table(history: History, width: int | None = None) -> str:
    """A row for each configuration and sweep; where `width` is too small, columns are left out."""

    def of(text: Callable[[Row], str]) -> Callable[[tuple[Course, Row]], str]:
        return lambda item: text(item[1]) or DASH

    def ratio(row: Row) -> str:
        effect = row.contrast.effect
        return "" if effect.estimate is None else estimate(effect, decimals(effect, history.metric))

    def interval(row: Row) -> str:
        return bounds(row.contrast.effect, decimals(row.contrast.effect, history.metric))

    def verdict(row: Row) -> str:
        one = row.contrast
        return f"{one.verdict}: {one.doubt}" if one.doubt else one.verdict

    items = [(course, row) for course in history.courses for row in course.rows]
    several = len({course.configuration for course in history.courses}) > 1
    return aligned(
        table(
            items,
            Column("configuration", lambda item: item[0].configuration, False, 18 * several),
            Column("replicas", lambda item: str(item[0].replicas), rank=7),
            Column("path", lambda item: item[0].path, False, 1),
            Column("date", of(lambda row: row.date), False, 19),
            Column("sweep", of(lambda row: row.sweep), False, 16),
            Column("kernel", of(lambda row: row.kernel), False, 8),
            Column("machine", of(lambda row: row.machine), False, 3),
            Column("runs", of(lambda row: str(row.contrast.effect.n_b)), rank=2),
            Column(history.metric.scale, of(ratio), rank=20),
            Column("95 % CI", of(interval), rank=17),
            Column("p Holm", of(lambda row: p_value(row.contrast.p_holm)), rank=6),
            Column("verdict", of(verdict), False, 15),
            Column("changed", of(lambda row: ", ".join(row.conditions)), False, 14),
        ),
        width,
    )


def write(history: History, directory: Path) -> list[Path]:
    """Write history.csv, history.svg and history.png into `directory`; nothing is drawn for too many rows."""
    directory = files.folder(directory.resolve())
    rows = history.rows()
    csv = files.write(directory / "history.csv", spreadsheet(pd.DataFrame(rows)))
    if len(rows) > MOST_DRAWN:
        return [csv]
    with styled(), PdfPages(io.BytesIO()) as book:
        return [csv, *save(plots.courses(history), directory, "history", book)]
