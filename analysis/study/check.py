"""Recomputes published cells from the raw text and explains the ones that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from analysis.schema import Record
from analysis.statistics import Floats
from analysis.study.tables import Cell, key
from analysis.tables import problems

Status = Literal["reproduced", "other computation", "not reproduced", "no raw text"]
Matrix = Floats  # runs x pairs (Mbit/s), or runs x 1 (percent)

CONFIDENCE = 0.95
_TELLING_DIGITS = 3


@dataclass(frozen=True)
class Checked:
    """A published cell, its value from the runs (`sound`), and the reason of a difference."""

    cell: Cell
    status: Status
    sound: float | None
    why: str = ""


@dataclass(frozen=True)
class Recipe:
    """A way to compute an interval: the values of a file in their order, cut into rows.

    `width` is the length of a row, 0 for one row for each run; `axis` selects whether the means
    of rows or of columns are the sample; `normal` uses 1.96 instead of Student's t.
    """

    width: int
    axis: Literal["rows", "columns"]
    normal: bool = False

    def half_width(self, values: Matrix) -> float | None:
        """Half-width of the 95 % interval, None where the width does not divide the values."""
        width = self.width or values.shape[1]
        if values.size % width:
            return None
        rows = values.reshape(-1, width)
        sample = rows.mean(axis=1 if self.axis == "rows" else 0)
        if len(sample) < 2:
            return None
        tail = (1 + CONFIDENCE) / 2
        quantile = stats.norm.ppf(tail) if self.normal else stats.t.ppf(tail, len(sample) - 1)
        return float(quantile * stats.sem(sample))

    def __str__(self) -> str:
        rows = "one row per run" if self.width == 0 else f"rows of {self.width}"
        quantile = "a normal" if self.normal else "a t"
        return f"cut into {rows}, averaged over {self.axis}, with {quantile} interval"


SOUND = Recipe(0, "rows")


class Raw:
    """The raw values of a study by configuration key, replicas, and field or core."""

    def __init__(self, records: Iterable[Record], baseline: str) -> None:
        grouped: dict[tuple[tuple[str, ...], int], list[Record]] = {}
        for record in records:
            if not problems(record):
                grouped.setdefault((key(record.configuration), record.replicas), []).append(record)
        self._records = grouped
        self._baseline = key(baseline)

    def values(self, cell: Cell) -> Matrix | None:
        """The values behind the cell, in its unit; None where there is no raw text."""
        records = self._records.get((key(cell.label), cell.replicas))
        if not records:
            return None
        if cell.core is not None:
            found = [
                getattr(core, cell.field, None)
                for record in records
                for core in record.cores
                if core.core == cell.core
            ]
            if not found or len(found) != len(records) or None in found:
                return None
            return np.array(found, dtype=float).reshape(-1, 1)
        reference = self._records.get((self._baseline, cell.replicas))
        if not reference:
            return None
        return np.asarray(_bitrates(records) / _bitrates(reference).mean(), dtype=float)


def check(cells: Sequence[Cell], raw: Raw) -> list[Checked]:
    """Each cell in order. A mean is over all values; a sound interval is Student's t over runs."""
    checked = []
    tables = dict.fromkeys(cell.table for cell in cells)
    for table in tables:
        own = [_first(cell, raw) for cell in cells if cell.table == table]
        checked += _explain(own, raw)
    return checked


def _first(cell: Cell, raw: Raw) -> Checked:
    values = raw.values(cell)
    sound = None if values is None else _sound(cell, values)
    if sound is None:
        return Checked(cell, "no raw text", None)
    alike = abs(sound - cell.value) <= cell.tolerance
    return Checked(cell, "reproduced" if alike else "not reproduced", sound)


def _sound(cell: Cell, values: Matrix) -> float | None:
    return float(values.mean()) if cell.kind == "mean" else SOUND.half_width(values)


def _explain(checked: Sequence[Checked], raw: Raw) -> list[Checked]:
    """First the other computation that explains most failures of a table, then shifted rows."""
    failed = [one for one in checked if one.status == "not reproduced"]
    recipe = _best_recipe([one.cell for one in failed], raw)
    explained = [_by_recipe(one, recipe, raw) if recipe else one for one in checked]
    return _by_shift(explained, raw)


def _best_recipe(cells: Sequence[Cell], raw: Raw) -> Recipe | None:
    hits: Counter[Recipe] = Counter()
    for cell in cells:
        values = raw.values(cell)
        if cell.kind == "interval" and values is not None:
            hits.update(one for one in _recipes(values) if _makes(one, cell, values))
    return min(hits, key=lambda one: (-hits[one], one.normal, one.width)) if hits else None


def _recipes(values: Matrix) -> list[Recipe]:
    widths = [0, *(width for width in range(1, values.size + 1) if values.size % width == 0)]
    return [
        Recipe(width, axis, normal)
        for width in widths
        for axis in ("rows", "columns")
        for normal in (False, True)
    ]


def _makes(recipe: Recipe, cell: Cell, values: Matrix) -> bool:
    half = recipe.half_width(values)
    return half is not None and abs(half - cell.value) <= cell.tolerance


def _by_recipe(one: Checked, recipe: Recipe, raw: Raw) -> Checked:
    values = raw.values(one.cell)
    if one.status != "not reproduced" or values is None or not _makes(recipe, one.cell, values):
        return one
    return replace(one, status="other computation", why=f"the values were {recipe}, not by run")


def _by_shift(checked: Sequence[Checked], raw: Raw) -> list[Checked]:
    """Explains cells with another row's number by the number of rows the table is shifted."""
    labels = {one.cell.row: one.cell.label for one in checked}
    found: dict[Cell, int] = {}
    for one in checked:
        digits = one.cell.text.replace(".", "").lstrip("0")
        if one.status == "not reproduced" and len(digits) >= _TELLING_DIGITS:
            nearest = sorted(labels, key=lambda row: abs(row - one.cell.row))
            source = next((row for row in nearest if _holds(one.cell, labels[row], raw)), None)
            if source is not None:
                found[one.cell] = source - one.cell.row
    shifts = Counter(found.values())
    usual = shifts.most_common(1)[0][0] if shifts else 0
    return [_shifted(one, found, usual, labels, raw) for one in checked]


def _shifted(
    one: Checked, found: dict[Cell, int], usual: int, labels: dict[int, str], raw: Raw
) -> Checked:
    if one.status != "not reproduced":
        return one
    if one.cell in found:
        other = labels[one.cell.row + found[one.cell]]
        return replace(one, why=f"has the number of {other}: {_rows(found[one.cell])}")
    neighbour = labels.get(one.cell.row + usual)
    if usual and neighbour and raw.values(replace(one.cell, label=neighbour)) is None:
        return replace(
            one, why=f"may have the number of {neighbour} ({_rows(usual)}), which has no raw text"
        )
    return replace(one, why="no tested computation or row explains it")


def _holds(cell: Cell, label: str, raw: Raw) -> bool:
    values = raw.values(replace(cell, label=label))
    number = None if values is None else _sound(cell, values)
    return number is not None and abs(number - cell.value) <= cell.tolerance


def _rows(shift: int) -> str:
    count = f"{abs(shift)} row" if abs(shift) == 1 else f"{abs(shift)} rows"
    return f"shifted {'up' if shift > 0 else 'down'} by {count}"


def _bitrates(records: Sequence[Record]) -> Matrix:
    return np.array(
        [[pair.values["bitrate_mbps"] for pair in one.pairs] for one in records], dtype=float
    )
