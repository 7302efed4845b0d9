"""`report`: from records to table, verdict and report; the end of every sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.stacks import Json
from experiments.cli.terminal import complain, note, show, show_json


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's results directory.")],
    baseline: Annotated[str, typer.Option(help="The configuration compared with.")] = "baseline",
    json: Json = False,
) -> None:
    """Analyse records again: table, verdict, plots and one HTML file to send."""
    from infra.refusals import BadInput

    if not directory.is_dir():
        raise BadInput(f"report: there is no directory {directory}")
    conclude(directory, baseline=baseline, json=json)


def conclude(directory: Path, *, baseline: str = "baseline", json: bool = False) -> None:
    """Print table and verdict of a directory of records and write its report."""
    from analysis.load import load
    from analysis.report import write_report
    from analysis.summary import summarise, text_table
    from infra.refusals import BadInput

    loaded = load(directory)
    for fault in loaded.faults:
        line = f", line {fault.line}" if fault.line else ""
        complain(f"{fault.file}{line}: {fault.message}")
    if not loaded.records:
        raise BadInput(f"report: {directory} holds no run record")
    summary = summarise(loaded.records, baseline=baseline)
    files = write_report(
        loaded.records, summary, directory, faults=loaded.faults, reproduce=_reproduce(directory)
    )
    if json:
        show_json({**summary.to_json(), "report": str(files.html)})
    else:
        show(text_table(summary))
        show("")
        for sentence in summary.verdict:
            show(sentence)
        note(f"report: {files.html}")
    if loaded.faults:
        raise typer.Exit(1)


def _reproduce(directory: Path) -> str:
    """The command that measures the same plan again."""
    from experiments.plan import from_json
    from experiments.sweep import PLAN

    path = directory / PLAN
    if not path.exists():
        return f"./steerlab report {directory}"
    plan = from_json(path.read_text())
    return (
        f"./steerlab sweep --configurations {','.join(plan.configurations)}"
        f" --replicas {','.join(map(str, plan.replicas))} --runs {plan.blocks}"
        f" --duration {plan.duration} --omit {plan.omit} --streams {plan.streams}"
        f" --path {','.join(plan.paths)} --seed {plan.seed}"
    )
