"""What a report answers first: what to set, what it buys and costs, why, how to undo it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from analysis import paths
from analysis.load import Fault
from analysis.metrics import Metric
from analysis.report.cells import interval, measured
from analysis.report.grid import MINOR, Column, Table, fixed, table
from analysis.summary import Summary
from analysis.tradeoff import Row
from analysis.verdict import joined, where

# More warnings than these are a link, or a note.
MOST_WARNINGS = 2
_TARGETS = {
    "lab": "in a lab on one machine, {form} (on other nodes the effects may be larger or smaller)",
    "kubernetes": "on a Kubernetes cluster",
}


@dataclass(frozen=True)
class Command:
    """A line for a shell, and its purpose in words."""

    purpose: str
    line: str


@dataclass(frozen=True)
class Commands:
    """The commands that set a configuration, with the one that undoes it last; or `reason`, a
    sentence on why there are none."""

    lines: tuple[Command, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """The first screen of a report.

    `sentence` is the recommendation with its interval, `details` what else it buys and costs, in
    sentences, and `tradeoff` the same in figures, None where one metric alone was measured.
    `basis` is what all this rests on. `warnings` are the first caveats and warnings, of each at
    least one, and `more` counts the others.
    `faults` counts the files that were left out.
    """

    sentence: str
    details: Sequence[str]
    tradeoff: Table | None
    why: Sequence[str]
    commands: Commands
    basis: str
    warnings: Sequence[str]
    more: int
    faults: int


def answer(
    summary: Summary, commands: Commands | None = None, faults: Sequence[Fault] = ()
) -> Answer:
    """The answer of these results."""
    metrics = measured(summary.tradeoff)
    rows = _recommended(summary) if len(metrics) > 1 else []
    found = summary.recommendation
    sentence, *details = found.sentences if found else summary.verdict[:1]
    caveats = summary.caveats[: MOST_WARNINGS - bool(summary.warnings)]
    warnings = [*caveats, *summary.warnings[: MOST_WARNINGS - len(caveats)]]
    return Answer(
        sentence=sentence,
        details=details,
        tradeoff=_tradeoff(summary, rows, metrics) if rows else None,
        why=summary.explanation,
        commands=commands or Commands(),
        basis=basis(summary),
        warnings=warnings,
        more=len(summary.caveats) + len(summary.warnings) - len(warnings),
        faults=len(faults),
    )


def chosen(summary: Summary) -> list[str]:
    """The configurations to set: that of all places, or those of the replica counts; none where the
    choice is tentative."""
    found = summary.recommendation
    if found is None or found.tentative:
        return []
    names = [found.configuration or "", *found.by_count.values()]
    return [name for name in dict.fromkeys(names) if name and not summary.sets_nothing(name)]


def _recommended(summary: Summary) -> list[Row]:
    """The rows of what is or would be recommended, at the fewest and the most pairs."""
    found = summary.recommendation
    if found is None:
        return []
    rows = [
        row
        for row in summary.tradeoff.rows
        if row.contrasts and row.configuration == found.named(row.replicas)
    ]
    path = paths.first(row.path for row in rows)
    rows = [row for row in rows if row.path == path]
    counts = sorted(row.replicas for row in rows)
    return [row for row in rows if row.replicas in (counts[0], counts[-1])]


def effects(summary: Summary, name: str) -> Table | None:
    """What one configuration buys and costs, by metric; None where one metric alone was measured."""
    metrics = measured(summary.tradeoff)
    rows = [row for row in summary.tradeoff.rows if row.contrasts and row.configuration == name]
    return _tradeoff(summary, rows, metrics) if rows and len(metrics) > 1 else None


def _tradeoff(summary: Summary, rows: Sequence[Row], metrics: Sequence[Metric]) -> Table:
    """One row a metric: for each place the effect, and the values before and after."""
    several = len({row.configuration for row in rows}) > 1
    columns = [Column("metric", lambda metric: metric.heading, False, 20)]
    for row in rows:
        before = summary.tradeoff.row(row.path, row.replicas, summary.baseline)
        name = f"{where(row.path, row.replicas)}{f', {row.configuration}' * several}"
        columns += [
            Column(name, partial(interval, row), rank=18),
            Column(f"{summary.baseline} → {row.configuration}", partial(_values, before, row),
                   rank=MINOR if len(rows) > 1 else 5),
        ]  # fmt: skip
    return table(metrics, *columns)


def _values(before: Row | None, after: Row, metric: Metric) -> str:
    levels = [row and row.levels.get(metric.name) for row in (before, after)]
    return " → ".join(fixed(one.estimate if one else None, metric.digits) for one in levels)


def basis(summary: Summary) -> str:
    """How much was measured, how and where."""
    valid = summary.runs[summary.runs["valid"]]
    if valid.empty:
        return ""
    configurations = valid["configuration"].nunique()
    places = [
        _TARGETS.get(one, "from imported text").format(form=summary.form)
        for one in sorted(set(valid["target"]))
    ]
    return (
        f"{_count(len(valid), 'valid run')} of {_count(configurations, 'configuration')}, compared by "
        f"{summary.metric.title}, method {summary.method}, "
        f"{joined(places)}. Brackets are {summary.confidence * 100:g} % intervals."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def block(commands: Commands, width: int | None = None) -> str:
    """The commands for a shell, each with its purpose as a comment; or the reason for none.

    The comment is above its command where `width` has no room beside it.
    """
    if commands.reason:
        return commands.reason
    wide = max((len(one.line) for one in commands.lines), default=0)
    beside = [f"{one.line:<{wide}}  # {one.purpose}" for one in commands.lines]
    if width is None or max(map(len, beside), default=0) <= width:
        return "\n".join(beside)
    return "\n".join(f"# {one.purpose}\n{one.line}" for one in commands.lines)
