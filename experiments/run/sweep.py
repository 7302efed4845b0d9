"""A sweep: every state of a plan, converged by an engine and measured, record by record.

    from pathlib import Path
from typing import Any
    from experiments.run import matrix
    from experiments.engines.choice import choose
    from experiments.run.sweep import Sweep

    plan = matrix.plan(matrix.named("quick") | {"replicas": "4", "seed": 7})
    sweep = Sweep(Path("results/mine"), plan, choose("auto"))
    sweep.on_done = lambda done: print(done.finished, "of", done.total, done.record.configuration)
    sweep.run(sweep.prepare())

The stack is the sweep's own and its state lives in the results directory. The pods of the largest
replica count stay up; smaller counts leave the rest idle, so that only steering changes between
two runs of a block. Whatever ends a sweep, the machine is put back as it was.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis import files, sequential
from analysis.load import Fault, load, read
from analysis.pairing import StateKey
from analysis.schema import Machine, Record
from experiments import signals
from experiments.engines import Engine, EngineError, StackRef, stacks, trust
from experiments.run import attempts, measure, records
from experiments.run.plan import Run, SweepPlan, from_json, to_json
from experiments.targets import TARGETS
from experiments.targets.contract import AnyMeasurement, Target
from infra import untrusted
from infra.errors import InvalidInput, Refusal
from infra.settings import StackSettings

PLAN = "plan.json"
RECORDS = "records"

# Room for the checkpoint: a full disk must not keep the machine from being put back.
RESERVE = ".reserve"
_RESERVE_BYTES = 2**20


@dataclass(frozen=True)
class Done:
    """A finished run, for whoever shows progress."""

    run: Run
    record: Record
    finished: int
    total: int


@dataclass
class Sweep:
    """One sweep in one results directory."""

    directory: Path
    plan: SweepPlan
    engine: Engine
    max_seconds: float | None = None
    on_run: Callable[[Run], None] = lambda _: None
    on_done: Callable[[Done], None] = lambda _: None
    on_cleanup: Callable[[], None] = lambda: None
    _machines: dict[str, Machine] = field(default_factory=dict, init=False)
    _stands: tuple[str, str] | None = field(default=None, init=False)
    _nodes: Any = field(default=None, init=False)
    _judged: int | None = field(default=None, init=False)
    _needed: set[StateKey] = field(default_factory=set, init=False)

    @property
    def stack(self) -> StackRef:
        """The sweep's own stack, with the configuration of the first run.

        Known without its configurations file, which may be lost by the time it is destroyed.
        """
        values = self._values(self.plan.runs[0])
        return stacks.ref(self.directory.resolve(), self._stack_name, values)

    @property
    def target(self) -> Target:
        return TARGETS[self.plan.target or "lab"]

    def prepare(self, *, resume: bool = False) -> list[Run]:
        """Make the results directory, or check that it holds this plan; the runs still to do.

        Raises `InvalidInput` for a directory that holds another plan, or any where not to `resume`.
        """
        path = self.directory / PLAN
        _refuse_other_files(self.directory)
        trust.refuse_foreign(self.directory, PLAN, ".pulumi")
        if path.exists():
            if not resume:
                raise InvalidInput(f"out: {self.directory} holds a sweep already: give --resume")
            kept = kept_plan(self.directory)
            if kept.digest != self.plan.digest:
                raise InvalidInput(
                    f"resume: {self.directory} holds plan {kept.digest}, not {self.plan.digest}: "
                    "the same options, --seed and configurations are needed to go on"
                )
        else:
            files.folder(self.directory / RECORDS)
            files.write(path, to_json(self.plan).encode())
        return [run for run in self.plan.runs if not self._recorded(run)]

    def run(self, left: Sequence[Run]) -> int:
        """Do the runs that `prepare` left; the number of those that still are is returned.

        With `max_seconds` none is begun that would not end in time. Raises `RunsInvalid` where
        three in a row are invalid for one cause. Always ends with the lab destroyed, also when it
        is interrupted.
        """
        finished = len(self.plan.runs) - len(left)
        streak = attempts.Streak()
        end = math.inf if self.max_seconds is None else time.monotonic() + self.max_seconds
        # also where no run is left: the lab of a sweep that was killed at its end may still stand
        with self._lab():
            for run in left:
                if not self._open(run):
                    finished += 1
                    continue
                if time.monotonic() + self.plan.seconds_of(1) > end:
                    break
                self.on_run(run)
                record = self._measure(run)
                finished += 1
                self.on_done(Done(run, record, finished, len(self.plan.runs)))
                streak.judge(record)
        return len(self.plan.runs) - finished

    def _open(self, run: Run) -> bool:
        """Whether the run's state still needs runs, judged at the start of each block."""
        if self.plan.until_ci is None:
            return True
        if run.block != self._judged:
            states = {(one.path, one.replicas, one.configuration) for one in self.plan.runs}
            made = load(self.directory).records
            self._needed = sequential.open_states(made, states, self.plan.until_ci)
            self._judged = run.block
        return (run.path, run.replicas, run.configuration) in self._needed

    @contextlib.contextmanager
    def _lab(self) -> Iterator[None]:
        reserve = self.directory / RESERVE
        _set_aside(reserve)
        try:
            yield
        except Exception as error:
            self._put_back(reserve, after=f"{error}\nand then: ")
            raise
        except BaseException:
            self._put_back(reserve)
            raise
        self._put_back(reserve)

    def _put_back(self, reserve: Path, after: str = "") -> None:
        try:
            with signals.cleaning():
                self.on_cleanup()
                reserve.unlink(missing_ok=True)
                self.engine.destroy(self.stack)
                self.target.finish(self.stack)
        except Refusal as error:
            raise EngineError(
                f"{after}the lab could not be taken away: {error}", error.exit_code
            ) from error

    def _measure(self, run: Run) -> Record:
        """Converge and measure; an invalid run is repaired and tried once more."""
        stack, state = self._stack(run)
        self._converge(stack, state)
        return attempts.tried(
            lambda attempt: self._attempt(run, state, attempt),
            first=len(self._attempts(run)) + 1,
            repair=lambda: self._repair(stack),
        )

    def _converge(self, stack: StackRef, state: StackSettings) -> None:
        if self._stands is not None and self.plan.isolation == "fresh":
            self.engine.destroy(stack)
            self.engine.up(stack)
        elif self._stands is None:
            # what an earlier, killed sweep of this directory left may have drifted since
            self._repair(stack)
        elif self._stands != (state.lab.path, state.configuration):
            self.engine.up(stack)
        self._stands = (state.lab.path, state.configuration)

    def _repair(self, stack: StackRef) -> None:
        self._machines.clear()
        drift = self.target.drifted(self.engine.resources(stack))
        self.target.restore(drift)
        self.engine.up(stack, replace=[found.urn for found in drift])

    def _attempt(self, run: Run, state: StackSettings, attempt: int) -> Record:
        """One attempt, which leaves a record of its own."""
        place = measure.Place(run.block, run.order, self.plan.seed, self.plan.digest, attempt)
        record, raw = measure.run(
            self._measurement(state),
            replicas=run.replicas,
            place=place,
            on=self._machines.get(run.path),
        )
        if record.machine:
            self._machines[run.path] = record.machine
        records.write(self.directory / RECORDS, _name(run, attempt), record, raw)
        return record

    def _measurement(self, state: StackSettings) -> AnyMeasurement:
        self._nodes = self._nodes or self.target.nodes(state)
        return self.target.measurement(state, self._nodes)

    def _stack(self, run: Run) -> tuple[StackRef, StackSettings]:
        """The stack of a run. Raises `InvalidInput` where its configuration is no longer the plan's."""
        stack, state = stacks.own(self.directory.resolve(), self._stack_name, self._values(run))
        planned, now = dict(self.plan.definitions)[run.configuration], state.steering.definition
        if planned != now:
            where = state.configurations or "the built-in configurations"
            raise InvalidInput(
                f"configurations: {run.configuration} was {planned} when this sweep began and is "
                f"{now} now: restore {where} and continue with --resume, or begin another sweep"
            )
        return stack, state

    @property
    def _stack_name(self) -> str:
        return f"sweep-{self.plan.digest}"

    def _values(self, run: Run) -> dict[str, str]:
        fresh = self.plan.isolation == "fresh"
        pairs = run.replicas if fresh else max(self.plan.replicas)
        return self.plan.stack(run.configuration, pairs, run.path)

    def _attempts(self, run: Run) -> list[Record]:
        """The records of a run in the order of their attempts.

        A file that is damaged or of another plan is no attempt: the next one replaces it.
        """
        found: list[Record] = []
        while True:
            attempt = len(found) + 1
            record = read(self.directory / RECORDS / f"run-{_name(run, attempt)}.json")
            if isinstance(record, Fault) or (record.plan, record.order, record.attempt) != (
                self.plan.digest,
                run.order,
                attempt,
            ):
                return found
            found.append(record)

    def _recorded(self, run: Run) -> bool:
        """Whether the run has a valid record: a resumed sweep tries the others again."""
        return any(record.valid for record in self._attempts(run))


def _name(run: Run, attempt: int) -> str:
    again = f"-attempt{attempt}" if attempt > 1 else ""
    return f"{run.order:05d}-{run.configuration}-{run.replicas}-{run.path}{again}"


def kept_plan(directory: Path) -> SweepPlan:
    """The plan of the sweep in a results directory. Raises `InvalidInput` where there is none."""
    path = directory / PLAN
    try:
        return from_json(untrusted.content(path))
    except FileNotFoundError:
        raise InvalidInput(f"resume: there is no sweep in {directory}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"resume: {path} is not a plan: {error}") from None


def _refuse_other_files(directory: Path) -> None:
    """A sweep has a directory to itself. Raises `InvalidInput` for one that holds something else."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InvalidInput(f"out: {directory} is not a directory")
    if (directory / PLAN).exists():
        return
    own = {RECORDS, RESERVE}  # of a sweep that ended before it had a plan
    others = sorted(path.name for path in directory.iterdir() if path.name not in own)
    if others or any(directory.glob(f"{RECORDS}/*")):
        raise InvalidInput(
            f"out: {directory} holds {others[0] if others else 'records'} and no sweep: name a new "
            "directory"
        )


def _set_aside(path: Path) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
