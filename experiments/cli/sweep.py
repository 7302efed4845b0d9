"""`sweep`: the matrix of states, in random blocks, with progress; then table, verdict, report."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from experiments.cli.results import conclude
from experiments.cli.stacks import EngineName, Json
from experiments.cli.terminal import REFRESH, err, note, show

if TYPE_CHECKING:
    from rich.progress import Progress

    from experiments.events import Events, Why
    from experiments.plan import Plan, Run
    from experiments.sweep import Done

# With --until-ci: the most blocks, where the command line does not say.
MOST_BLOCKS = 40


def register(app: typer.Typer) -> None:
    app.command()(sweep)


def sweep(
    quick: Annotated[
        bool, typer.Option("--quick", help="Six configurations x 1 and 4 pairs x 6 blocks of 2 s.")
    ] = False,
    matrix: Annotated[
        str | None,
        typer.Option(help="usual, quick, study, or a file of one.", metavar="NAME|FILE.yaml"),
    ] = None,
    configurations: Annotated[
        str | None, typer.Option(help="Names, comma-separated; the baseline among them.")
    ] = None,
    replicas: Annotated[str | None, typer.Option(help="Pair counts, comma-separated.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Blocks: runs of each state.")] = None,
    duration: Annotated[int | None, typer.Option(min=1, help="Measured seconds a run.")] = None,
    omit: Annotated[int | None, typer.Option(min=0, help="Seconds of traffic before.")] = None,
    streams: Annotated[int | None, typer.Option(min=1, help="TCP streams a pair.")] = None,
    path: Annotated[str | None, typer.Option(help="overlay, host, or overlay,host.")] = None,
    own: Annotated[str | None, typer.Option(help="YAML file with further configurations.")] = None,
    pod_cpu_limit: Annotated[str | None, typer.Option(help="CPU quota of each pod (200m).")] = None,
    target: Annotated[
        str | None, typer.Option(help="lab, or kubernetes.", metavar="TARGET")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", "-c", help="Any other key of a stack.", metavar="KEY=VALUE"),
    ] = None,
    until_ci: Annotated[
        float | None,
        typer.Option(help="End a state once its ratio is known to ± this share (0.05).", min=0.001),
    ] = None,
    isolation: Annotated[
        str | None,
        typer.Option(
            help="incremental: pods stay, steering changes; fresh: all is made anew for each run.",
            metavar="HOW",
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(help="Begin no run that would end later (30m); --resume goes on."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the order; printed if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in --out.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the plan and ETA, run nothing.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Results directory.")] = None,
    events: Annotated[
        Path | None, typer.Option(help="Tell each moment as a line of JSON in this file or pipe.")
    ] = None,
    engine: EngineName = "auto",
    json: Json = False,
) -> None:
    """Measure a matrix of states and say what steering buys.

    \b
    ./steerlab sweep --quick
    ./steerlab sweep --path overlay,host --replicas 1,16 --runs 20
    ./steerlab sweep --replicas 4 --until-ci 0.05
    ./steerlab sweep --matrix study --max-time 8h
    ./steerlab sweep --quick --target kubernetes -c kubeconfig=admin.conf

    The stack is the sweep's own and is taken away at the end, also after Ctrl-C; a sweep that was
    interrupted goes on with --resume.
    """
    from experiments.matrix import named, options_of
    from experiments.matrix import plan as make
    from infra.refusals import BadInput

    given: dict[str, Any] = {
        "configurations": configurations,
        "replicas": replicas,
        "runs": runs,
        "duration": duration,
        "omit": omit,
        "streams": streams,
        "path": path,
        "own": own,
        "pod_cpu_limit": pod_cpu_limit,
        "isolation": isolation,
        "until_ci": until_ci,
        "seed": seed,
        "config": _config(config, target),
    }
    if quick and matrix:
        raise BadInput("matrix: --quick is --matrix quick: give one of them")
    limit = _max_seconds(max_time)
    options = {"seed": secrets.randbelow(2**31), **named("usual")}
    if resume:
        options |= options_of(_kept_plan(out))
    if quick or matrix:
        options |= named("quick" if quick else matrix or "usual")
    if until_ci is not None and options["until_ci"] is None:
        options["runs"] = MOST_BLOCKS
    wanted = make(options | {name: value for name, value in given.items() if value is not None})
    if plan:
        _print_plan(wanted, json)
        return
    if limit is not None and limit < wanted.seconds_of(1):
        raise BadInput(f"max-time: one run takes {wanted.seconds_of(1):g} s, {max_time} is less")
    directory = out or Path("results") / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    with _told(events, wanted) as teller:
        _run(wanted, directory, resume, engine, json, limit, teller)


def _max_seconds(words: str | None) -> float | None:
    from infra import lease
    from infra.refusals import BadInput

    if words is None:
        return None
    try:
        return lease.seconds(words)
    except BadInput:
        raise BadInput(f"max-time: write a number and s, m or h (30m), not {words!r}") from None


@contextlib.contextmanager
def _told(path: Path | None, plan: Plan) -> Iterator[Events | None]:
    from experiments.events import Events

    if path is None:
        yield None
        return
    with path.open("a", encoding="utf-8") as stream:
        yield Events(stream, plan)


def _config(words: list[str] | None, target: str | None) -> dict[str, str] | None:
    """The keys that the plan does not say itself; None where there are none."""
    from experiments import stacks
    from experiments.matrix import PLANNED
    from infra.refusals import BadInput

    said = stacks.changes(words or []) | ({"target": target} if target else {})
    for key in said:
        if key in PLANNED:
            raise BadInput(f"-c {key}: a sweep says it with {PLANNED[key]}")
    return said or None


def _kept_plan(out: Path | None) -> Plan:
    """The plan of the directory to go on with."""
    from experiments.sweep import kept_plan
    from infra.refusals import BadInput

    if out is None:
        raise BadInput("resume: say which sweep with --out DIR")
    return kept_plan(out)


def _print_plan(plan: Plan, json: bool) -> None:
    if json:
        from experiments.plan import to_json

        show(to_json(plan))
        return
    show(_summary(plan))
    for run in plan.runs:
        show(
            f"{run.order:5d}  block {run.block}  {run.path:<7} {run.replicas:>3} pairs  {run.configuration}"
        )


def _summary(plan: Plan) -> str:
    minutes = plan.eta_s / 60
    lines = [
        f"{len(plan.configurations)} configurations x {len(plan.replicas)} replica counts"
        f" x {plan.blocks} blocks = {len(plan.runs)} runs of {plan.omit}+{plan.duration} s,"
        f" about {minutes:.0f} min; seed {plan.seed}, plan {plan.digest}"
    ]
    lines += [f"left out: {name} ({why})" for name, why in plan.left_out]
    return "\n".join(lines)


def _run(
    plan: Plan,
    directory: Path,
    resume: bool,
    engine: str,
    json: bool,
    limit: float | None,
    events: Events | None,
) -> None:
    from experiments import standing, targets
    from experiments.engines.choice import choose
    from experiments.sweep import Sweep

    target = dict(plan.settings).get("target", "lab")
    targets.require(target)
    sweep = Sweep(directory, plan, choose(engine), limit)
    note(_summary(plan))
    bar = _bar()
    with targets.busy(target, sweep.stack.name, f"sweep in {directory}"), bar:
        if target == "lab":
            standing.refuse_foreign(sweep.stack)
        left = sweep.prepare(resume=resume)
        ran = 0
        task = bar.add_task("", total=len(plan.runs), completed=len(plan.runs) - len(left))
        last = ""

        def started(run: Run) -> None:
            state = f"{run.configuration} x {run.replicas}"
            bar.update(task, description=f"block {run.block} {state:<15} {last}")
            if events:
                events.started(run)

        def finished(done: Done) -> None:
            nonlocal last, ran
            ran = done.finished
            last = f"last {_result(done)}" if done.record.valid else "last invalid"
            bar.update(task, completed=done.finished)
            if not err.is_terminal or not done.record.valid:
                bar.console.print(escape(_line(done)))
            if events:
                events.recorded(done)

        def cleaning() -> None:
            bar.update(task, description="putting back")
            if events:
                events.putting_back()

        sweep.on_run, sweep.on_done, sweep.on_cleanup = started, finished, cleaning
        why: Why = "failed"
        unmade = len(left)
        go_on = f"go on with ./steerlab sweep --resume --out {directory}"
        if events:
            events.planned(unmade)
        try:
            unmade = sweep.run(left)
            why = "time" if unmade else "complete"
        except BaseException as error:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            unmade = len(plan.runs) - ran if ran else unmade
            note(f"not finished: {go_on}")
            raise
        finally:
            if events:
                events.ended(why, unmade)
    if unmade:
        note(f"the time is up with {unmade} runs left: {go_on}")
    conclude(directory, json=json)


def _bar() -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=err,
        refresh_per_second=REFRESH,
        disable=not err.is_terminal,
        speed_estimate_period=600,  # a run takes seconds: the last ten minutes tell the rest
    )


def _result(done: Done) -> str:
    from experiments.measure import mean_bitrate

    rate = mean_bitrate(done.record)
    return f"{rate:.0f} Mbit/s a pair" if rate is not None else "no result"


def _line(done: Done) -> str:
    record = done.record
    result = _result(done) if record.valid else "invalid: " + "; ".join(record.reasons)
    return (
        f"{done.finished}/{done.total} block {record.block} {record.path} "
        f"{record.configuration} x {record.replicas}: {result}"
    )
