"""The tables of a summary as text cells, the same for terminal, Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from analysis.plaintext import one_line, visible
from analysis.state import State
from analysis.statistics import Effect
from analysis.summary import Summary
from analysis.verdict import Contrast, p_value, percent, reason, times

DASH = "–"


@dataclass(frozen=True)
class Table:
    """A heading row and rows of as many texts; `numeric` tells which columns align right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


def states(summary: Summary) -> Table:
    """One row a state, with its comparison to the baseline."""
    rows = [_state(summary, state) for state in summary.states]
    return _table(
        (("configuration", False), ("replicas", True), ("path", False), ("runs", True),
         ("Mbit/s a pair", True), ("ratio", True), (_level(summary), False), ("p Holm", True),
         ("MDE", True), ("soft % busiest", True), ("idle % mean", True), ("note", False)),
        rows,
    )  # fmt: skip


def contrasts(summary: Summary, which: Sequence[Contrast]) -> Table:
    """One row a comparison, with everything that its verdict rests on."""
    rows = [
        (one.b, one.a, str(one.replicas), one.path, *_effect(one.effect), p_value(one.effect.p),
         p_value(one.p_holm), percent(one.effect.mde), _lag(one.effect), _verdict(one))
        for one in which
    ]  # fmt: skip
    return _table(
        (("configuration", False), ("against", False), ("replicas", True), ("path", False),
         *_effect_head(summary), ("p", True), ("p Holm", True), ("MDE", True), ("lag-1", True),
         ("verdict", False)),
        rows,
    )  # fmt: skip


def paths(summary: Summary) -> Table:
    """One row a state that was run both over the overlay and over the host network."""
    rows = [
        (one.configuration, str(one.replicas), *_effect(one.effect), reason(one.effect) or DASH)
        for one in summary.paths
    ]
    return _table(
        (("configuration", False), ("replicas", True), *_effect_head(summary), ("note", False)),
        rows,
    )


def dependence(summary: Summary) -> Table:
    """One row a state: spread over its run order."""
    rows = [
        (one.configuration, str(one.replicas), one.path, str(one.runs), str(one.invalid),
         number(one.dependence.lag1, 2),
         DASH if one.drift.change is None else f"{one.drift.change:+.0%}",
         p_value(one.drift_p_holm))
        for one in summary.states
    ]  # fmt: skip
    return _table(
        (("configuration", False), ("replicas", True), ("path", False), ("valid runs", True),
         ("invalid", True), ("lag-1", True), ("drift first to last", True), ("p Holm", True)),
        rows,
    )  # fmt: skip


def invalid(summary: Summary) -> Table:
    """One row an invalid run."""
    rows = [
        (one.configuration, str(one.replicas), one.path,
         DASH if one.block is None else str(one.block), one.reasons)
        for one in summary.invalid
    ]  # fmt: skip
    return _table(
        (("configuration", False), ("replicas", True), ("path", False), ("block", True),
         ("why it does not count", False)),
        rows,
    )  # fmt: skip


def aligned(table: Table) -> str:
    """Plain text in columns."""
    lines = [table.head, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, table.numeric, strict=True)
        ).rstrip()
        for line in lines
    )


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


def number(value: float | None, digits: int) -> str:
    """A number with this many decimals, or a dash."""
    return DASH if value is None else f"{value:.{digits}f}"


def _state(summary: Summary, state: State) -> tuple[str, ...]:
    contrast = summary.contrast(state)
    bitrate = DASH if state.bitrate is None else f"{state.bitrate:.0f}"
    if state.half is not None:
        bitrate += f" ± {state.half:.0f}"
    notes = []
    ratio = "1" if state.configuration == summary.baseline else DASH
    bounds, p, mde = DASH, DASH, DASH
    if contrast:
        ratio, bounds = times(contrast.effect.estimate), _bounds(contrast.effect)
        p, mde = p_value(contrast.p_holm), percent(contrast.effect.mde)
        notes.append(_verdict(contrast))
    if state.invalid:
        notes.append(f"{state.invalid} invalid")
    return (
        state.configuration,
        str(state.replicas),
        state.path,
        str(state.runs),
        bitrate,
        ratio,
        bounds,
        p,
        mde,
        number(state.soft_busiest, 1),
        number(state.idle, 1),
        "; ".join(notes),
    )


def _verdict(contrast: Contrast) -> str:
    why = reason(contrast.effect) if contrast.verdict == "not established" else ""
    return f"{contrast.verdict}: {why}" if why else contrast.verdict


def _effect(effect: Effect) -> tuple[str, ...]:
    runs = str(effect.n_b) if effect.n_a == effect.n_b else f"{effect.n_a}/{effect.n_b}"
    check = DASH if effect.check is None else f"[{effect.check[0]:.2f}, {effect.check[1]:.2f}]"
    return (
        f"{runs} {effect.method}",
        times(effect.estimate),
        _bounds(effect),
        times(effect.median) if effect.median is not None else DASH,
        check,
    )


def _effect_head(summary: Summary) -> tuple[tuple[str, bool], ...]:
    return (("runs", False), ("ratio", True), (_level(summary), False), ("median", True),
            ("bootstrap", False))  # fmt: skip


def _bounds(effect: Effect) -> str:
    if effect.low is None or effect.high is None:
        return DASH
    return f"[{effect.low:.2f}, {effect.high:.2f}]"


def _lag(effect: Effect) -> str:
    return number(effect.dependence.lag1, 2)


def _level(summary: Summary) -> str:
    return f"{summary.confidence * 100:g} % CI"


def _table(head: Sequence[tuple[str, bool]], rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(
        tuple(name for name, _ in head), tuple(rows), tuple(numeric for _, numeric in head)
    )
