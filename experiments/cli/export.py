"""`export`: results in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli import terminal
from experiments.cli.results import ComparedWith, LimitTexts, MetricName, Results, summary_of
from experiments.cli.terminal import note
from experiments.cli.tuned import is_tuning


def register(app: typer.Typer) -> None:
    terminal.register(app, export)


def export(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT", help="benchstat, bencher, github, junit or openmetrics: docs/ci.md."
        ),
    ],
    directory: Results,
    baseline: ComparedWith = "",
    metric: MetricName = "",
    limit: LimitTexts = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write. Default: standard output.")
    ] = None,
) -> None:
    """Results for other programs: benchstat, Bencher, GitHub, test reports, Prometheus.

    Of a tuning, the runs of its confirmation are exported.

    \b
    ./steerlab export junit results/mine --limit bitrate_mbps=-5% --out junit.xml
    """
    from analysis import files
    from analysis.export import EXPORTS
    from analysis.export.contract import NothingToExport
    from experiments.run.tuned import CONFIRMATION
    from infra.errors import InvalidInput

    if form not in EXPORTS:
        raise InvalidInput(f"export: format {form!r} is not one of {', '.join(EXPORTS)}")
    chosen = EXPORTS[form]
    if is_tuning(directory):
        directory = directory / CONFIRMATION
    loaded, _, summary = summary_of(directory, baseline=baseline, metric=metric, limit=limit)
    try:
        text = chosen.text(loaded.records, summary)
    except NothingToExport as error:
        raise InvalidInput(f"export: {directory}: {error}") from None
    if out:
        note(f"written: {files.write(out, text)}")
    else:
        print(text, end="")  # noqa: T201 exact bytes for programs
    if said := chosen.note(summary):
        note(said)
    if loaded.faults:
        raise typer.Exit(1)
