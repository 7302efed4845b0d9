"""Commands on the published study: `import` and `published`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli import terminal
from experiments.cli.results import complain_all
from experiments.cli.stacks import Json
from experiments.cli.terminal import show, show_json


def register(app: typer.Typer) -> None:
    terminal.register(app, import_, "import")
    terminal.register(app, published)


def import_(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory with files <configuration>-<n>.txt.")
    ],
    out: Annotated[Path, typer.Option(help="Results directory to write.")],
    duration: Annotated[float, typer.Option(min=0.1, help="Duration of a run, seconds.")] = 30.0,
) -> None:
    """Convert the raw text of the study into run records.

    \b
    ./steerlab import raw-text --out results/study && ./steerlab report results/study
    """
    from analysis.study.published import import_study, write_records
    from infra.errors import InvalidInput

    if not directory.is_dir():
        raise InvalidInput(f"import: there is no directory {directory}")
    loaded = import_study(directory, duration=duration)
    complain_all(loaded.faults)
    if not loaded.records:
        raise InvalidInput(f"import: {directory} contains no run")
    try:
        written = write_records(loaded, out)
    except FileExistsError as error:
        raise InvalidInput(f"out: {error}") from None
    show(f"{len(written)} records in {out}")
    if loaded.faults:
        raise typer.Exit(1)


def published(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory with the raw text and finalized_*.csv.")
    ],
    baseline: Annotated[str, typer.Option(help="The configuration to compare with.")] = "baseline",
    json: Json = False,
) -> None:
    """Check the tables of the study, cell by cell, against its raw text."""
    from analysis.study.published import reanalyse
    from infra.errors import InvalidInput

    if not directory.is_dir():
        raise InvalidInput(f"published: there is no directory {directory}")
    answer = reanalyse(directory, baseline=baseline)
    if json:
        show_json(answer.to_json())
    else:
        show(answer.text())
    if answer.faults:
        raise typer.Exit(1)
