"""`sweep`: the matrix of states, in random blocks, with progress; then table, verdict, report."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from experiments.cli.results import conclude
from experiments.cli.stacks import EngineName, Json, refuse_foreign
from experiments.cli.terminal import REFRESH, err, note, show

if TYPE_CHECKING:
    from experiments.plan import Plan, Run
    from experiments.sweep import Done

# The options of a plan, in the words of the command line.
Options = dict[str, Any]

USUAL: Options = {
    "configurations": "baseline,rps,rfs,rps-plus,rfs-plus,pipeline",
    "replicas": "1,2,4,8,16",
    "runs": 10,
    "duration": 5,
    "omit": 1,
    "streams": 1,
    "path": "overlay",
    "own": "",
    "pod_cpu_limit": "",
    "until_ci": None,
    "config": {},
}
# Keys that the plan itself says, by the option that does.
PLANNED = {
    "configuration": "--configurations",
    "replicas": "--replicas",
    "runs": "--runs",
    "duration": "--duration",
    "omit": "--omit",
    "streams": "--streams",
    "path": "--path",
    "configurations": "--own",
    "podCpuLimit": "--pod-cpu-limit",
}
# With --until-ci: the most blocks, where the command line does not say.
MOST_BLOCKS = 40
QUICK: Options = {**USUAL, "replicas": "1,4", "runs": 6, "duration": 2}


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

    \b
    ./steerlab sweep --quick
    ./steerlab sweep --path overlay,host --replicas 1,16 --runs 20
    ./steerlab sweep --replicas 4 --until-ci 0.05
    ./steerlab sweep --quick --target kubernetes -c kubeconfig=admin.conf

    The stack is the sweep's own and is taken away at the end, also after Ctrl-C; a sweep that was
    interrupted goes on with --resume.
    """
    given: Options = {
        "configurations": configurations,
        "replicas": replicas,
        "runs": runs,
        "duration": duration,
        "omit": omit,
        "streams": streams,
        "path": path,
        "own": own,
        "pod_cpu_limit": pod_cpu_limit,
        "until_ci": until_ci,
        "seed": seed,
        "config": _config(config, target),
    }
    options = {"seed": secrets.randbelow(2**31), **USUAL}
    if resume:
        options |= _options(_kept_plan(out))
    if quick:
        options |= QUICK
    if until_ci is not None and options["until_ci"] is None:
        options["runs"] = MOST_BLOCKS
    wanted = _plan(options | {name: value for name, value in given.items() if value is not None})
    if plan:
        _print_plan(wanted, json)
        return
    directory = out or Path("results") / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    _run(wanted, directory, resume, engine, json)


def _config(words: list[str] | None, target: str | None) -> dict[str, str] | None:
    """The keys that the plan does not say itself; None where there are none."""
    from experiments import stacks
    from infra.refusals import BadInput

    said = stacks.changes(words or []) | ({"target": target} if target else {})
    for key in said:
        if key in PLANNED:
            raise BadInput(f"-c {key}: a sweep says it with {PLANNED[key]}")
    return said or None


def _cpus(values: dict[str, str]) -> int:
    """How many CPUs a mask may name: this machine's, or those of the smallest server node."""
    from infra import config
    from infra.kubernetes.nodes import of_state

    state = config.state("sweep", values)
    if state.target == "lab":
        return max(config.online_cores()) + 1
    return min(node.cpus for node in of_state(state).servers)


def _plan(options: Options) -> Plan:
    from experiments import plan
    from infra import config
    from infra import configurations as named
    from infra.refusals import BadInput

    paths = _words(options["path"])
    if not paths or set(paths) - {"overlay", "host"} or len(set(paths)) != len(paths):
        raise BadInput(f"path: {options['path']!r} must be overlay, host, or overlay,host")
    own = str(Path(options["own"]).resolve()) if options["own"] else ""
    keys = {"configurations": own, "podCpuLimit": options["pod_cpu_limit"]}
    settings = {key: value for key, value in keys.items() if value} | options["config"]
    timing = {key: str(options[key]) for key in ("duration", "omit", "streams")}
    # What is wrong with the target shows before a cluster is asked for its nodes.
    path = max(paths, key=("overlay", "host").index)
    usual = {"configuration": "baseline", "replicas": "1", "path": path, **settings, **timing}
    made = plan.make(
        seed=options["seed"],
        blocks=options["runs"],
        configurations=_words(options["configurations"]),
        replicas=[_count(word) for word in _words(options["replicas"])],
        paths=paths,
        duration=options["duration"],
        omit=options["omit"],
        streams=options["streams"],
        known=named.load(settings.get("configurations")),
        cpus=_cpus(usual),
        settings=settings,
        until_ci=options["until_ci"],
    )
    if made.until_ci is not None and "baseline" not in made.configurations:
        raise BadInput("until-ci: the baseline must be among the configurations")
    # One state of the plan, validated as `up` would: what is wrong with the rest shows here.
    values = {
        **settings,
        "configuration": made.configurations[0],
        "replicas": str(max(made.replicas)),
    }
    config.state("sweep", {**values, **timing, "path": path})
    return made


def _options(kept: Plan) -> Options:
    """The options that make a plan again; what was left out is asked for again, too."""
    settings = dict(kept.settings)
    names = (*kept.configurations, *(name for name, _ in kept.left_out))
    return {
        "configurations": ",".join(names),
        "replicas": ",".join(map(str, kept.replicas)),
        "runs": kept.blocks,
        "duration": kept.duration,
        "omit": kept.omit,
        "streams": kept.streams,
        "path": ",".join(kept.paths),
        "own": settings.get("configurations", ""),
        "pod_cpu_limit": settings.get("podCpuLimit", ""),
        "until_ci": kept.until_ci,
        "seed": kept.seed,
        "config": {key: value for key, value in kept.settings if key not in PLANNED},
    }


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

    from experiments import targets
    from experiments.engines.choice import choose
    from experiments.sweep import Sweep

    target = dict(plan.settings).get("target", "lab")
    targets.require(target)
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
        refresh_per_second=REFRESH,
        disable=not err.is_terminal,
    )
    sweep = Sweep(directory, plan, chosen)
    with targets.busy(target, sweep.stack.name, f"sweep in {directory}"), bar:
        if target == "lab":
            refuse_foreign(sweep.stack)
        left = sweep.prepare(resume=resume)
        task = bar.add_task("", total=len(plan.runs), completed=len(plan.runs) - len(left))

        def started(run: Run) -> None:
            name = f"{run.configuration} x {run.replicas}"
            bar.update(task, description=f"{name:<16}")

        def finished(done: Done) -> None:
            bar.update(task, completed=done.finished)
            if not err.is_terminal or not done.record.valid:
                bar.console.print(escape(_line(done)))

        sweep.on_run = started
        sweep.on_done = finished
        sweep.on_cleanup = lambda: bar.update(task, description="putting back    ")
        try:
            sweep.run(left)
        except BaseException:
            note(f"not finished: go on with ./steerlab sweep --resume --out {directory}")
            raise
    conclude(directory, json=json)


def _line(done: Done) -> str:
    from experiments.measure import mean_bitrate

    record = done.record
    rate = mean_bitrate(record)
    result = f"{rate:.0f} Mbit/s a pair" if rate is not None else "no result"
    if not record.valid:
        result = "invalid: " + "; ".join(record.reasons)
    return (
        f"{done.finished}/{done.total} block {record.block} {record.path} "
        f"{record.configuration} x {record.replicas}: {result}"
    )
