"""`up`, `preview`, `destroy`, `outputs` and `measure`: the commands of one stack."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from experiments.cli import removal, terminal
from experiments.cli.terminal import err, note, or_else, safe, show, show_json, waiting
from experiments.engines import Engine, OnStep, Outcome, StackRef, Step
from infra.commands import command

if TYPE_CHECKING:
    from experiments.targets.contract import AnyMeasurement, Drift
    from infra.settings import StackSettings

Stack = Annotated[
    str,
    typer.Option(
        "--stack",
        "-s",
        help="Name of the stack, <configuration>-<replicas> such as rfs-plus-16; or lab, which Pulumi.lab.yaml "
        "defines.",
        metavar="STACK",
    ),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        help="Set a configuration key and keep it in Pulumi.STACK.yaml; may be repeated "
        "(docs/configuration.md).",
        metavar="KEY=VALUE",
    ),
]
Tried = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration key for this preview only; may be repeated.",
        metavar="KEY=VALUE",
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="pulumi (the Pulumi CLI), embedded, or auto: pulumi if it is on PATH.",
        metavar="ENGINE",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

_SIGNS = {"create": "+", "update": "~", "replace": "±", "delete": "-", "same": " "}
_COLOURS = {"create": "green", "update": "yellow", "replace": "magenta", "delete": "red"}


def register(app: typer.Typer) -> None:
    for verb in (up, preview, destroy, outputs, measure):
        terminal.register(app, verb)


def up(
    stack: Stack, config: Config = None, engine: EngineName = "auto", json: Json = False
) -> None:
    """Set up a stack and measure it; repair what has drifted.

    \b
    ./steerlab up -s rfs-plus-16
    ./steerlab up -s rfs-plus-16 -c replicas=8 -c lab.path=host

    A stack is one configuration with a number of pairs. Resources that were deleted, killed or
    changed by hand are recreated. `destroy` restores the machine.
    """
    from experiments.engines import stacks, trust
    from experiments.engines.choice import choose
    from experiments.targets import TARGETS

    changes = stacks.changes(config or [])
    ref, state = stacks.load(stack, changes)
    target = TARGETS[state.target]
    target.require_for(state)
    chosen = choose(engine)
    _note_settings(ref, changes)
    trust.refuse_foreign(stacks.ROOT / ".pulumi", "stacks")
    undo = _how("up", stack, "continue"), _how("destroy", stack, "undo")
    with target.busy(stack, f"up of {stack}"), or_else(*undo):
        target.refuse_foreign(ref)
        stacks.save(stack, changes)
        drift = target.drifted(chosen.resources(ref))
        _show_drift(drift)
        target.restore(drift)
        started = time.monotonic()
        with _progress(json, state) as listen:
            outcome = chosen.up(ref, replace=[found.urn for found in drift], on_step=listen)
    _conclude(outcome, chosen, json, f"in {time.monotonic() - started:.1f} s")


def preview(
    stack: Stack, config: Tried = None, engine: EngineName = "auto", json: Json = False
) -> None:
    """Show what `up` would change, without changing anything.

    \b
    ./steerlab preview -s rfs-plus-16 -c configuration=rps
    """
    from experiments.engines import stacks
    from experiments.engines.choice import choose
    from experiments.targets import TARGETS

    changes = stacks.changes(config or [])
    ref, state = stacks.load(stack, changes)
    target = TARGETS[state.target]
    target.require_for(state)
    chosen = choose(engine)
    _note_settings(ref, changes)
    drift = target.drifted(chosen.resources(ref))
    _show_drift(drift)
    outcome = chosen.preview(ref, replace=[found.urn for found in drift])
    if not json:
        for step in outcome.changes:
            _print_step(step)
    _conclude(outcome, chosen, json, "planned")


def destroy(
    stack: Annotated[
        str, typer.Option("--stack", "-s", help="Stack to destroy.", metavar="STACK")
    ] = "",
    lab: Annotated[
        bool,
        typer.Option("--lab", help="Remove the lab of this machine, even if its state is lost."),
    ] = False,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Remove the stack of a cluster by its labels: needs no state, works on any machine.",
        ),
    ] = False,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            help="With --cluster: a key such as kubernetes.kubeconfig; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --lab or --cluster: also remove what others created."),
    ] = False,
    engine: EngineName = "auto",
    json: Json = False,
) -> None:
    """Restore every node of a stack and delete what `up` created.

    \b
    ./steerlab destroy -s rfs-plus-16
    ./steerlab destroy --lab
    ./steerlab destroy --cluster -s rfs-plus-16

    `--lab` and `--cluster` need no state: use them after a killed sweep or a deleted folder. The
    stack's configuration file is kept.
    """
    from experiments import targets
    from experiments.engines import stacks, trust
    from experiments.engines.choice import choose
    from experiments.targets.lab import standing
    from infra.errors import InvalidInput, noted

    if lab == bool(stack or cluster):
        raise InvalidInput("destroy: give either --stack STACK (also with --cluster) or --lab")
    if cluster:
        removal.of_cluster(stack, stacks.changes(config or []), force=force, json=json)
        return
    if config:
        raise InvalidInput("destroy: -c is for --cluster")
    recorded = stacks.recorded(stack) if stack else []
    target = targets.of(recorded)
    target.require(removal=True)
    if lab:
        stands = standing.lab()
        if stands is None or stands.folder != str(stacks.ROOT) or not stacks.recorded(stands.stack):
            removal.of_lab(json, force)
            return
        stack = stands.stack
    elif not recorded:
        standing.refuse_lost(stack)
    chosen = choose(engine)
    stacks.require(stack)
    trust.refuse_foreign(stacks.ROOT / ".pulumi", "stacks")
    ref = stacks.named(stack)
    finish = _how("destroy", stack, "finish")
    with target.busy(stack, f"destroy of {stack}"), or_else(finish):
        target.refuse_replaced(ref)
        started = time.monotonic()
        with _progress(json) as listen, noted() as notes:
            outcome = chosen.destroy(ref, on_step=listen)
            target.finish(ref)
            left = notes()
    _conclude(outcome, chosen, json, f"in {time.monotonic() - started:.1f} s")
    for words in left:
        note(words)
    if kept := stacks.kept(stack):
        note(f"{kept} is kept for the next up of {stack}; delete it to use the name alone")


def outputs(stack: Stack, engine: EngineName = "auto", json: Json = False) -> None:
    """Print a stack's outputs: its settings and its last measurement.

    \b
    ./steerlab outputs -s rfs-plus-16 --json
    """
    from experiments.engines import stacks
    from experiments.engines.choice import choose

    chosen = choose(engine)
    stacks.require(stack, up=True)
    _print_outputs(chosen.outputs(stacks.named(stack)), json)


def measure(
    stack: Annotated[
        str, typer.Option("--stack", "-s", help="A stack that is up.", metavar="STACK")
    ],
    json: Json = False,
) -> None:
    """Repeat the measurement of a stack that is up; records go to results/STACK.

    \b
    ./steerlab measure -s rfs-plus-16
    """
    from experiments.engines import remeasured, stacks
    from experiments.engines.choice import choose
    from experiments.run import single
    from experiments.targets import TARGETS

    what = single.of_stack(stack, choose)
    alone = TARGETS[what.target].busy(stack, f"measure of {stack}")
    with alone, waiting("measuring", _expected_s(what)):
        result = single.measure(what)
        remeasured.keep(stacks.named(stack), result)
    _print_outputs(result, json)


def _how(verb: str, stack: str, why: str) -> str:
    return f"{why}: {command(verb, '-s', stack)}"


def _note_settings(ref: StackRef, changes: Mapping[str, str]) -> None:
    """Old keys, and settings that differ from the stack's name."""
    from experiments.engines import stacks

    if words := stacks.renamed(ref.name, changes):
        note(words)
    if differences := stacks.named_otherwise(ref):
        note(
            f"stack {ref.name} differs from its name: {'; '.join(differences)} "
            f"(from -c or Pulumi.{ref.name}.yaml)"
        )


def _show_drift(drift: Sequence[Drift]) -> None:
    for found in drift:
        note(f"drift: {found.name}: {found.why}")


@contextlib.contextmanager
def _progress(quiet: bool, state: StackSettings | None = None) -> Iterator[OnStep]:
    """A listener that prints each finished step, and a spinner during the measurement."""
    with contextlib.ExitStack() as running:

        def listen(step: Step) -> None:
            if quiet:
                return
            if step.phase == "start":
                if step.name == "measurement" and state is not None:
                    running.enter_context(waiting("measuring", _expected_s(state)))
                return
            running.close()
            _print_step(step)

        yield listen


def _expected_s(what: StackSettings | AnyMeasurement) -> float:
    return what.runs * (what.duration + what.omit + 1.0)


def _print_step(step: Step) -> None:
    colour = "red" if step.phase in ("failed", "skipped") else _COLOURS.get(step.operation, "dim")
    ending = "" if step.phase == "done" else f"  {step.phase}"
    detail = f"  {step.detail}" if step.detail and step.operation == "update" else ""
    line = f"  {_SIGNS[step.operation]} {step.operation:<7} {step.name}{ending}"
    err.print(Text.assemble((safe(line), colour), (safe(detail), "dim")))


def _conclude(outcome: Outcome, engine: Engine, json: bool, when: str) -> None:
    counts = Counter(step.operation for step in outcome.changes)
    if json:
        names = ("operation", "name", "urn", "detail")
        show_json(
            {
                "engine": engine.name,
                "changes": [
                    {name: getattr(step, name) for name in names} for step in outcome.changes
                ],
                "counts": counts,
                "same": outcome.same,
                "outputs": outcome.outputs,
            }
        )
        return
    _print_outputs(outcome.outputs)
    words = ", ".join(f"{count} {operation}" for operation, count in counts.items()) or "no change"
    show(f"{words}; {outcome.same} the same ({engine.name} engine, {when})")


def _print_outputs(values: Mapping[str, object], json: bool = False) -> None:
    if json:
        show_json(values)
        return
    known = {name: value for name, value in sorted(values.items()) if value is not None}
    width = max(map(len, known), default=0)
    for name, value in known.items():
        show(f"  {name:<{width}}  {_words(value)}")


def _words(value: object) -> str:
    """The value of an output for people."""
    if isinstance(value, dict):
        return "; ".join(f"{name} {_words(one)}" for name, one in value.items())
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return str(value)
