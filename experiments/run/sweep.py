"""A sweep: every run of a plan, set up by an engine and measured, with a record for each run.

    from pathlib import Path
    from experiments.run import matrix
    from experiments.engines.choice import choose
    from experiments.run.sweep import Sweep

    plan = matrix.plan(matrix.named("quick") | {"replicas": "4", "seed": 7})
    sweep = Sweep(Path("results/mine"), plan, choose("auto"))
    sweep.on_done = lambda done: print(done.finished, "of", done.total, done.record.configuration)
    sweep.run(sweep.prepare())

A sweep has a stack of its own, whose state is in the results directory. The pods of the largest
replica count stay up; with smaller counts the others are idle, so that only steering changes
between two runs of a block. However a sweep ends, the machine is restored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis import files, paths, sequential
from analysis.load import Fault, load, read
from analysis.pairing import StateKey
from analysis.schema import Machine, Record
from experiments.engines import Engine, StackRef, trust
from experiments.run import attempts, measure, records, switchback
from experiments.run.plan import Run, SweepPlan, from_json, to_json
from experiments.run.stage import RESERVE, Stage
from experiments.targets import TARGETS
from experiments.targets.contract import Target
from infra import untrusted
from infra.errors import InvalidInput
from infra.settings import StackSettings

PLAN = "plan.json"
RECORDS = "records"


@dataclass(frozen=True)
class Done:
    """A finished run, for displays of progress."""

    run: Run
    record: Record
    finished: int
    total: int


@dataclass
class Sweep:
    """One sweep in one results directory.

    `stage` is that of an experiment of which this sweep is a part, and which destroys it.
    """

    directory: Path
    plan: SweepPlan
    engine: Engine
    max_seconds: float | None = None
    stage: Stage | None = None
    on_run: Callable[[Run], None] = lambda _: None
    on_done: Callable[[Done], None] = lambda _: None
    on_cleanup: Callable[[], None] = lambda: None
    # by path and configuration, which may set an offload
    _machines: dict[tuple[str, str], Machine] = field(default_factory=dict, init=False)
    _stage: Stage = field(init=False)
    _block: int | None = field(default=None, init=False)
    _needed: set[StateKey] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        name, fresh = f"sweep-{self.plan.digest}", self.plan.isolation == "fresh"
        self._stage = self.stage or Stage(self.directory, name, self.engine, self.target, fresh)
        self._stage.on_repair = self._machines.clear

    @property
    def stack(self) -> StackRef:
        """The sweep's stack, with the configuration of the first run."""
        return self._stage.ref(self._values(self.plan.runs[0]))

    @property
    def target(self) -> Target:
        return TARGETS[self.plan.target or "lab"]

    def prepare(self, *, resume: bool = False) -> list[Run]:
        """Create the results directory, or check that its plan is this one; returns the missing runs.

        Raises `InvalidInput` for a directory with another plan, or with any plan unless `resume`.
        """
        path = self.directory / PLAN
        _refuse_other_files(self.directory)
        trust.refuse_foreign(self.directory, PLAN, ".pulumi")
        if path.exists():
            if not resume:
                raise InvalidInput(f"out: {self.directory} has a sweep already: add --resume")
            kept = kept_plan(self.directory)
            if kept.digest != self.plan.digest:
                raise InvalidInput(
                    f"resume: {self.directory} has plan {kept.digest}, not {self.plan.digest}: "
                    "continue with the same options, --seed and configurations"
                )
        else:
            files.folder(self.directory / RECORDS)
            files.write(path, to_json(self.plan).encode())
        return [run for runs in self.plan.groups(self.plan.runs) for run in self._left(runs)]

    def run(self, left: Sequence[Run]) -> int:
        """Do the runs that `prepare` returned; returns the number of runs that are still missing.

        With `max_seconds` no run starts that would exceed it. Raises `RunsInvalid` after three
        invalid runs in a row with one cause. The stack is always destroyed, also after an interrupt.
        """
        if self.stage:
            return self._runs(left)
        # also without a missing run: a sweep that was killed at its end may have left its stack
        with self._stage.restoring(self.stack, self.on_cleanup):
            return self._runs(left)

    def _runs(self, left: Sequence[Run]) -> int:
        finished = len(self.plan.runs) - len(left)
        streak = attempts.Streak()
        end = math.inf if self.max_seconds is None else time.monotonic() + self.max_seconds
        for group in self.plan.groups(left):
            runs = [run for run in group if self._open(run)]
            finished += len(group) - len(runs)
            if not runs:
                continue
            if time.monotonic() + self.plan.seconds_of(len(runs)) > end:
                break
            for run in runs:
                self.on_run(run)
            records = dict(zip(runs, self._measure(runs), strict=True))
            for run, record in records.items():
                finished += 1
                self.on_done(Done(run, record, finished, len(self.plan.runs)))
            streak.judge(records[self.plan.key(runs)])
        return len(self.plan.runs) - finished

    def _open(self, run: Run) -> bool:
        """Whether its configuration needs more runs, decided at the start of each block."""
        if self.plan.until_ci is None:
            return True
        if run.block != self._block:
            states = {(one.path, one.replicas, one.configuration) for one in self.plan.runs}
            made = [
                one.model_copy(update={"path": paths.planned(one.path)})
                for one in load(self.directory).records
            ]
            self._needed = sequential.open_states(
                made, states, self.plan.until_ci, baseline=self.plan.baseline
            )
            self._block = run.block
        return (run.path, run.replicas, run.configuration) in self._needed

    def _measure(self, runs: Sequence[Run]) -> Sequence[Record]:
        """Set up and measure; after an invalid attempt the stack is repaired and measured again."""
        key = self.plan.key(runs)
        stack, state = self._stack(key)
        self._stage.converge(stack, state)
        episode = self.plan.method == "switchback"
        return attempts.tried(
            lambda attempt: (
                self._episode(runs, attempt) if episode else [self._attempt(key, state, attempt)]
            ),
            first=len(self._attempts(key)) + 1,
            repair=lambda: self._stage.repair(stack),
        )

    def _attempt(self, run: Run, state: StackSettings, attempt: int) -> Record:
        """One attempt, with a record of its own."""
        record, raw = measure.run(
            self._stage.measurement(state),
            replicas=run.replicas,
            place=self._place(run, attempt),
            on=self._machines.get((run.path, run.configuration)),
        )
        if record.machine:
            self._machines[run.path, run.configuration] = record.machine
        records.write(self.directory / RECORDS, _name(run, attempt), record, raw)
        return record

    def _episode(self, runs: Sequence[Run], attempt: int) -> list[Record]:
        """One attempt at an episode, with a record for each of its runs; that of the key is the last."""
        key = self.plan.key(runs)
        made = switchback.run(
            [self._stage.measurement(self._stack(run)[1]) for run in runs],
            key.configuration,
            replicas=key.replicas,
            timing=self.plan.timing(key.replicas),
            places=[self._place(run, attempt) for run in runs],
            on=self._machines.get((key.path, key.configuration)),
        )
        if made[0].machine:
            self._machines[key.path, key.configuration] = made[0].machine
        for run, record in sorted(zip(runs, made, strict=True), key=lambda one: one[0] == key):
            records.write(self.directory / RECORDS, _name(run, attempt), record)
        return made

    def _place(self, run: Run, attempt: int) -> measure.Place:
        return measure.Place(run.block, run.order, self.plan.seed, self.plan.digest, attempt)

    def _stack(self, run: Run) -> tuple[StackRef, StackSettings]:
        """The stack of a run. Raises `InvalidInput` where its configuration is no longer the plan's."""
        stack, state = self._stage.settings(self._values(run))
        planned, now = dict(self.plan.definitions)[run.configuration], state.steering.definition
        if planned != now:
            where = state.configurations or "the built-in configurations"
            raise InvalidInput(
                f"configurations: {run.configuration} was {planned} when this sweep started and is "
                f"{now} now: restore {where} and continue with --resume, or start another sweep"
            )
        return stack, state

    def _values(self, run: Run) -> dict[str, str]:
        fresh = self.plan.isolation == "fresh"
        pairs = run.replicas if fresh else max(self.plan.replicas)
        return self.plan.stack(run.configuration, pairs, run.path)

    def _attempts(self, run: Run) -> list[Record]:
        """The records of a run in the order of their attempts.

        A file that is damaged or of another plan is ignored and replaced.
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

    def _left(self, runs: Sequence[Run]) -> Sequence[Run]:
        """These runs if they must be repeated: the one that counts has no valid record.

        Of an episode that was interrupted while its records were written some may exist, without
        that one, which is the last; they are removed.
        """
        key = self.plan.key(runs)
        kept = self._attempts(key)
        for run in runs if len(runs) > 1 else ():
            again = _name(run, len(kept) + 1)
            (self.directory / RECORDS / f"run-{again}.json").unlink(missing_ok=True)
        return [] if any(record.valid for record in kept) else runs


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
    """Raise `InvalidInput` for a directory that has other files than those of a sweep."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InvalidInput(f"out: {directory} is not a directory")
    if (directory / PLAN).exists():
        return
    own = {RECORDS, RESERVE}  # of a sweep that was killed before it had a plan
    others = sorted(path.name for path in directory.iterdir() if path.name not in own)
    if others or any(directory.glob(f"{RECORDS}/*")):
        raise InvalidInput(
            f"out: {directory} has {others[0] if others else 'records'} and no sweep: choose a new "
            "directory"
        )
