"""`sweep`: the matrix of states, in random blocks, with progress; then table, verdict, report."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.results import conclude
from experiments.cli.stacks import EngineName, Json
from experiments.cli.terminal import err, note, show
from experiments.plan import Plan
from experiments.sweep import Sweep

QUICK = {
    "configurations": "baseline,rps,rfs,rps-plus,rfs-plus,pipeline",
    "replicas": "1,4",
    "runs": 6,
    "duration": 2,
    "omit": 1,
}
USUAL = {
    "configurations": "baseline,rps,rfs,rps-plus,rfs-plus,pipeline",
    "replicas": "1,2,4,8,16",
    "runs": 10,
    "duration": 5,
    "omit": 1,
}


def register(app: typer.Typer) -> None:
    app.command()(sweep)


def sweep(
    quick: Annotated[
        bool, typer.Option("--quick", help="Six configurations x 1 and 4 pairs x 6 blocks of 2 s.")
    ] = False,
    configurations: Annotated[
        str | None, typer.Option(help="Names, comma-separated; the baseline among them.")
    ] = None,
    replicas: Annotated[str | None, typer.Option(help="Pair counts, comma-separated.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Blocks: runs of each state.")] = None,
    duration: Annotated[int | None, typer.Option(min=1, help="Measured seconds a run.")] = None,
    omit: Annotated[int | None, typer.Option(min=0, help="Seconds of traffic before.")] = None,
    streams: Annotated[int, typer.Option(min=1, help="TCP streams a pair.")] = 1,
    path: Annotated[str, typer.Option(help="overlay, host, or overlay,host.")] = "overlay",
    own: Annotated[str, typer.Option(help="YAML file with further configurations.")] = "",
    pod_cpu_limit: Annotated[str, typer.Option(help="CPU quota of each pod (200m).")] = "",
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
    engine: EngineName = "auto",
    json: Json = False,
) -> None:
    """Measure a matrix of states and say what steering buys.

    The lab is the sweep's own and is taken away at the end, also after Ctrl-C; a sweep that was
    interrupted goes on with --resume.
    """
    preset: dict[str, Any] = QUICK if quick else USUAL
    kept = _kept_plan(out) if resume else None
    wanted = kept or _plan(
        seed=seed,
        configurations=configurations or str(preset["configurations"]),
        replicas=replicas or str(preset["replicas"]),
        blocks=runs or int(preset["runs"]),
        duration=duration or int(preset["duration"]),
        omit=int(preset["omit"]) if omit is None else omit,
        streams=streams,
        path=path,
        settings={
            key: value
            for key, value in {"configurations": own, "podCpuLimit": pod_cpu_limit}.items()
            if value
        },
    )
    if plan:
        _print_plan(wanted, json)
        return
    directory = out or Path("results") / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    _run(wanted, directory, resume, engine, json)


def _plan(
    *,
    seed: int | None,
    configurations: str,
    replicas: str,
    blocks: int,
    duration: int,
    omit: int,
    streams: int,
    path: str,
    settings: dict[str, str],
) -> Plan:
    from experiments import plan
    from infra import config
    from infra import configurations as named
    from infra.refusals import BadInput

    online = config.online_cores()
    paths = _words(path)
    if not paths or set(paths) - {"overlay", "host"} or len(set(paths)) != len(paths):
        raise BadInput(f"path: {path!r} must be overlay, host, or overlay,host")
    made = plan.make(
        seed=secrets.randbelow(2**31) if seed is None else seed,
        blocks=blocks,
        configurations=_words(configurations),
        replicas=[_count(word) for word in _words(replicas)],
        paths=paths,
        duration=duration,
        omit=omit,
        streams=streams,
        known=named.load(settings.get("configurations")),
        cpus=max(online) + 1,
        settings=settings,
    )
    # One state of the plan, validated as `up` would: what is wrong with the rest shows here.
    values = {
        **settings,
        "configuration": made.configurations[0],
        "replicas": str(max(made.replicas)),
    }
    timing = {"duration": str(duration), "omit": str(omit), "streams": str(streams)}
    config.state("sweep", {**values, **timing})
    return made


def _kept_plan(out: Path | None) -> Plan:
    """The plan of the directory to go on with."""
    from experiments import plan
    from experiments.sweep import PLAN
    from infra.refusals import BadInput

    if out is None:
        raise BadInput("resume: say which sweep with --out DIR")
    try:
        return plan.from_json((out / PLAN).read_text())
    except FileNotFoundError:
        raise BadInput(f"resume: there is no sweep in {out}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"resume: {out / PLAN} is not a plan: {error}") from None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _count(word: str) -> int:
    from infra.refusals import BadInput

    if not word.isdecimal() or int(word) < 1:
        raise BadInput(f"replicas: {word!r} must be a whole number from 1")
    return int(word)


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


def _run(plan: Plan, directory: Path, resume: bool, engine: str, json: bool) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from experiments import lock, requirements
    from experiments.engines.choice import choose

    requirements.require_lab()
    chosen = choose(engine)
    note(_summary(plan))
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    sweep = Sweep(directory, plan, chosen, resume=resume)
    left = sweep.prepare()
    with lock.machine(f"sweep in {directory}"), bar:
        task = bar.add_task("", total=len(plan.runs), completed=len(plan.runs) - len(left))

        def started(run: object) -> None:
            name = f"{run.configuration} x {run.replicas}"  # type: ignore[attr-defined]
            bar.update(task, description=f"{name:<16}")

        def finished(done) -> None:  # type: ignore[no-untyped-def]
            bar.update(task, completed=done.finished)
            if not err.is_terminal:
                note(_line(done))
            elif not done.record.valid:
                bar.console.print(_line(done))

        sweep.resume = True  # prepared above
        sweep.on_run = started
        sweep.on_done = finished
        sweep.on_cleanup = lambda: bar.update(task, description="putting back    ")
        try:
            sweep.run()
        except KeyboardInterrupt:
            note(f"interrupted; go on with ./steerlab sweep --resume --out {directory}")
            raise
    conclude(directory, json=json)


def _line(done) -> str:  # type: ignore[no-untyped-def]
    from experiments.measure import mean_bitrate

    record = done.record
    rate = mean_bitrate(record)
    result = (
        "invalid: " + "; ".join(record.reasons) if not record.valid else f"{rate:.0f} Mbit/s a pair"
    )
    return (
        f"{done.finished}/{done.total} block {record.block} {record.path} "
        f"{record.configuration} x {record.replicas}: {result}"
    )
