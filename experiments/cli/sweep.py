"""`sweep`: measure configurations in random blocks, with progress; then table, verdict and report."""

from __future__ import annotations

import contextlib
import inspect
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.text import Text

from experiments.cli import terminal
from experiments.cli.results import conclude
from experiments.cli.stacks import EngineName, Json
from experiments.cli.terminal import REFRESH, drawn, err, note, safe, show
from infra.commands import command

if TYPE_CHECKING:
    from rich.progress import Progress

    from experiments.run.events import Events, Why
    from experiments.run.options import Option
    from experiments.run.plan import Run, SweepPlan
    from experiments.run.sweep import Done

# With --until-ci: maximum of blocks, where the command line does not give it.
MOST_BLOCKS = 40
# Of --plan without --verbose: as many as a screen has room for.
MOST_LINES = 12

EventsFile = Annotated[
    Path | None,
    typer.Option(help="Append each event as a line of JSON to this file.", metavar="FILE"),
]


def register(app: typer.Typer) -> None:
    terminal.register_late(app, sweep.__doc__ or "", "sweep", _with_options)


def _with_options() -> Callable[..., None]:
    """The command, whose `**given` are the options of a sweep."""
    from experiments.run import options

    *own, _ = inspect.signature(sweep, eval_str=True).parameters.values()
    place = [one.name for one in own].index("matrix") + 1
    own[place:place] = [_parameter(field, option) for field, option in options.declared()]
    by_name = [one.replace(kind=one.KEYWORD_ONLY) for one in own]
    sweep.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
    sweep.__annotations__ = {one.name: one.annotation for one in by_name}
    return sweep


def _parameter(field: str, option: Option) -> inspect.Parameter:
    from experiments.run import options
    from experiments.run.options import Options

    names = [name for name in (options.flag(field), option.short) if name]
    kind = list[str] | None if option.many else str | None
    text = f"{' '.join(str(Options.model_fields[field].description).split())}."
    shown = typer.Option(*names, help=text, metavar=option.metavar)
    return inspect.Parameter(
        field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, shown]
    )


def sweep(
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Measure six configurations with 1 and 4 pairs in about two minutes."
        ),
    ] = False,
    matrix: Annotated[
        str | None,
        typer.Option(
            help="Set of options: usual (the default), quick, study (experiments/run/matrices.yaml), or a YAML "
            "file.",
            metavar="NAME|FILE",
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Time limit, for example 30m. No run starts that would exceed it; continue with "
            "--resume.",
            metavar="TIME",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the sweep in --out.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print a summary of the plan and run nothing.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --plan: print every run in its order.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Results directory; by default results/sweep-TIME.", metavar="DIR"),
    ] = None,
    events: EventsFile = None,
    engine: EngineName = "auto",
    json: Json = False,
    **given: Any,
) -> None:
    """Measure configurations in random blocks and compare them with the baseline.

    \b
    ./steerlab sweep --quick
    ./steerlab sweep --path overlay,host --replicas 1,16 --runs 40
    ./steerlab sweep --replicas 4 --until-ci 0.05
    ./steerlab sweep --traffic mixed:rate=300M --limit p99_us=+10%
    ./steerlab sweep --method isolated --duration 10
    ./steerlab sweep --matrix study --max-time 8h
    ./steerlab sweep --quick --target kubernetes -c kubernetes.images="$IMAGES"

    The sweep uses a stack of its own, which is destroyed at the end, also after Ctrl-C. An
    interrupted sweep continues with --resume.
    """
    from experiments.engines import stacks
    from experiments.run import matrix as matrices
    from experiments.run import options
    from experiments.run.events import Events
    from infra import keys
    from infra.errors import InvalidInput

    if quick and matrix:
        raise InvalidInput("matrix: --quick is the same as --matrix quick: give one of them")
    limit = _max_seconds(max_time)
    asked = {"seed": secrets.randbelow(2**31), **matrices.named("usual")}
    if resume:
        asked |= options.given(_kept_plan(out).asked)
    typed = options.layer({name: value for name, value in given.items() if value is not None})
    if quick or matrix:
        name = "quick" if quick else matrix or "usual"
        found = matrices.named(name)
        matrices.refuse_other_method(name, found, typed)
        asked |= found
    if "until_ci" in typed and asked.get("until_ci") is None:
        asked["blocks"] = MOST_BLOCKS
    wanted = matrices.plan(asked | typed, note)
    if words := keys.renamed(key for key, _ in wanted.config):
        note(words)
    if not resume:
        matrices.refuse_without_baseline(wanted.asked)
    if plan:
        _print_plan(wanted, json=json, verbose=verbose)
        return
    least = wanted.seconds_of(wanted.together)
    if limit is not None and limit < least:
        what = "run" if wanted.together == 1 else "episode"
        raise InvalidInput(f"max-time: one {what} takes {least:g} s, {max_time} is less")
    directory = out or stacks.ROOT / "results" / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    with opened(events) as stream:
        _run(wanted, directory, resume, engine, json, limit, Events(stream, wanted))


def _max_seconds(words: str | None) -> float | None:
    from infra import lease
    from infra.errors import InvalidInput

    if words is None:
        return None
    try:
        return lease.seconds(words)
    except InvalidInput:
        raise InvalidInput(f"max-time: write a number and s, m or h (30m), not {words!r}") from None


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[TextIO | None]:
    """The file of events, to append to."""
    from analysis import files
    from infra.errors import InvalidInput

    if path is None:
        yield None
        return
    try:
        stream = path.open("a", encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidInput(f"events: {path}: {error.strerror}") from None
    with stream:
        if not path.stat().st_size:
            files.give(stream.fileno(), path.parent.stat())
        yield stream


def _kept_plan(out: Path | None) -> SweepPlan:
    """The plan of the sweep to continue."""
    from experiments.run.sweep import kept_plan
    from infra.errors import InvalidInput

    if out is None:
        raise InvalidInput("resume: --out DIR must name the sweep's results directory")
    return kept_plan(out)


def _print_plan(plan: SweepPlan, *, json: bool, verbose: bool) -> None:
    if json:
        from experiments.run.plan import to_json

        show(to_json(plan))
        return
    show(_summary(plan))
    runs = plan.runs if verbose else [run for run in plan.runs if run.block == 0]
    show("" if verbose else f"order of the first block of {plan.blocks}:")
    for run in runs[: None if verbose else MOST_LINES]:
        show(
            f"{run.order:5d}  block {run.block}  {run.path:<7} {run.replicas:>4} "
            f"{'pair ' if run.replicas == 1 else 'pairs'}  {run.configuration}"
        )
    if len(runs) > MOST_LINES and not verbose:
        show(f"  ... {len(runs) - MOST_LINES} more in this block")
    if not verbose:
        note("every run: --verbose, or --json for scripts")


def _summary(plan: SweepPlan) -> str:
    counts = ", ".join(map(str, plan.replicas))
    switched = plan.method == "switchback"
    parts = f"{len(plan.groups(plan.runs))} episodes" if switched else f"{plan.blocks} blocks"
    omit, duration = (plan.settle, plan.window) if switched else (plan.omit, plan.duration)
    lines = [
        f"configurations  {', '.join(plan.configurations)}",
        f"replicas        {counts} (path {', '.join(plan.paths)})",
        f"method          {plan.method}, traffic {plan.traffic}",
        f"runs            {len(plan.runs)} in {parts}, each {omit:g} + "
        f"{duration:g} s; about {plan.eta_s / 60:.0f} min",
        f"seed            {plan.seed}, plan {plan.digest}",
    ]
    lines += [f"limits          {', '.join(plan.limits)}"] * bool(plan.limits)
    lines += [f"left out        {name}: {why}" for name, why in plan.left_out]
    return "\n".join(lines)


def _run(
    plan: SweepPlan,
    directory: Path,
    resume: bool,
    engine: str,
    json: bool,
    limit: float | None,
    events: Events,
) -> None:
    from experiments.engines.choice import choose
    from experiments.run.sweep import Sweep
    from experiments.targets import TARGETS

    TARGETS[plan.target or "lab"].require(plan.traffic)
    sweep = Sweep(directory, plan, choose(engine), limit)
    note(_summary(plan))
    note(f"results         {directory.absolute()}")
    bar = _bar()
    with sweep.target.busy(sweep.stack.name, f"sweep in {directory}"), bar:
        sweep.target.refuse_foreign(sweep.stack)
        left = sweep.prepare(resume=resume)
        ran = 0
        task = bar.add_task("", last="", total=len(plan.runs), completed=len(plan.runs) - len(left))

        def started(run: Run) -> None:
            what = run.configuration if plan.together == 1 else "episode"
            cell = f"{what} x {run.replicas}"
            bar.update(task, description=f"block {run.block} {cell:<12}")
            events.started(run)

        def finished(done: Done) -> None:
            nonlocal ran
            ran = done.finished
            last = f"last {_result(done)}" if done.record.valid else "last invalid"
            bar.update(task, completed=done.finished, last=last)
            if not drawn() or not done.record.valid:
                bar.console.print(Text(safe(_line(done))))
            events.recorded(done)

        def restoring() -> None:
            bar.update(task, description="restoring", last="")
            events.restoring()

        sweep.on_run, sweep.on_done, sweep.on_cleanup = started, finished, restoring
        why: Why = "failed"
        missing = len(left)
        go_on = f"continue with {command('sweep', '--resume', '--out', directory)}"
        events.planned(missing)
        try:
            missing = sweep.run(left)
            why = "time" if missing else "complete"
        except BaseException as error:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            missing = len(plan.runs) - ran if ran else missing
            note(f"not finished: {go_on}")
            if leftover := sweep.target.leftover():
                note(leftover)
            raise
        finally:
            events.ended(why, missing)
    if missing:
        note(f"time limit reached with {missing} runs left: {go_on}")
    conclude(directory, json=json)


def _bar() -> Progress:
    """Progress in one line; a narrow terminal shows fewer parts, and none is cut."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    parts: list[tuple[int, ProgressColumn]] = [  # with the width from which each has room
        (0, TextColumn("{task.description}", markup=False)),
        (70, TextColumn("{task.fields[last]}", markup=False)),
        (110, BarColumn()),
        (0, MofNCompleteColumn()),
        (90, TimeElapsedColumn()),
        (50, TextColumn("left")),
        (50, TimeRemainingColumn(elapsed_when_finished=False)),
    ]
    return Progress(
        *(column for width, column in parts if err.width >= width),
        console=err,
        refresh_per_second=REFRESH,
        disable=not drawn(),
        speed_estimate_period=600,  # a run takes seconds: the last ten minutes tell the rest
    )


def _result(done: Done) -> str:
    from analysis.metrics import BITRATE, METRICS

    metric = METRICS[next(iter(done.record.metrics), BITRATE.name)]
    value = metric.value(done.record)
    return f"{value:.{metric.digits}f} {metric.unit}" if value is not None else "no result"


def _line(done: Done) -> str:
    record = done.record
    result = _result(done) if record.valid else "invalid: " + "; ".join(record.reasons)
    return (
        f"{done.finished}/{done.total} block {record.block} {record.path} "
        f"{record.configuration} x {record.replicas}: {result}"
    )
