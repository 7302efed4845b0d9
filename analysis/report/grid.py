"""A table of texts, the same for terminal, Markdown and HTML, and its plain text and Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from analysis.plaintext import one_line, visible
from analysis.verdict import digits

DASH = "–"
_FEWEST_COLUMNS = 3
# Columns below this rank are left out before texts are shortened to a readable length.
_MAJOR = 10
_READABLE = 17
# The rank of a column that a phone does not show.
MINOR = 0
_SHORTEST = 8


@dataclass(frozen=True)
class Column:
    """A heading, the text of a row's cell, and whether it aligns right.

    Where not all columns fit, the one with the lowest rank is left out first.
    """

    name: str
    cell: Callable[[Any], str]
    numeric: bool = True
    rank: int = 5


@dataclass(frozen=True)
class Table:
    """A heading row and rows of as many texts; `numeric` tells which columns align right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    ranks: tuple[int, ...]


def table(items: Iterable[Any], *columns: Column) -> Table:
    """One row for each item."""
    return Table(
        head=tuple(one.name for one in columns),
        rows=tuple(tuple(one.cell(item) for one in columns) for item in items),
        numeric=tuple(one.numeric for one in columns),
        ranks=tuple(one.rank for one in columns),
    )


def aligned(table: Table, width: int | None = None) -> str:
    """Plain text in columns.

    Where it is wider than `width`, minor columns are left out, then long texts are cut, then more
    columns are left out, the lowest rank first, until three remain; a number is never cut.
    """
    kept = list(range(len(table.head)))
    widths = [max(len(line[i]) for line in [table.head, *table.rows]) for i in kept]
    if width is not None:
        for rank, shortest in ((_MAJOR, _READABLE), (math.inf, _SHORTEST)):
            _leave_out(kept, widths, width, table.ranks, below=rank)
            _cut_texts(kept, widths, width, table.numeric, shortest)
    return "\n".join(
        "  ".join(
            line[i].rjust(widths[i])
            if table.numeric[i]
            else _cut(line[i], widths[i]).ljust(widths[i])
            for i in kept
        ).rstrip()
        for line in [table.head, *table.rows]
    )


def _leave_out(
    kept: list[int], widths: Sequence[int], width: int, ranks: Sequence[int], *, below: float
) -> None:
    while len(kept) > _FEWEST_COLUMNS and _wide(kept, widths) > width:
        least = min(kept, key=lambda i: (ranks[i], -i))
        if ranks[least] >= below:
            return
        kept.remove(least)


def _cut_texts(
    kept: Sequence[int], widths: list[int], width: int, numeric: Sequence[bool], shortest: int
) -> None:
    for i in sorted((i for i in kept if not numeric[i]), key=lambda i: -widths[i]):
        over = _wide(kept, widths) - width
        if over > 0 and widths[i] > shortest:
            widths[i] = max(shortest, widths[i] - over)


def _wide(kept: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[i] for i in kept) + 2 * (len(kept) - 1)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def markdown(table: Table) -> Markup:
    """A Markdown table."""
    rule = tuple("--:" if right else "---" for right in table.numeric)
    body = [[_escaped(cell) for cell in row] for row in table.rows]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in [table.head, rule, *body]))  # noqa: S704 (escaped)


def in_markdown(value: object) -> object:
    """A value for a Markdown template: text is escaped, only `Markup` is Markdown."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _LINE_START.sub(r"\\\1", _escaped(value))


def fenced(text: str) -> Markup:
    """A block of code that no line of the text can end."""
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return Markup(f"{fence}\n{visible(text)}\n{fence}")  # noqa: S704 (code, no markup)


# Characters that Markdown reads as emphasis, code, a link, a cell's end, a tag or an entity.
_MARKS = re.compile(r"[\\`*|~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])[(\[:]|(?<=!)\[")
_LINE_START = re.compile(r"^([#>+=-])")


def _escaped(text: str) -> str:
    text = re.sub(r"&(?=#|\w+;)", "&amp;", one_line(text)).replace("<", "&lt;")
    return _MARKS.sub(lambda match: f"\\{match[0]}", text)


def fixed(value: float | None, places: int) -> str:
    """A number with this many decimals, or a dash."""
    return DASH if value is None else digits(value, places)
