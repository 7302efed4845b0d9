"""The tables of a summary as text cells, the same for terminal, Markdown and HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from analysis.cell_summary import CellSummary
from analysis.metrics import METRICS
from analysis.plaintext import one_line, visible
from analysis.statistics import Effect
from analysis.summary import Summary
from analysis.verdict import (
    Contrast,
    bounds,
    detectable,
    digits,
    estimate,
    number,
    p_value,
)

DASH = "–"
_FEWEST_COLUMNS = 3
# Columns below this rank are left out before a text is cut to what is still readable.
_MAJOR = 10
_READABLE = 17
_SHORTEST = 8


@dataclass(frozen=True)
class Column:
    """A column's heading, whether it aligns right, and its rank: the lowest is left out first."""

    name: str
    numeric: bool = True
    rank: int = 5


@dataclass(frozen=True)
class Table:
    """A heading row and rows of as many texts; `numeric` tells which columns align right.

    `ranks` order the columns where not all fit: the lowest goes first. Empty: all are alike.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    ranks: tuple[int, ...] = ()


def states(summary: Summary) -> Table:
    """One row a state, with its comparison to the baseline."""
    several = len({one.path for one in summary.states}) > 1
    return _table(
        (Column("configuration", False, 20), Column("replicas", rank=19),
         Column("path", False, 16 if several else 0), Column("runs", rank=6),
         Column(summary.metric.unit, rank=12), Column(summary.metric.scale, rank=18),
         Column(_level(summary), rank=14), Column("p Holm", rank=8), Column("MDE", rank=4),
         Column("soft % busiest", rank=3), Column("idle % mean", rank=2),
         Column("note", False, 17)),
        [_state(summary, state) for state in summary.states],
    )  # fmt: skip


def others(summary: Summary) -> Table:
    """One row a state: its means in every other metric."""
    metrics = [one for one in METRICS.values() if one != summary.metric]
    rows = [
        (one.configuration, str(one.replicas), one.path,
         *(fixed(one.means[metric.name], metric.digits) for metric in metrics))
        for one in summary.states
        if one.runs
    ]  # fmt: skip
    return _table(
        (Column("configuration", False), Column("replicas"), Column("path", False),
         *(Column(metric.heading) for metric in metrics)),
        rows,
    )  # fmt: skip


def contrasts(summary: Summary, which: Sequence[Contrast]) -> Table:
    """One row a comparison, with everything that its verdict rests on."""
    rows = [
        (one.b, one.a, str(one.replicas), one.path, *_effect(one.effect), p_value(one.effect.p),
         p_value(one.p_holm), _detectable(summary, one.effect), fixed(one.effect.lag1, 2),
         _verdict(one))
        for one in which
    ]  # fmt: skip
    return _table(
        (Column("configuration", False), Column("against", False), Column("replicas"), Column("path", False),
         *_effect_head(summary), Column("p"), Column("p Holm"), Column("MDE"), Column("lag-1"),
         Column("verdict", False)),
        rows,
    )  # fmt: skip


def paths(summary: Summary) -> Table:
    """One row a state that was run both over the overlay and over the host network."""
    rows = [
        (
            one.configuration,
            str(one.replicas),
            *_effect(one.effect),
            one.effect.problem or one.doubt or DASH,
        )
        for one in summary.paths
    ]
    return _table(
        (
            Column("configuration", False),
            Column("replicas"),
            *_effect_head(summary),
            Column("note", False),
        ),
        rows,
    )


def dependence(summary: Summary) -> Table:
    """One row a state: spread over its run order."""
    rows = [
        (one.configuration, str(one.replicas), one.path, str(one.runs), str(one.invalid),
         fixed(one.lag1, 2),
         DASH if one.drift.change is None else f"{one.drift.change:+.0%}",
         p_value(one.drift_p_holm))
        for one in summary.states
    ]  # fmt: skip
    return _table(
        (Column("configuration", False), Column("replicas"), Column("path", False), Column("valid runs"),
         Column("invalid"), Column("lag-1"), Column("drift first to last"), Column("p Holm")),
        rows,
    )  # fmt: skip


def invalid(summary: Summary) -> Table:
    """One row an invalid run."""
    rows = [
        (one.configuration, str(one.replicas), one.path,
         DASH if one.block is None else str(one.block), str(one.attempt), one.reasons)
        for one in summary.invalid
    ]  # fmt: skip
    return _table(
        (Column("configuration", False), Column("replicas"), Column("path", False), Column("block"),
         Column("attempt"), Column("why it does not count", False)),
        rows,
    )  # fmt: skip


def aligned(table: Table, width: int | None = None) -> str:
    """Plain text in columns.

    Where it is wider than `width`, minor columns are left out, then long texts are cut, then more
    columns are left out, the lowest rank first, until three remain; a number is never cut.
    """
    kept = list(range(len(table.head)))
    widths = [max(len(line[i]) for line in [table.head, *table.rows]) for i in kept]
    if width is not None:
        ranks = table.ranks or (0,) * len(kept)
        for rank, shortest in ((_MAJOR, _READABLE), (math.inf, _SHORTEST)):
            _leave_out(kept, widths, width, ranks, below=rank)
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
    """What a Markdown template shows: text is text, and only `Markup` is Markdown."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _LINE_START.sub(r"\\\1", _escaped(value))


def fenced(text: str) -> Markup:
    """A block of code; no line of the text ends it."""
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return Markup(f"{fence}\n{visible(text)}\n{fence}")  # noqa: S704 (code, no markup)


# What Markdown would take for emphasis, code, a link, a cell's end, a tag or an entity.
_MARKS = re.compile(r"[\\`*|~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])[(\[:]|(?<=!)\[")
_LINE_START = re.compile(r"^([#>+=-])")


def _escaped(text: str) -> str:
    text = re.sub(r"&(?=#|\w+;)", "&amp;", one_line(text)).replace("<", "&lt;")
    return _MARKS.sub(lambda match: f"\\{match[0]}", text)


def fixed(value: float | None, places: int) -> str:
    """A number with this many decimals, or a dash."""
    return DASH if value is None else digits(value, places)


def _state(summary: Summary, state: CellSummary) -> tuple[str, ...]:
    contrast, metric = summary.contrast(state), summary.metric
    value = fixed(state.value, metric.digits)
    if state.half is not None:
        value += f" ± {digits(state.half, metric.digits)}"
    notes = []
    is_baseline = state.configuration == summary.baseline
    compared = ("1" if is_baseline and metric.scale == "ratio" else DASH, DASH, DASH, DASH)
    if contrast:
        effect = contrast.effect
        compared = (
            _estimate(effect), bounds(effect) or DASH, p_value(contrast.p_holm),
            _detectable(summary, effect),
        )  # fmt: skip
        notes.append(_verdict(contrast))
    if state.invalid:
        notes.append(f"{state.invalid} of {state.runs + state.invalid} attempts invalid")
    return (
        state.configuration,
        str(state.replicas),
        state.path,
        str(state.runs),
        value,
        *compared,
        fixed(state.soft_busiest, 1),
        fixed(state.means["idle_percent"], 1),
        "; ".join(notes),
    )


def _estimate(effect: Effect) -> str:
    return DASH if effect.estimate is None else estimate(effect)


def _detectable(summary: Summary, effect: Effect) -> str:
    return DASH if effect.mde is None else detectable(effect, summary.metric)


def _verdict(contrast: Contrast) -> str:
    return f"{contrast.verdict}: {contrast.doubt}" if contrast.doubt else contrast.verdict


def _effect(effect: Effect) -> tuple[str, ...]:
    runs = str(effect.n_b) if effect.n_a == effect.n_b else f"{effect.n_a}/{effect.n_b}"
    check = replace(effect, low=effect.check[0], high=effect.check[1]) if effect.check else None
    return (
        f"{runs} {effect.method}",
        _estimate(effect),
        bounds(effect) or DASH,
        DASH if effect.median is None else number(effect, effect.median),
        bounds(check) if check else DASH,
    )


def _effect_head(summary: Summary) -> tuple[Column, ...]:
    return (Column("runs", False), Column(summary.metric.scale), Column(_level(summary)),
            Column("median"), Column("bootstrap"))  # fmt: skip


def _level(summary: Summary) -> str:
    return f"{summary.confidence * 100:g} % CI"


def _table(columns: Sequence[Column], rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(
        tuple(one.name for one in columns),
        tuple(rows),
        tuple(one.numeric for one in columns),
        tuple(one.rank for one in columns),
    )


def text_table(summary: Summary, width: int | None = None) -> str:
    """The states as a plain text table, a row each; what is not known is a dash.

    Where `width` is too small, the least important columns are left out.
    """
    return aligned(states(summary), width)
