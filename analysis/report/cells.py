"""The tables of a summary as text cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from analysis.carryover import Shift
from analysis.cell_summary import CellSummary
from analysis.metrics import METRICS, Metric
from analysis.nodes import NodeCell
from analysis.report.grid import DASH, Column, Table, aligned, fixed, table
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

# Rows that a screen has room for.
MOST_ROWS = 8
_CONFIGURATION = Column("configuration", lambda one: one.configuration, False, 20)
_REPLICAS = Column("replicas", lambda one: str(one.replicas), rank=19)
_PATH = Column("path", lambda one: one.path, False)
_LAG1 = Column("lag-1", lambda one: fixed(one.lag1, 2))


def of_largest(summary: Summary) -> list[CellSummary]:
    """The states, or where they are more than a screen has room for, those of the most pairs."""
    if len(summary.states) <= MOST_ROWS:
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


def nodes(summary: Summary) -> Table:
    """One row a state and server node; no rows where there is one server node."""
    metric = summary.metric

    def of(text: Callable[[Contrast], str]) -> Callable[[NodeCell], str]:
        return lambda one: text(one.contrast) if one.contrast else DASH

    return table(
        summary.nodes,
        _CONFIGURATION,
        Column("server node", lambda one: one.node, False, 20),
        _REPLICAS,
        replace(_PATH, rank=6),
        Column("pairs here", lambda one: str(one.pairs), rank=8),
        Column("runs", lambda one: str(one.runs), rank=4),
        Column(metric.unit, lambda one: fixed(one.value, metric.digits), rank=12),
        Column(metric.scale, of(lambda one: _estimate(one.effect, metric)), rank=18),
        Column(_level(summary), of(lambda one: _interval(one.effect, metric)), rank=14),
        Column("p Holm", of(lambda one: p_value(one.p_holm)), rank=10),
        Column("note", of(_verdict), False, 17),
    )


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


def text_table(summary: Summary, width: int | None = None) -> str:
    """The states as a plain text table; unknown values are dashes.

    Where `width` is too small, the least important columns are left out.
    """
    return aligned(states(summary), width)
