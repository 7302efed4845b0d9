"""`tune`: race configurations on this node or cluster, confirm the best, and say what to set."""

from __future__ import annotations

import math
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from experiments.cli import terminal, tuned
from experiments.cli.stacks import EngineName, Json
from experiments.cli.sweep import EventsFile, opened
from experiments.cli.terminal import REFRESH, drawn, err, note, safe, show, show_json
from infra.commands import command

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from experiments.run.events import TuneEvents, Why
    from experiments.run.tune import Progress, Tune
    from experiments.run.tune_state import TuneState

MINUTES = 3.0


def register(app: typer.Typer) -> None:
    terminal.register(app, tune)


def tune(
    minutes: Annotated[
        float | None,
        typer.Option(
            help=f"Time for the race and its confirmation. Default: {MINUTES:g}.", metavar="MINUTES"
        ),
    ] = None,
    replicas: Annotated[
        str | None, typer.Option(help="Number of pairs. Default: 4.", metavar="N")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Metric that decides, for example p99_us. Default: bitrate.", metavar="METRIC"
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="Worst value of a metric that is accepted, for example cpu_s_per_gbit=+10%. May be "
            "repeated.",
            metavar="LIMIT",
        ),
    ] = None,
    configurations: Annotated[
        str | None,
        typer.Option(
            help="Race these instead of generated ones: names separated by commas, or a YAML file.",
            metavar="NAMES|FILE",
        ),
    ] = None,
    traffic: Annotated[str | None, typer.Option(help="Kind of traffic.", metavar="TRAFFIC")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="lab (this machine) or kubernetes (a cluster).", metavar="TARGET"),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "-c",
            help="Any other key of a stack (docs/configuration.md). May be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(help="Measured seconds of a configuration in an episode.", metavar="SECONDS"),
    ] = None,
    settle: Annotated[
        float | None, typer.Option(help="Seconds before them, after a change.", metavar="SECONDS")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random order.", metavar="NUMBER")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the configurations and race nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the race in --out.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Results directory; by default results/tune-TIME.", metavar="DIR"),
    ] = None,
    events: EventsFile = None,
    engine: EngineName = "auto",
    json: Json = False,
) -> None:
    """Find the best configuration for this node: race many, confirm the best with fresh episodes.

    \b
    ./steerlab tune
    ./steerlab tune --plan
    ./steerlab tune --minutes 10 --limit cpu_s_per_gbit=+10%
    ./steerlab tune --by p99_us --traffic mixed:rate=300M
    ./steerlab tune --configurations rps,rfs,pipeline
    ./steerlab tune --target kubernetes -c kubernetes.images="$IMAGES"

    Configurations that cannot be the best any more leave the race. Ctrl-C ends it with the answer so
    far; --resume continues. The stack is destroyed at the end, and nothing stays set.
    """
    from experiments.engines import stacks
    from experiments.run import tune_plan, tune_state
    from infra.errors import InvalidInput

    given = {
        "replicas": replicas, "limits": limit, "traffic": traffic, "target": target, "config": config,
        "window": window, "settle": settle, "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if resume:
        own = {"minutes": minutes, "by": by, "configurations": configurations}
        named = [*given, *(name for name, value in own.items() if value is not None)]
        if named:
            raise InvalidInput(
                f"resume: a tuning continues with its own options: leave out {', '.join(named)}, or "
                "start another one"
            )
        if out is None:
            raise InvalidInput("resume: --out DIR must name the results directory")
        state = tune_state.read(out)
    else:
        state = tune_plan.plan(
            {"seed": secrets.randbelow(2**31), **given},
            minutes=MINUTES if minutes is None else minutes,
            by=_metric("bitrate" if by is None else by),
            chosen=() if configurations is None else tune_plan.chosen(configurations),
        )
    if plan:
        _print_plan(state, json=json)
        return
    directory = out or stacks.ROOT / "results" / f"tune-{time.strftime('%Y%m%d-%H%M%S')}"
    if not resume:
        tune_state.refuse_used(directory)
    _run(state, directory, resume, engine, json, events)


def _metric(name: str) -> str:
    """The name of a metric that can decide a race."""
    from analysis.metrics import UnknownMetric, find
    from infra.errors import InvalidInput

    try:
        metric = find(name)
    except UnknownMetric as error:
        raise InvalidInput(f"by: {error}") from None
    if metric.scale != "ratio":
        raise InvalidInput(
            f"by: {metric.name} may be 0, so it has no ratio to decide by: choose a bitrate, a "
            "latency or a CPU time"
        )
    return metric.name


def _print_plan(state: TuneState, *, json: bool) -> None:
    if json:
        show_json(state.model_dump(mode="json"))
        return
    show(_summary(state))
    width = max(map(len, state.names))
    for one in state.arms:
        show(f"  {one.name:<{width}}  {one.words or one.summary}")
    note("what the node does not have, and what changes nothing there, is left out at the start")
    if state.generated:
        note("pairs of what helps join the race later")


def _summary(state: TuneState) -> str:
    from experiments.run import tune_plan
    from experiments.run.tuned import AIMS

    asked = state.asked
    timing = tune_plan.timing_of(asked)
    first = tune_plan.costs_of(asked).of(len(state.arms))
    settle = f"{'at most ' if state.by_change else ''}{timing.settle:g}"
    lines = [
        f"configurations  {len(state.arms)}, at most {100 * AIMS.eps:g} % below the best",
        f"replicas        {asked.replicas[0]} (path {asked.paths[0]}), traffic {asked.traffic}",
        f"time            {state.minutes:g} min; each {settle} + {timing.window:g} s, at most "
        f"{first:.0f} s for all of them",
        f"decided by      {state.by}",
        f"seed            {asked.seed}",
    ]
    lines += [f"settings        {key}={value}" for key, value in asked.config]
    lines += [f"limits          {', '.join(asked.limits)}"] * bool(asked.limits)
    lines += [f"left out        {name}: {why}" for name, why in state.left_out]
    return "\n".join(lines)


def _run(
    state: TuneState,
    directory: Path,
    resume: bool,
    engine: str,
    json: bool,
    events: Path | None,
) -> None:
    from experiments.engines.choice import choose
    from experiments.run.events import TuneEvents
    from experiments.run.tune import Tune

    job = Tune(directory, state, choose(engine))
    job.target.require(job.asked.traffic)
    note(_summary(state))
    note(f"results         {directory.absolute()}")
    with opened(events) as stream:
        _race(job, resume, TuneEvents(stream), json=json)
    if not tuned.conclude(job, json=json):
        raise typer.Exit(1)


def _race(job: Tune, resume: bool, events: TuneEvents, *, json: bool) -> None:
    """Run to the end; after Ctrl-C the answer so far is printed before the interrupt goes on."""
    bar = _bar()
    with job.target.busy(job.stack.name, f"tune in {job.directory}"), bar:
        job.target.refuse_foreign(job.stack)
        job.prepare(resume=resume)
        task = bar.add_task("setting up", total=60 * job.state.minutes, completed=round(job.used))

        def told(done: Progress) -> None:
            bar.update(task, description=safe(_line(done)), completed=done.used)
            if not drawn() or done.problem:
                problem = f": invalid: {done.problem}" if done.problem else ""
                bar.console.print(Text(safe(f"{_line(done)}{problem}")))
            events.episode(done)

        def restoring() -> None:
            bar.update(task, description="restoring")
            events.restoring()

        job.on_progress, job.on_cleanup = told, restoring
        why: Why = "failed"
        events.planned(job.state)
        try:
            job.run()
            why = "complete"
        except KeyboardInterrupt:
            why = "interrupted"
            bar.stop()
            tuned.conclude(job, json=json)
            raise
        finally:
            events.ended(why)
            if why != "complete":
                go_on = command("tune", "--resume", "--out", job.directory)
                note(f"not finished: continue with {go_on}")
                if leftover := job.target.leftover():
                    note(leftover)


def _line(done: Progress) -> str:
    """One line on how far it is: `race 7: 24 of 26 left, gro-overlay-on +120 %, 43 of 180 s`."""
    standing = done.standing
    gain = "unknown" if done.gain is None else f"{100 * math.expm1(done.gain):+.0f} %"
    change = gain if standing.leader else "the baseline"
    return (
        f"{done.phase} {standing.episodes}: {len(standing.open)} of {len(done.names)} left, "
        f"{done.names[standing.leader]} {change}, {done.used:.0f} of {done.budget:.0f} s"
    )


def _bar() -> Bar:
    from rich.progress import BarColumn, Progress, TextColumn

    parts: list[Any] = [TextColumn("{task.description}", markup=False)]
    if err.width >= 110:
        parts.append(BarColumn())
    return Progress(*parts, console=err, refresh_per_second=REFRESH, disable=not drawn())
