"""Reads the published tables of the study: CSV files of means and intervals, cell by cell."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analysis.load import Fault, leads_out, text_of

Kind = Literal["mean", "interval"]

_NAME = re.compile(r"(finalized|confidence)_(?:bitrate|(\d+)_(\w+))")
_KINDS: dict[str, Kind] = {"finalized": "mean", "confidence": "interval"}


@dataclass(frozen=True)
class Cell:
    """One published number, its place in the table and its subject.

    `label` is the configuration as the table writes it. With `core` None it is a bitrate in
    units of the baseline's mean, otherwise percent of `field` of that core.
    """

    table: str
    row: int
    column: str
    label: str
    replicas: int
    field: str
    core: int | None
    kind: Kind
    text: str

    @property
    def tolerance(self) -> float:
        """Half a unit of the last place that was published, or of the eighth significant digit.

        The tables were made in a spreadsheet from figures that it had itself cut to ten digits.
        """
        decimals = len(self.text.partition(".")[2])
        return max(0.5 * 10.0**-decimals, 0.5e-8 * self.value)

    @property
    def value(self) -> float:
        return float(self.text)


def key(name: str) -> tuple[str, ...]:
    """The common key of the spellings of one configuration: `RPS-7+` is `rps-plus-7`.

    Lower case, a plus sign is the word plus, and the words after the first may be in any order.
    """
    words = re.split(r"[\s_-]+", name.strip().lower().replace("+", "-plus"))
    return (words[0], *sorted(words[1:]))


def read_tables(directory: Path) -> tuple[list[Cell], list[Fault]]:
    """Every cell of `finalized_*.csv` (means) and `confidence_*.csv` (half-widths of intervals).

    `*_bitrate.csv` has a row for each replica count and a column for each configuration,
    `*_<replicas>_<field>.csv` a row for each configuration and a column for each core. A file
    that is not such a table is a fault, with its line, and gives no cells.
    """
    cells: list[Cell] = []
    faults: list[Fault] = []
    for path in sorted(path for path in directory.iterdir() if path.suffix == ".csv"):
        found = leads_out(path, directory) or _read(path)
        if isinstance(found, Fault):
            faults.append(found)
        else:
            cells += found
    return cells, faults


def _read(path: Path) -> list[Cell] | Fault:
    name = _NAME.fullmatch(path.stem)
    if not name:
        return Fault(path, None, "is not named finalized_... or confidence_... like the tables")
    data = text_of(path)
    if isinstance(data, Fault):
        return data
    lines = csv.reader(data.decode("utf-8").splitlines())
    try:
        rows = list(lines)
    except csv.Error as error:
        return Fault(path, lines.line_num, f"is not CSV: {error}")
    if len(rows) < 2:
        return Fault(path, 1, "has no rows")
    cells = []
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            return Fault(path, line, f"has {len(row)} fields, but the heading has {len(rows[0])}")
        for column, text in zip(rows[0][1:], row[1:], strict=True):
            cell = _cell(path.name, name, line - 2, row[0], column, text.strip())
            if isinstance(cell, str):
                return Fault(path, line, cell)
            cells.append(cell)
    return cells


def _cell(
    table: str, name: re.Match[str], row: int, head: str, column: str, text: str
) -> Cell | str:
    """The cell, or the reason why the text is not one."""
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,30})?", text):
        return f"{text[:60]!r} is not a number"
    kind = _KINDS[name[1]]
    number = re.search(r"[0-9]{1,9}", column if name[2] else head)
    if not number:
        return f"{(column if name[2] else head)[:60]!r} has no number"
    if name[2]:
        return Cell(table, row, column, head, int(name[2]), name[3], int(number[0]), kind, text)
    return Cell(table, row, column, column, int(number[0]), "bitrate", None, kind, text)
