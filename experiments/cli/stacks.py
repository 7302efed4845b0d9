"""`up`, `preview`, `destroy`, `outputs` and `measure`: one stack, one state."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from experiments.cli import terminal
from experiments.cli.terminal import err, note, safe, show, show_json, waiting
from experiments.engines import Engine, OnStep, Outcome, StackRef, Step
from infra.commands import command

if TYPE_CHECKING:
    from experiments.targets.contract import AnyMeasurement, Drift
    from experiments.targets.lab.standing import Lab
    from infra.config import StackSettings

Stack = Annotated[
    str,
    typer.Option(
        "--stack",
        "-s",
        help="<configuration>-<replicas>, such as rfs-plus-16; or lab.",
        metavar="STACK",
    ),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config", "-c", help="Set and keep key=value, as Pulumi does.", metavar="KEY=VALUE"
    ),
]
Tried = Annotated[
    list[str] | None,
    typer.Option("--config", "-c", help="Try key=value; nothing is kept.", metavar="KEY=VALUE"),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="auto, pulumi or embedded.", metavar="ENGINE")
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
    """Converge a state and measure it; what drifted is found and repaired."""
    from experiments import targets
    from experiments.engines import stacks, trust
    from experiments.engines.choice import choose
    from experiments.targets.lab import standing
    from experiments.targets.lab.drift import restore

    changes = stacks.changes(config or [])
    ref, state = stacks.load(stack, changes)
    targets.require_for(state)
    chosen = choose(engine)
    _tell_if_named_otherwise(ref)
    trust.refuse_foreign(stacks.ROOT / ".pulumi", "stacks")
    undo = _how("up", stack, "continue"), _how("destroy", stack, "remove what was made")
    with targets.busy(state.target, stack, f"up of {stack}"), _or_else(*undo):
        if state.target == "lab":
            standing.refuse_foreign(ref)
        stacks.save(stack, changes)
        drift = targets.drifted(chosen.resources(ref))
        _tell(drift)
        restore(drift)
        started = time.monotonic()
        with _told(json, state) as listen:
            outcome = chosen.up(ref, replace=[found.urn for found in drift], on_step=listen)
    _conclude(outcome, chosen, json, f"in {time.monotonic() - started:.1f} s")


def preview(
    stack: Stack, config: Tried = None, engine: EngineName = "auto", json: Json = False
) -> None:
    """Say what `up` would do, and do nothing."""
    from experiments import targets
    from experiments.engines import stacks
    from experiments.engines.choice import choose

    ref, state = stacks.load(stack, stacks.changes(config or []))
    targets.require_for(state)
    chosen = choose(engine)
    _tell_if_named_otherwise(ref)
    drift = targets.drifted(chosen.resources(ref))
    _tell(drift)
    outcome = chosen.preview(ref, replace=[found.urn for found in drift])
    if not json:
        for step in outcome.changes:
            _print_step(step)
    _conclude(outcome, chosen, json, "planned")


def destroy(
    stack: Annotated[
        str, typer.Option("--stack", "-s", help="The stack to destroy.", metavar="STACK")
    ] = "",
    lab: Annotated[
        bool,
        typer.Option(
            "--lab",
            help="The lab that stands on this machine, also of a stack whose state is lost.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --lab: also the lab of another checkout.")
    ] = False,
    engine: EngineName = "auto",
    json: Json = False,
) -> None:
    """Put every node back as it was and take the stack's lab away.

    \b
    ./steerlab destroy -s rfs-plus-16
    ./steerlab destroy --lab

    The second needs no state: for what a killed sweep or a deleted folder left standing. The stack's
    configuration file stays.
    """
    from experiments import targets
    from experiments.engines import stacks, trust
    from experiments.engines.choice import choose
    from experiments.targets.lab import standing
    from infra.errors import InvalidInput, Refusal

    if lab == bool(stack):
        raise InvalidInput("destroy: give either --stack STACK or --lab")
    recorded = stacks.recorded(stack) if stack else []
    target = targets.of(recorded)
    targets.require(target, removal=True)
    stands = standing.lab() if target == "lab" else None
    if lab:
        if stands is None or stands.folder != str(stacks.ROOT) or not stacks.recorded(stands.stack):
            _take_away(json, force)
            return
        stack = stands.stack
        recorded = stacks.recorded(stack)
    ref = stacks.named(stack)
    if not recorded and stands and stands.stack == stack:
        raise Refusal(
            f"stack {stack} has no state in {stacks.ROOT}, but the lab of {stands} stands on this "
            f"machine: {command('destroy', '--lab')} (a sweep: {command('sweep', '--resume', '--out')} "
            "DIR)"
        )
    chosen = choose(engine)
    stacks.require(stack)
    trust.refuse_foreign(stacks.ROOT / ".pulumi", "stacks")
    finish = _how("destroy", stack, "finish")
    with targets.busy(target, stack, f"destroy of {stack}"), _or_else(finish):
        started = time.monotonic()
        with _told(json) as listen:
            outcome = chosen.destroy(ref, on_step=listen)
            standing.finish(ref)
    _conclude(outcome, chosen, json, f"in {time.monotonic() - started:.1f} s")
    if kept := stacks.kept(stack):
        note(
            f"{kept} stays, and the next up of {stack} reads it; delete it to follow the name alone"
        )


def _take_away(json: bool, force: bool) -> None:
    from experiments import signals
    from experiments.host import lock
    from experiments.targets.lab import standing

    with lock.machine("destroy of the lab"), _or_else(f"finish: {command('destroy', '--lab')}"):
        stands = standing.lab()
        if stands and not force:
            _ask_about(stands)
        with waiting("restoring", 1), signals.cleaning():
            answer = standing.take_away(stands) if stands else None
    if json:
        show_json(answer or {"stack": None})
    elif answer is None:
        show("no lab stands on this machine")
    else:
        show(f"restored {answer['restored']} values; the lab of stack {stands} is gone")
        for words in answer["left"]:
            show(words)


def _ask_about(stands: Lab) -> None:
    """A lab that another checkout can still destroy is its owner's."""
    from experiments.engines import stacks
    from infra.errors import InvalidInput

    if stands.folder == str(stacks.ROOT) or not Path(stands.folder).exists():
        return
    whose = f"the lab on this machine is of stack {stands}, another checkout than {stacks.ROOT}"
    if not (sys.stdin.isatty() and err.file.isatty()):
        raise InvalidInput(f"destroy: {whose}: destroy it there, or add --force")
    note(whose)
    if not typer.confirm("Remove it?", err=True):
        raise InvalidInput("destroy: nothing was removed")


def outputs(stack: Stack, engine: EngineName = "auto", json: Json = False) -> None:
    """Print the stack's outputs: the state and its last measurement, by `up` or by `measure`."""
    from experiments.engines import stacks
    from experiments.engines.choice import choose

    chosen = choose(engine)
    stacks.require(stack, up=True)
    values = chosen.outputs(stacks.named(stack))
    if json:
        show_json(values)
    else:
        _print_outputs(values)


def measure(
    stack: Annotated[str, typer.Option("--stack", "-s", help="A stack that is up.")],
    json: Json = False,
) -> None:
    """Measure a converged stack again; records go to results/STACK."""
    from experiments import targets
    from experiments.engines import remeasured, stacks
    from experiments.engines.choice import choose
    from experiments.run import single

    what = single.of_stack(stack, choose)
    alone = targets.busy(what.target, what.stack, f"measure of {what.stack}")
    with alone, waiting("measuring", _expected_s(what)):
        result = single.measure(what)
        remeasured.keep(stacks.named(stack), result)
    if json:
        show_json(result)
    else:
        _print_outputs(result)


def _how(verb: str, stack: str, why: str) -> str:
    return f"{why}: {command(verb, '-s', stack)}"


@contextlib.contextmanager
def _or_else(*ways: str) -> Iterator[None]:
    """Of an interrupted command, show how its work is finished or undone."""
    try:
        yield
    except KeyboardInterrupt:
        for way in ways:
            note(f"not finished; {way}")
        raise


def _tell_if_named_otherwise(ref: StackRef) -> None:
    from experiments.engines import stacks

    if differences := stacks.named_otherwise(ref):
        note(
            f"stack {ref.name} is not what its name says: {'; '.join(differences)} "
            f"(from -c or Pulumi.{ref.name}.yaml)"
        )


def _tell(drift: Sequence[Drift]) -> None:
    for found in drift:
        note(f"drift: {found.name}: {found.why}")


@contextlib.contextmanager
def _told(quiet: bool, state: StackSettings | None = None) -> Iterator[OnStep]:
    """A listener that prints each finished step and shows that the measurement runs."""
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
    counts: dict[str, int] = {}
    for step in outcome.changes:
        counts[step.operation] = counts.get(step.operation, 0) + 1
    if json:
        show_json(
            {
                "engine": engine.name,
                "changes": [
                    {
                        "operation": step.operation,
                        "name": step.name,
                        "urn": step.urn,
                        "detail": step.detail,
                    }
                    for step in outcome.changes
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


def _print_outputs(values: Mapping[str, object]) -> None:
    known = {name: value for name, value in sorted(values.items()) if value is not None}
    width = max(map(len, known), default=0)
    for name, value in known.items():
        show(f"  {name:<{width}}  {value}")
