"""`history`: the same configurations over several results directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli import terminal
from experiments.cli.results import (
    At,
    Baseline,
    MetricName,
    baseline_of,
    metric_of,
    read_results,
    require_measured,
)
from experiments.cli.stacks import Json
from experiments.cli.terminal import note, say, show, show_json


def register(app: typer.Typer) -> None:
    terminal.register(app, history)


def history(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Results directories, in any order.")
    ],
    configurations: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Separated by commas. Default: all that every directory has."
        ),
    ] = "",
    at: At = None,
    metric: MetricName = "",
    baseline: Baseline = "",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to write table and plot. Default: results/history."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """The same configurations over several sweeps: kernels, nodes, dates.

    Each sweep is compared with its own baseline. Rows are sorted by date, and have the conditions that
    differ from those of the row before.

    \b
    ./steerlab history results/before results/after --configurations rfs
    """
    from analysis.compare import NothingToCompare
    from analysis.history import Results
    from analysis.history import history as gathered
    from analysis.report.history import MOST_DRAWN, text_table, write
    from experiments.engines import stacks
    from infra.errors import InvalidInput

    wanted = metric_of(metric)
    loaded = [read_results(directory) for directory in directories]
    for directory, (one, _) in zip(directories, loaded, strict=True):
        require_measured("metric", [wanted] if wanted else [], directory, one.records)
    results = [
        Results(str(directory), one.records, baseline_of(baseline, plan))
        for directory, (one, plan) in zip(directories, loaded, strict=True)
    ]
    names = [name.strip() for name in configurations.split(",") if name.strip()]
    try:
        found = gathered(results, configurations=names, at=at, metric=wanted)
    except NothingToCompare as error:
        raise InvalidInput(f"history: {error}") from None
    if not json:
        show(text_table(found, terminal.out.width))
        show("")
        for course in found.courses:
            say(course.sentence(found.metric))
        for change in dict.fromkeys(
            f"{row.sweep}: {one}"
            for course in found.courses
            for row in course.rows
            for one in row.changed
        ):
            note(f"changed in {change}")
    files = write(found, out or stacks.ROOT / "results" / "history")
    if json:
        show_json({**found.to_json(), "files": [str(file) for file in files]})
    elif len(files) > 1:
        note(f"table and plot: {', '.join(map(str, files))}")
    else:
        note(f"table: {files[0]}")
        note(f"more than {MOST_DRAWN} rows are not drawn: choose with --configurations")
    if any(one.faults for one, _ in loaded):
        raise typer.Exit(1)
