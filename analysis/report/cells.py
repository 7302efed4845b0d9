"""The tables of a summary as text cells, the same for terminal, Markdown and HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from markupsafe import Markup

from analysis.carryover import Shift
from analysis.cell_summary import CellSummary
from analysis.metrics import METRICS, Metric
from analysis.plaintext import one_line, visible
from analysis.statistics import Effect
from analysis.summary import Summary
from analysis.tradeoff import Row, Tradeoff
from analysis.verdict import (
    Contrast,
    bounds,
    decimals,
    detectable,
    digits,
    estimate,
    p_value,
)

DASH = "–"
_FEWEST_COLUMNS = 3
# Columns below this rank are left out before texts are shortened to a readable length.
_MAJOR = 10
_READABLE = 17
# The rank of a column that a phone does not show.
MINOR = 0
_SHORTEST = 8
_MOST_ROWS = 8


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


_CONFIGURATION = Column("configuration", lambda one: one.configuration, False, 20)
_REPLICAS = Column("replicas", lambda one: str(one.replicas), rank=19)
_PATH = Column("path", lambda one: one.path, False)
_LAG1 = Column("lag-1", lambda one: fixed(one.lag1, 2))


def of_largest(summary: Summary) -> list[CellSummary]:
    """The states, or where they are more than a screen has room for, those of the most pairs."""
    if len(summary.states) <= _MOST_ROWS:
        return summary.states
    path, replicas = max(
        ((one.path, one.replicas) for one in summary.states),
        key=lambda one: (one[0] == "overlay", one[1]),
    )
    return [one for one in summary.states if (one.path, one.replicas) == (path, replicas)]


def states(summary: Summary, shown: Sequence[CellSummary] | None = None) -> Table:
    """One row a state, with its comparison to the baseline; `shown` are some of them."""
    metric = summary.metric
    several = len({one.path for one in summary.states}) > 1
    compared = {id(one): summary.contrast(one) for one in summary.states}

    def of_effect(text: Callable[[Contrast], str]) -> Callable[[CellSummary], str]:
        def cell(state: CellSummary) -> str:
            contrast = compared[id(state)]
            return DASH if contrast is None else text(contrast)

        return cell

    def value(state: CellSummary) -> str:
        text = fixed(state.value, metric.digits)
        return text if state.half is None else f"{text} ± {digits(state.half, metric.digits)}"

    def effect(state: CellSummary) -> str:
        if state.configuration == summary.baseline and metric.scale == "ratio":
            return "1"
        return of_effect(lambda one: _estimate(one.effect, metric))(state)

    def note(state: CellSummary) -> str:
        contrast = compared[id(state)]
        notes = [_verdict(contrast)] if contrast else []
        if state.invalid:
            notes.append(f"{state.invalid} of {state.runs + state.invalid} attempts invalid")
        return "; ".join(notes)

    return table(
        summary.states if shown is None else shown,
        _CONFIGURATION,
        _REPLICAS,
        replace(_PATH, rank=16 if several else 0),
        Column("runs", lambda one: str(one.runs), rank=6),
        Column(metric.unit, value, rank=12),
        Column(metric.scale, effect, rank=18),
        Column(_level(summary), of_effect(lambda one: _interval(one.effect, metric)), rank=14),
        Column("p Holm", of_effect(lambda one: p_value(one.p_holm)), rank=8),
        Column("MDE", of_effect(lambda one: detectable(one.effect, metric)), rank=4),
        Column("soft % busiest", lambda one: fixed(one.soft_busiest, 1), rank=3),
        Column("idle % mean", lambda one: fixed(one.means["idle_percent"], 1), rank=2),
        Column("note", note, False, 17),
    )


def measured(tradeoff: Tradeoff) -> list[Metric]:
    """The metrics to show in which something was compared."""
    return [one for one in tradeoff.metrics if any(one.name in r.contrasts for r in tradeoff.rows)]


def tradeoffs(summary: Summary) -> Table:
    """One row a state: its effect in every metric, and the limits; no rows with one metric."""
    metrics = measured(summary.tradeoff)
    several = len(metrics) > 1 or summary.tradeoff.limits

    def marked(row: Row, metric: Metric) -> str:
        one = row.contrasts.get(metric.name)
        mark = one.verdict if one and one.verdict != "no significant difference" else ""
        return f"{interval(row, metric)} {mark}".rstrip()

    return table(
        [row for row in summary.tradeoff.rows if row.contrasts] if several else [],
        _CONFIGURATION,
        _REPLICAS,
        _PATH,
        *(Column(metric.title, partial(marked, metric=metric)) for metric in metrics),
        *(
            Column(str(limit), lambda row, at=place: row.limits[at].standing, False)  # type: ignore[misc]
            for place, limit in enumerate(summary.tradeoff.limits)
        ),
    )


def interval(row: Row, metric: Metric) -> str:
    """1.36x [1.35, 1.38], the effect of a configuration in a metric."""
    one = row.contrasts.get(metric.name)
    if one is None:
        return DASH
    places = decimals(one.effect, metric)
    return f"{_estimate(one.effect, metric)} {bounds(one.effect, places)}".rstrip()


def others(summary: Summary) -> Table:
    """One row a state: its means in every other metric that was measured."""
    return table(
        (one for one in summary.states if one.runs),
        _CONFIGURATION,
        _REPLICAS,
        _PATH,
        *(
            Column(metric.heading, lambda one, m=metric: fixed(one.means[m.name], m.digits))  # type: ignore[misc]
            for metric in METRICS.values()
            if metric != summary.metric
            and any(one.means[metric.name] is not None for one in summary.states)
        ),
    )


def contrasts(summary: Summary, which: Sequence[Contrast]) -> Table:
    """One row a comparison, with everything that its verdict rests on."""
    return table(
        which,
        Column("configuration", lambda one: one.b, False),
        Column("against", lambda one: one.a, False),
        _REPLICAS,
        _PATH,
        *_effect(summary),
        Column("p", lambda one: p_value(one.effect.p)),
        Column("p Holm", lambda one: p_value(one.p_holm)),
        Column("MDE", lambda one: detectable(one.effect, summary.metric)),
        Column("lag-1", lambda one: fixed(one.effect.lag1, 2)),
        Column("verdict", _verdict, False),
    )


def paths(summary: Summary) -> Table:
    """One row a state that was run both over the overlay and over the host network."""
    note = Column("note", lambda one: one.effect.problem or one.doubt or DASH, False)
    return table(summary.paths, _CONFIGURATION, _REPLICAS, *_effect(summary), note)


def validity(summary: Summary) -> Table:
    """One row a state: spread over its run order."""
    return table(
        summary.states,
        _CONFIGURATION,
        _REPLICAS,
        _PATH,
        Column("valid runs", lambda one: str(one.runs)),
        Column("invalid", lambda one: str(one.invalid)),
        _LAG1,
        Column(
            "drift first to last",
            lambda one: DASH if one.drift.change is None else f"{one.drift.change:+.0%}",
        ),
        Column("p Holm", lambda one: p_value(one.drift_p_holm)),
    )


def checks(summary: Summary) -> Table:
    """One row a state of switchback and metric: the windows after it, and its ratio in each half."""
    found = summary.switchback

    def of(shifts: Sequence[Shift], text: Callable[[Any], str]) -> Callable[[_Checked], str]:
        rows = (_Checked(one.path, one.replicas, one.configuration, one.metric) for one in shifts)
        texts = dict(zip(rows, map(text, shifts), strict=True))
        return lambda row: texts.get(row, DASH)

    after, moved = (found.carryover, found.movements) if found else ([], [])
    return table(
        [
            _Checked(one.path, one.replicas, one.configuration, metric)
            for metric in (found.metrics if found else ())
            for one in summary.states
        ],
        _CONFIGURATION,
        _REPLICAS,
        _PATH,
        Column("metric", lambda one: METRICS[one.metric].title, False),
        Column("windows after it", of(after, lambda one: fixed(one.estimate, 3))),
        Column(_level(summary), of(after, _bounds)),
        Column("first half", of(moved, lambda one: fixed(one.first, 3))),
        Column("second half", of(moved, lambda one: fixed(one.second, 3))),
        Column("second / first", of(moved, lambda one: fixed(one.estimate, 3))),
        Column(_level(summary), of(moved, _bounds)),
    )


class _Checked(NamedTuple):
    """A row of the checks of switchback."""

    path: str
    replicas: int
    configuration: str
    metric: str


def _bounds(one: Shift) -> str:
    return f"[{fixed(one.low, 3)}, {fixed(one.high, 3)}]"


def invalid(summary: Summary) -> Table:
    """One row an invalid attempt."""
    return table(
        summary.invalid,
        _CONFIGURATION,
        _REPLICAS,
        _PATH,
        Column("block", lambda one: DASH if one.block is None else str(one.block)),
        Column("attempt", lambda one: str(one.attempt)),
        Column("reason", lambda one: one.reasons, False),
    )


def _effect(summary: Summary) -> tuple[Column, ...]:
    """The columns of an effect and its interval."""
    metric = summary.metric

    def runs(one: Contrast) -> str:
        effect = one.effect
        count = f"{effect.n_b}" if effect.n_a == effect.n_b else f"{effect.n_a}/{effect.n_b}"
        return f"{count} {effect.method}"

    def median(one: Contrast) -> str:
        return _estimate(replace(one.effect, estimate=one.effect.median), metric)

    def bootstrap(one: Contrast) -> str:
        low, high = one.effect.check or (None, None)
        return _interval(replace(one.effect, low=low, high=high), metric)

    return (
        Column("runs", runs, False),
        Column(metric.scale, lambda one: _estimate(one.effect, metric)),
        Column(_level(summary), lambda one: _interval(one.effect, metric)),
        Column("median", median),
        Column("bootstrap", bootstrap),
    )


def _estimate(effect: Effect, metric: Metric) -> str:
    return DASH if effect.estimate is None else estimate(effect, decimals(effect, metric))


def _interval(effect: Effect, metric: Metric) -> str:
    return bounds(effect, decimals(effect, metric)) or DASH


def _verdict(contrast: Contrast) -> str:
    return f"{contrast.verdict}: {contrast.doubt}" if contrast.doubt else contrast.verdict


def _level(summary: Summary) -> str:
    return f"{summary.confidence * 100:g} % CI"


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


def text_table(summary: Summary, width: int | None = None) -> str:
    """The states as a plain text table; unknown values are dashes.

    Where `width` is too small, the least important columns are left out.
    """
    return aligned(states(summary), width)
