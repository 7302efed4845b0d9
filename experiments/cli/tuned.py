"""The answer of a tuning on the terminal, as JSON, and as a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from experiments.cli.terminal import complain, note, out, pasted, say, show, show_json

if TYPE_CHECKING:
    from analysis.report.grid import Table
    from experiments.run.tuned import Tuned


def is_tuning(directory: Path) -> bool:
    from experiments.run.tune_state import FILE

    return (directory / FILE).exists()


def conclude_tuning(
    directory: Path, given: Sequence[str], json: bool, then: Callable[[Path], None] | None
) -> None:
    """The answer of a tuning that is kept in a directory; `given` are options of a sweep's report."""
    from experiments.run.tuned import CONFIRMATION, Tuned
    from infra.errors import InvalidInput

    if given:
        raise InvalidInput(
            f"report: {directory} is a tuning, whose metric and limits are its own: leave out "
            f"{', '.join(given)}, or report {directory / CONFIRMATION}"
        )
    if not conclude(Tuned.read(directory), json=json, then=then):
        raise typer.Exit(1)


def conclude(job: Tuned, *, json: bool = False, then: Callable[[Path], None] | None = None) -> bool:
    """Print the answer so far and write its report; `then` gets the page. False: a record is damaged."""
    from analysis.report import answer as answers
    from experiments.run import tune_answer

    found = tune_answer.document(job, pasted)
    page = tune_answer.page(job, found, pasted)
    if json:
        show_json({**found, "report": str(page.html) if page else None})
    else:
        for sentence in tune_answer.sentences(found):
            say(sentence)
    if page is None:
        return True
    if not json:
        if page.answer.tradeoff:
            _table(page.answer.tradeoff)
        show(answers.block(page.answer.commands, out.width))
        if found["recommended"]["settings"]:
            show(f"\n{tune_answer.as_yaml(found)}")
        _table(page.race)
        note(f"report: {page.html}")
    for fault in page.faults:
        complain(str(fault))
    if then:
        then(page.html)
    return not page.faults


def _table(table: Table) -> None:
    """The first rows of a table."""
    from analysis.report import grid
    from analysis.report.cells import MOST_ROWS

    show("")
    show(grid.aligned(dataclasses.replace(table, rows=table.rows[:MOST_ROWS]), out.width))
    left = len(table.rows) - MOST_ROWS
    if left > 0:
        show(f"{left} more rows are in report.md")
    show("")
