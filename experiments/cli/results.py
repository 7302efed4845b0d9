"""Commands on results: `report` and `compare`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli import terminal
from experiments.cli.stacks import Json
from experiments.cli.terminal import complain, note, out, pasted, say, show, show_json
from experiments.cli.tuned import conclude_tuning, is_tuning
from infra.commands import command

if TYPE_CHECKING:
    from analysis.limits import Limit
    from analysis.load import Fault, Loaded
    from analysis.metrics import Metric
    from analysis.report.answer import Answer
    from analysis.schema import Record
    from analysis.summary import Summary
    from experiments.run.plan import SweepPlan


_RESULTS = "give the results directory of a sweep (sweep --out DIR), with records/run-*.json"


def register(app: typer.Typer) -> None:
    terminal.register(app, report)
    terminal.register(app, compare)


Results = Annotated[
    Path, typer.Argument(metavar="DIR", help="Results directory of a sweep or a tuning.")
]
ComparedWith = Annotated[
    str, typer.Option(help="The configuration to compare with. Default: that of the sweep.")
]
MetricName = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="The metric to compare: docs/record.md. Default: bitrate_mbps; p99_us where no run has a "
        "bitrate, or all configurations have the same one within 1 %.",
    ),
]
LimitTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="LIMIT",
        help="Worst value of a metric that is accepted: p99_us=+10% (relative), p99_us=+20 "
        "(difference) or p99_us=200. May be repeated.",
    ),
]


At = Annotated[
    int | None,
    typer.Option("--at", min=1, metavar="REPLICAS", help="Replica count. Default: the largest."),
]
Baseline = Annotated[str, typer.Option(help="Baseline of each sweep. Default: that of the sweep.")]


def report(
    directory: Results,
    baseline: ComparedWith = "",
    metric: MetricName = "",
    limit: LimitTexts = None,
    open_: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
    json: Json = False,
) -> None:
    """Analyse records: recommendation, costs, plots and one self-contained HTML file.

    Without --limit, the limits of the sweep hold. Of a tuning, the page has its answer and its race.

    \b
    ./steerlab report results/mine --limit p99_us=+10% --limit cpu_s_per_gbit=+5%
    """
    then = _open if open_ else None
    if is_tuning(directory):
        given = {"--baseline": baseline, "--metric": metric, "--limit": limit}
        conclude_tuning(directory, [flag for flag, value in given.items() if value], json, then)
        return
    conclude(directory, baseline=baseline, metric=metric, limit=limit, json=json, then=then)


def _open(page: Path) -> None:
    import webbrowser

    from infra.errors import PrerequisiteMissing

    if not webbrowser.open(page.as_uri()):
        raise PrerequisiteMissing(f"open: no browser was found; the report is {page}")


def compare(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Results directory with A and B.")
    ],
    a: Annotated[str, typer.Argument(metavar="A", help="The configuration to compare with.")],
    b: Annotated[
        str, typer.Argument(metavar="B", help="The configuration that may be worse than A.")
    ],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Results directory of B, if it is another."),
    ] = None,
    at: At = None,
    metric: MetricName = "",
    limit: LimitTexts = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare despite different machines or conditions.")
    ] = False,
    baseline: Baseline = "",
    json: Json = False,
) -> None:
    """Is B worse than A? Exit code 4: worse, 5: inconclusive, 0: neither.

    With --limit: does B keep these limits, relative to A? Exit code 4: no, 5: inconclusive, 0: yes.

    \b
    ./steerlab compare results/mine baseline rfs-plus --at 4
    ./steerlab compare results/before rfs rfs --to results/after --force
    ./steerlab compare results/before rfs rfs --to results/after --limit bitrate=-5%
    """
    from analysis.compare import NothingToCompare
    from analysis.compare import compare as judge
    from analysis.limits import InvalidLimit
    from infra.errors import InvalidInput

    wanted, limits = metric_of(metric), _limits(limit or ())
    left, plan = read_results(directory)
    right, _ = read_results(to) if to else (left, plan)
    try:
        answer = judge(
            left.records,
            right.records,
            a,
            b,
            at=at,
            metric=wanted,
            limits=limits,
            force=force,
            baseline=baseline_of(baseline, plan),
        )
    except NothingToCompare as error:
        raise InvalidInput(f"compare: {error}") from None
    except InvalidLimit as error:
        raise InvalidInput(f"limit: {error}") from None
    if json:
        show_json(answer.to_json())
    else:
        show(answer.sentence)
        for difference in answer.differences:
            note(f"the runs differ: {difference}")
        if answer.differences and not force:
            note("if that difference is the change to be judged, add --force")
    if answer.exit_code:
        raise typer.Exit(answer.exit_code)
    if left.faults or right.faults:
        raise typer.Exit(1)


def read_results(directory: Path) -> tuple[Loaded, SweepPlan | None]:
    """The records of a directory and their plan; reports unusable files."""
    from analysis.load import load
    from infra.errors import InvalidInput

    if not directory.is_dir():
        what = "it is a file" if directory.is_file() else "it does not exist"
        raise InvalidInput(f"there is no directory {directory} ({what}): {_RESULTS}")
    plan, loaded = _plan(directory, load(directory))
    complain_all(loaded.faults)
    if not loaded.records:
        raise InvalidInput(f"{directory} contains no run record: {_RESULTS}")
    return loaded, plan


def complain_all(faults: Iterable[Fault]) -> None:
    for fault in faults:
        complain(str(fault))


def summary_of(
    directory: Path, *, baseline: str = "", metric: str = "", limit: Sequence[str] | None = None
) -> tuple[Loaded, SweepPlan | None, Summary]:
    """The conclusions from a directory, with its records and plan; empty options are those of the sweep."""
    from analysis.summary import summarise
    from infra.errors import InvalidInput

    wanted, limits = metric_of(metric), _limits(limit or ())
    loaded, plan = read_results(directory)
    if limit is None and plan:
        limits = _limits(plan.limits)
    known = {record.configuration for record in loaded.records}
    if baseline and baseline not in known:
        raise InvalidInput(f"baseline: {directory} has no {baseline} ({', '.join(sorted(known))})")
    asked = {"metric": [wanted] if wanted else [], "limit": [one.metric for one in limits]}
    for option in ("metric", "limit") if limit is not None else ("metric",):
        require_measured(option, asked[option], directory, loaded.records)
    of = baseline_of(baseline, plan)
    return loaded, plan, summarise(loaded.records, baseline=of, metric=wanted, limits=limits)


def conclude(
    directory: Path,
    *,
    baseline: str = "",
    metric: str = "",
    limit: Sequence[str] | None = None,
    json: bool = False,
    then: Callable[[Path], None] | None = None,
) -> None:
    """Print the answer of a directory of records and write its report; `then` gets the page."""
    from analysis.report import answer as answers
    from analysis.report.pages import write_report
    from experiments.run import keep

    loaded, plan, summary = summary_of(directory, baseline=baseline, metric=metric, limit=limit)
    commands = keep.commands(answers.chosen(summary), loaded.records, plan)
    here = tuple(dataclasses.replace(one, line=pasted(one.line)) for one in commands.lines)
    answer = answers.answer(summary, dataclasses.replace(commands, lines=here), loaded.faults)
    files = write_report(
        loaded.records,
        summary,
        directory,
        answer=answer,
        faults=loaded.faults,
        reproduce=pasted(_reproduce(plan, directory, baseline, metric, limit or ())),
    )
    if json:
        show_json({**summary.to_json(), "report": str(files.html)})
    else:
        _print(summary, answer)
        note(f"report: {files.html}")
    if then:
        then(files.html)
    if loaded.faults:
        raise typer.Exit(1)


def _print(summary: Summary, answer: Answer) -> None:
    """The first screen of the report on a terminal, and the table of one number of pairs."""
    from analysis.report import answer as answers
    from analysis.report import cells, grid

    say(answer.sentence)
    for sentence in answer.details:
        say(sentence)
    if answer.tradeoff:
        show(f"\n{grid.aligned(answer.tradeoff, out.width)}\n")
    if answer.why:
        say(f"Why: {' '.join(answer.why)}")
    show(answers.block(answer.commands, out.width))
    shown = cells.of_largest(summary)
    show("")
    show(grid.aligned(cells.states(summary, shown), out.width))
    left = len(summary.states) - len(shown)
    if left:
        show(f"{left} more rows are in report.md")
    if summary.nodes:
        show(f"\n{grid.aligned(cells.nodes(summary), out.width)}")
    if answer.basis:
        note(answer.basis)
    for warning in answer.warnings:
        note(f"warning: {warning}")
    if answer.more:
        note(f"further warnings in the report: {answer.more}")


def metric_of(name: str) -> Metric | None:
    """The metric of this name, if any; an unknown name is refused with the known ones."""
    from analysis.metrics import UnknownMetric, find
    from infra.errors import InvalidInput

    try:
        return find(name) if name else None
    except UnknownMetric as error:
        raise InvalidInput(f"metric: {error}") from None


def require_measured(
    option: str, metrics: Iterable[Metric], directory: Path, records: Sequence[Record]
) -> None:
    """Refuse metrics that no valid run has, with those that were measured; without a valid run, none."""
    from analysis.metrics import measured
    from infra.errors import InvalidInput

    known = measured(records)
    for metric in metrics:
        if known and metric not in known:
            kinds = sorted({record.traffic for record in records})
            raise InvalidInput(
                f"{option}: {metric.name} was not measured in {directory} (traffic "
                f"{', '.join(kinds)}): choose one of {', '.join(one.name for one in known)}"
            )


def _limits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """The limits of these texts; one that cannot be read is refused."""
    from analysis.limits import InvalidLimit, parse_all
    from infra.errors import InvalidInput

    try:
        return parse_all(texts)
    except InvalidLimit as error:
        raise InvalidInput(f"limit: {error}") from None


def baseline_of(asked: str, plan: SweepPlan | None) -> str:
    """The given baseline, else that of the sweep, else the default."""
    return asked or (plan.baseline if plan else "baseline")


def _plan(directory: Path, loaded: Loaded) -> tuple[SweepPlan | None, Loaded]:
    """The plan of these records, and the records that belong to it.

    Imported records have no plan. A plan of another sweep is a fault, and so is a record at a
    place that its plan does not have: both are reported and left out.
    """
    from analysis.load import Fault
    from experiments.run.sweep import PLAN, kept_plan
    from infra.errors import InvalidInput

    path = directory / PLAN
    if not os.path.lexists(path):
        return None, loaded
    try:
        plan = kept_plan(directory)
    except (InvalidInput, OSError) as error:
        fault = Fault(path, None, f"is not used: {str(error).removeprefix('resume: ')}")
        return None, dataclasses.replace(loaded, faults=[*loaded.faults, fault])
    made_by = {record.plan for record in loaded.records}
    if made_by and made_by != {plan.digest}:
        others = ", ".join(sorted(str(one or "none") for one in made_by - {plan.digest}))
        fault = Fault(
            path, None, f"is not used: it is plan {plan.digest}, but the records have {others}"
        )
        return None, dataclasses.replace(loaded, faults=[*loaded.faults, fault])
    return plan, _as_planned(loaded, plan)


def _as_planned(loaded: Loaded, plan: SweepPlan) -> Loaded:
    """The records at the places of the plan; the others become faults."""
    from analysis import paths
    from analysis.load import Fault, Loaded

    planned = {
        (run.order, run.block, run.path, run.replicas, run.configuration) for run in plan.runs
    }
    kept = Loaded(faults=list(loaded.faults))
    for record, path in zip(loaded.records, loaded.paths, strict=True):
        where = paths.planned(record.path)
        place = (record.order, record.block, where, record.replicas, record.configuration)
        if place in planned and record.seed == plan.seed:
            kept.records.append(record)
            kept.paths.append(path)
        else:
            kept.faults.append(Fault(path, None, "is not a run of the plan, so it is left out"))
    return kept


def _reproduce(
    plan: SweepPlan | None, directory: Path, baseline: str, metric: str, limit: Sequence[str]
) -> str:
    """The command that repeats the plan, and that of the report where it has options."""
    from experiments.run import options

    asked = [("--baseline", baseline), ("--metric", metric), *(("--limit", one) for one in limit)]
    words = [word for option, value in asked if value for word in (option, value)]
    report = command("report", directory.resolve(), *words)
    if plan is None:
        return report
    sweep = command("sweep", *options.words(plan.asked))
    return f"{sweep}\n{report}" if words else sweep
