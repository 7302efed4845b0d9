"""A tuning: a race of configurations by episodes of switchback, its confirmation, and the answer.

    state = tune_plan.plan(wanted, minutes=3, by="bitrate_mbps")
    job = Tune(Path("results/mine"), state, choose("auto"))
    job.prepare()
    job.run()
    print(job.tuning.answer())

Below the results directory, `race` has the records of the race, and `confirmation` is a sweep of the
recommended configuration and the baseline, of which `report` writes a page.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from analysis import files
from analysis.race import Costs, Race, Standing
from analysis.schema import Machine, Record
from analysis.tuning import LENGTH, Phase
from experiments.engines import Engine, StackRef, trust
from experiments.run import arms as candidates
from experiments.run import attempts, episodes, measure, records, switchback
from experiments.run import plan as plans
from experiments.run import tune_state as states
from experiments.run.arms import Arm
from experiments.run.stage import Stage
from experiments.run.sweep import PLAN, RECORDS, Done, Sweep
from experiments.run.tune_plan import most_arms, timing_of
from experiments.run.tune_state import FILE, Joined, Kept
from experiments.run.tune_values import BASELINE, next_block
from experiments.run.tuned import CONFIRMATION, JOINING, RACE, Tuned
from experiments.targets import TARGETS
from experiments.targets.contract import AnyMeasurement
from infra import config, configurations
from infra.errors import InvalidInput, Refusal

_ORDERS = 1000  # numbers of records in an episode


class Progress(NamedTuple):
    """How far a tuning is after an episode; `standing` has the numbers of `names`."""

    phase: Phase
    names: Sequence[str]
    standing: Standing
    gain: (
        float | None
    )  # of the leader over the baseline, as a difference of logarithms; higher is better
    used: float
    budget: float
    problem: str = ""


@dataclass
class Tune(Tuned):
    """A tuning that is run in its results directory."""

    engine: Engine
    on_progress: Callable[[Progress], None] = lambda _: None
    on_cleanup: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    _stage: Stage = field(init=False)
    _whats: dict[str, AnyMeasurement] = field(default_factory=dict, init=False)
    _machine: Machine | None = field(default=None, init=False)
    _before: float = field(default=0.0, init=False)
    _started: float | None = field(default=None, init=False)
    _around: list[float] = field(default_factory=list, init=False)
    _lengths: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.target = TARGETS[self.asked.target or "lab"]
        name = f"tune-{self.state.digest}"
        self._stage = Stage(self.directory, name, self.engine, self.target)
        self._before = self.state.used

    @property
    def stack(self) -> StackRef:
        return self._stage.ref(self._values(BASELINE))

    @property
    def used(self) -> float:
        """Seconds since the first episode began."""
        return self._before + (0.0 if self._started is None else self.clock() - self._started)

    # --- state ---

    def prepare(self, *, resume: bool = False) -> None:
        """Create the results directory, or go on where it is. Raises `InvalidInput`."""
        trust.refuse_foreign(self.directory, FILE, ".pulumi")
        if not resume:
            states.refuse_used(self.directory)
            files.folder(self.directory)
            self._keep()
            return
        states.write(self.directory, self.state)
        self._replay()

    def _renew(self) -> None:
        super()._renew()
        if self.state.generated and not self.state.joined:
            self.tuning.combine = self._combine

    def _keep(self, **changes: Any) -> None:
        self.state = self.state.with_(used=round(self.used, 3), **changes)
        states.write(self.directory, self.state)

    # --- stack ---

    def _values(self, name: str) -> dict[str, str]:
        asked = self.asked
        return asked.stack(name, asked.replicas[0], asked.paths[0])

    def _what(self, name: str) -> AnyMeasurement:
        if name not in self._whats:
            _, state = self._stage.settings(self._values(name))
            self._whats[name] = self._stage.measurement(state)
        return self._whats[name]

    def run(self) -> None:
        """Race, then confirm. The stack is always destroyed, also after an interrupt.

        Raises `RunsInvalid` after three invalid episodes in a row with one cause.
        """
        with self._stage.restoring(self.stack, self.on_cleanup):
            stack, state = self._stage.settings(self._values(BASELINE))
            self._stage.converge(stack, state)
            if not self.state.examined:
                arms, left_out = self._examined([one.arm for one in self.state.arms[1:]])
                if not arms:
                    raise InvalidInput("tune: no arm changes anything on this node")
                most = most_arms(self.state) - 1
                left_out += [
                    (arm.name, f"there is no time for it in {self.state.minutes:g} minutes")
                    for arm in arms[most:]
                ]
                arms = [self.state.arms[0].arm, *arms[:most]]
                self._keep(
                    examined=True,
                    arms=tuple(map(Kept.of, arms)),
                    left_out=(*self.state.left_out, *left_out),
                )
                self._renew()
            self._started = self.clock()
            self._race(stack)
            self._confirm()

    def _examined(self, arms: Sequence[Arm]) -> tuple[list[Arm], list[tuple[str, str]]]:
        """The arms that the node can have and that differ there; the others with the reason.

        The node's agent compares the plan of each with the machine, which has that of the baseline.
        """
        found: list[Arm] = []
        left_out: list[tuple[str, str]] = []
        seen: dict[Any, str] = {}
        at = self.target.backend(self._what(BASELINE))
        for arm in arms:
            try:
                changes = at.preview(self._what(arm.name))
            except Refusal as error:
                left_out.append((arm.name, str(error)[: states.LONGEST]))
                continue
            key = frozenset((one["where"], one["knob"], one["wanted"]) for one in changes)
            same = seen.get(key, "" if key else BASELINE)
            if same:
                left_out.append((arm.name, f"is the same as {same} here"))
            else:
                seen[key] = arm.name
                found.append(arm)
        return found, left_out

    # --- race ---

    def _race(self, stack: StackRef) -> None:
        streak = attempts.Streak()
        draw = random.Random(self.asked.seed + self.tuning.race.episodes)  # noqa: S311 an order, not a secret
        block = next_block(self.directory / RACE)
        while (step := self.tuning.step(self.used)) and step.phase == "race":
            names = [self.state.names[arm] for arm in draw.sample(step.arms, len(step.arms))]
            timing = self._timing(names)
            began = self.clock()
            made = self._episode(names, block, timing)
            self._time(self.clock() - began, timing, len(names))
            counts = self._learn(made, names, RACE)
            self._keep()
            key = next(record for record in made if record.configuration == _key(names))
            problem = "" if counts else "; ".join(key.reasons[:1]) or "too few valid windows"
            self._tell(RACE, problem)
            streak.judge(key)
            if not counts:
                self._machine = None
                self._stage.repair(stack)
            block += 1
        if self.state.planned is None:
            arm = self.tuning.standing.recommended
            self._keep(planned=self.tuning.planned, recommended=self.state.names[arm])

    def _timing(self, names: Sequence[str]) -> episodes.Timing:
        """The windows of an episode in this order."""
        timing = timing_of(self.asked)
        if not self.state.by_change:
            return timing
        known = {one.name: one.arm.configuration for one in self.state.arms}
        settles = episodes.settles_of(known[BASELINE], [known[name] for name in names])
        return timing._replace(settles=settles)

    def _episode(self, names: Sequence[str], block: int, timing: episodes.Timing) -> list[Record]:
        asked = self.asked
        places = [
            measure.Place(block, block * _ORDERS + number, asked.seed, self.state.digest)
            for number in range(len(names))
        ]
        made = switchback.run(
            [self._what(name) for name in names],
            _key(names),
            replicas=asked.replicas[0],
            timing=timing,
            places=places,
            on=self._machine,
            base=self._what(BASELINE),
        )
        self._machine = made[0].machine or self._machine
        for place, record in zip(places, made, strict=True):
            name = f"{place.order:07d}-{record.configuration}"
            records.write(self.directory / RACE / RECORDS, name, record)
        return made

    def _time(self, seconds: float, timing: episodes.Timing, windows: int) -> None:
        """Learn how long a window takes, and an episode beside its windows."""
        spent = timing.end(windows) - timing.warm_up
        self._lengths.append(spent / windows)
        self._around.append(max(0.0, seconds - spent))
        self.tuning.costs = Costs(statistics.median(self._around), statistics.median(self._lengths))

    def _combine(self, race: Race) -> list[int]:
        """Pairs of what helped so far, which join the race."""
        arms = [one.arm for one in self.state.arms]
        helped = [arms[number] for number, gain, error in race.gains() if gain > error]
        pairs = candidates.combined(helped, arms, JOINING)
        # the plans are made from the file; it is kept whole once they are known to be possible
        states.write_arms(self.directory, [*arms, *pairs])
        fit, left_out = self._examined(pairs)
        self._keep(
            arms=tuple(map(Kept.of, [*arms, *fit])),
            left_out=(*self.state.left_out, *left_out),
            joined=Joined(race.episodes, len(arms)),
        )
        return [arm.complexity for arm in fit]

    # --- confirmation ---

    def _confirm(self) -> None:
        if not self.state.planned or self.state.recommended is None:
            return
        sweep = self._sweep()
        path = sweep.directory / PLAN
        left = sweep.prepare(resume=path.exists())

        def done(one: Done) -> None:
            if one.record.configuration != self.state.recommended:
                return  # an episode has two records; without a baseline both are invalid
            problem = "" if one.record.valid else "; ".join(one.record.reasons[:1])
            self._tell(CONFIRMATION, problem)

        sweep.on_done = done
        try:
            sweep.run(left)
        finally:
            self._learn_confirmation()
            self._keep()

    def _sweep(self) -> Sweep:
        """The confirmation as a sweep on the same stack."""
        asked = self.asked
        names = (BASELINE, self.state.recommended or BASELINE)
        update = {
            "configurations": names,
            "blocks": self.state.planned,
            "window": LENGTH * asked.window,
            **({"settle": self._timing(names).settles[1]} if self.state.by_change else {}),
        }
        made = plans.make(
            asked.model_copy(update=update),
            known=configurations.load(asked.own),
            cpus=self.target.cpus(config.state("tune", self._values(BASELINE))),
        )
        return Sweep(self.directory / CONFIRMATION, made, self.engine, stage=self._stage)

    def _tell(self, phase: Phase, problem: str) -> None:
        budget = 60 * self.state.minutes
        standing = self.tuning.standing
        gain = self.tuning.race.level(standing.leader)
        self.on_progress(
            Progress(phase, self.state.names, standing, gain, self.used, budget, problem)
        )


def _key(names: Sequence[str]) -> str:
    """The configuration without whose window an episode does not count."""
    return BASELINE if BASELINE in names else names[0]
