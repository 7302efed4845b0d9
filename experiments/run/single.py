"""The measurement of one stack: its runs, their records and its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from shlex import quote
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from analysis.machine import unlike_nodes
from analysis.metrics import BITRATE, METRICS, over_cores
from analysis.schema import Machine, Record
from experiments import targets
from experiments.engines import Engine, EngineError, stacks
from experiments.run import attempts, records
from experiments.run import measure as one
from experiments.targets import TARGETS
from experiments.targets.contract import AnyMeasurement
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.measured import LATENCY, NAME

RESULTS = stacks.ROOT / "results"
_MOST_CHANGES = 4

_ANY: TypeAdapter[AnyMeasurement] = TypeAdapter(
    Annotated[AnyMeasurement, Field(discriminator="target")]
)


def declared(document: Any) -> AnyMeasurement:
    """The measurement of a stack, as its program declared it."""
    try:
        what = _ANY.validate_python(document)
    except ValidationError as error:
        raise InvalidInput(
            f"measure: stdin contains no measurement: {error.errors()[0]['msg']}"
        ) from None
    TARGETS[what.target].require(what.traffic)
    return what


def of_stack(name: str, engine: Callable[[], Engine]) -> AnyMeasurement:
    """The measurement of a stack that is up; at least one run.

    Raises `PrerequisiteMissing` where the last `up` was of other settings than the stack has now.
    """
    ref, state = stacks.load(name)
    target = TARGETS[state.target]
    target.require(state.traffic)
    what = target.measurement(state, target.nodes(state))
    target.require_up(what)
    changes = [step for step in engine().preview(ref).changes if step.name != NAME]
    if changes:
        words = ", ".join(f"{step.operation} {step.name}" for step in changes[:_MOST_CHANGES])
        more = f" and {len(changes) - _MOST_CHANGES} more" if len(changes) > _MOST_CHANGES else ""
        raise PrerequisiteMissing(
            f"measure: stack {name} is not as Pulumi.{name}.yaml and its configurations declare "
            f"({words}{more}): ./steerlab up -s {quote(name)}"
        )
    return what.model_copy(update={"runs": max(1, what.runs)})


def measure(what: AnyMeasurement) -> dict[str, Any]:
    """Make the runs, each with a second attempt, and summarise the valid ones.

    Every attempt has a record. Raises `EngineError` if no run is valid, or after three invalid
    runs in a row with one cause.
    """
    directory = RESULTS / what.stack
    on: Machine | None = None

    def attempt(number: int) -> list[Record]:
        nonlocal on
        record, raw = one.run(what, place=one.Place(attempt=number), on=on)
        on = on or record.machine
        stamp = (record.start or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S.%f")
        records.write(directory, f"{stamp}-{what.configuration}-{what.replicas}", record, raw)
        return [record]

    streak = attempts.Streak()
    made: list[Record] = []
    for _ in range(what.runs):
        made += attempts.tried(attempt)
        try:
            streak.judge(made[-1])
        except attempts.RunsInvalid as error:
            raise EngineError(f"{error}\n{_explained(what, made[-1])}") from None
    valid = [record for record in made if record.valid]
    if not valid:
        raise EngineError(_explained(what, made[-1]))
    return {
        **_summed(valid),
        "valid_runs": len(valid),
        "directory": str(directory),
    }


def _explained(what: AnyMeasurement, record: Record) -> str:
    """Why the run is invalid and, where the stack drifted, the command that repairs it."""
    words = f"the run of {what.stack} is invalid: {'; '.join(record.reasons)}"
    recorded = stacks.recorded(what.stack)
    drift = targets.of(recorded).drifted(recorded)
    if not drift:
        return words
    replace = " ".join(f"--replace {quote(found.urn)}" for found in drift)
    return (
        f"{words}\n{'; '.join(f'{found.name}: {found.why}' for found in drift)}\n"
        f"repair it with ./steerlab up -s {what.stack}\n"
        f"or with pulumi up -s {what.stack} {replace}"
    )


def _summed(done: Sequence[Record]) -> dict[str, Any]:
    """The means of these runs, and for several server nodes the bitrate of each: without the means where
    nodes are not alike.
    """
    unlike = [words for record in done for words in unlike_nodes(record)]
    nodes = sorted({p.server_node for record in done for p in record.pairs if p.server_node})
    if len(nodes) < 2:
        return _means(done)
    own = {
        node: _rounded(_mean(_known(BITRATE.value(record.on(node)) for record in done)))
        for node in nodes
    }
    means = dict.fromkeys(_means(done)) if unlike else _means(done)
    return {**means, "bitrate_by_node": own, "unlike_nodes": list(dict.fromkeys(unlike)) or None}


def _means(done: Sequence[Record]) -> dict[str, Any]:
    rates = _known(map(BITRATE.value, done))
    return {
        "bitrate_mbps": _rounded(_mean(rates)),
        "bitrate_ci": _interval(rates),
        **{name: _rounded(_mean(_known(map(METRICS[name].value, done)))) for name in LATENCY},
        "idle_percent": _rounded(_mean(_per_run(done, "idle"))),
        "softirq_percent": _rounded(_mean(_per_run(done, "soft"))),
    }


def _per_run(done: Sequence[Record], state: Literal["soft", "idle"]) -> list[float]:
    """The mean over the server's cores, of each run."""
    return _known(map(over_cores(attrgetter(state), fmean), done))


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _interval(rates: Sequence[float]) -> list[float] | None:
    """95 % t interval of the mean run; None for a single run, which has no spread."""
    if len(rates) < 2:
        return None
    from scipy import stats

    low, high = stats.t.interval(
        0.95, len(rates) - 1, loc=stats.tmean(rates), scale=stats.sem(rates)
    )
    return [round(float(low), 2), round(float(high), 2)]
