"""A tuning as its directory has it: its state, and the evidence of its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from analysis.limits import parse_all
from analysis.metrics import METRICS
from analysis.race import Aims, Race
from analysis.schema import Record
from analysis.tuning import Phase, Step, Tuning
from experiments.run import tune_state as states
from experiments.run.options import Options
from experiments.run.tune_plan import costs_of
from experiments.run.tune_state import ARMS, Kept, TuneState
from experiments.run.tune_values import BASELINE, by_block, measured
from infra import keys
from infra.complaints import complaint
from infra.errors import InvalidInput
from infra.settings import Lab

RACE: Phase = "race"
CONFIRMATION: Phase = "confirmation"
# Arms that may join, of what helped.
JOINING = 6
# Windows of an arm without a valid one, after which it is out.
FAILURES = 2
AIMS = Aims()


@dataclass
class Tuned:
    """One tuning: `tuning` has the evidence, `failing` the arms that cannot be measured, with the reason."""

    directory: Path
    state: TuneState
    tuning: Tuning = field(init=False)
    failing: dict[str, str] = field(default_factory=dict, init=False)
    _failures: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.by = METRICS[self.state.by]
        self.limits = parse_all(self.asked.limits)
        self._renew()

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The tuning in a results directory, which is only read. Raises `InvalidInput`."""
        found = cls(directory, states.read(directory))
        found._replay()
        found._learn_confirmation()
        return found

    @cached_property
    def asked(self) -> Options:
        """The options, with the arms' file."""
        own = str((self.directory / ARMS).resolve())
        return self.state.asked.model_copy(update={"own": own})

    @property
    def lab(self) -> Lab | None:
        """The settings of the lab that were asked for; None on a cluster."""
        if (self.asked.target or "lab") != "lab":
            return None
        given = keys.document(dict(self.asked.settings)).get("lab", {})
        try:
            return Lab.model_validate(keys.structure(given))
        except ValidationError as error:
            raise InvalidInput(f"lab: {complaint(error, Lab)}") from None

    @property
    def used(self) -> float:
        """Seconds since the first episode began, without those between two parts of the tuning."""
        return self.state.used

    def _renew(self) -> None:
        """Race and confirmation from their start, for the present arms."""
        joined = self.state.joined
        first = self.state.arms[: joined.first if joined else None]
        most = len(first) + (JOINING if self.state.generated else 0)
        race = Race(_complexity(first), limits=len(self.limits), most=most, aims=AIMS)
        self.tuning = Tuning(race, costs_of(self.asked), 60 * self.state.minutes)

    def _replay(self) -> None:
        """The evidence of the race's records."""
        joined = self.state.joined
        race = self.tuning.race
        for made in by_block(self.directory / RACE):
            if joined and race.episodes == joined.episodes and joined.first < len(self.state.arms):
                race.join(_complexity(self.state.arms[joined.first :]))
                joined = None
            self._learn(made, self.state.names, RACE)
        if joined and joined.first < len(self.state.arms):
            race.join(_complexity(self.state.arms[joined.first :]))
        if self.state.planned is not None:
            self.tuning.confirm(self.state.planned)

    def _learn_confirmation(self) -> None:
        """The evidence of the confirmation's records."""
        if self.state.recommended is not None:
            for made in by_block(self.directory / CONFIRMATION):
                self._learn(made, [self.state.recommended, BASELINE], CONFIRMATION)

    def _learn(self, made: Sequence[Record], names: Sequence[str], phase: Phase) -> bool:
        """Add an episode as far as it is of these arms; whether it counts."""
        known = [record for record in made if record.configuration in names]
        found = measured(sorted(known, key=_place_in(names)), self.by, self.limits)
        numbers = {name: number for number, name in enumerate(self.state.names)}
        arms = tuple(numbers[name] for name in found.names) if found else ()
        if phase == "confirmation" and len(arms) < len(names):
            found = None
        logs, excesses = (found.logs, found.excesses) if found else (None, ())
        self.tuning.add(Step(phase, arms), logs, excesses)
        if phase == "race" and found:
            self._drop([record for record in known if record.configuration not in found.names])
        return found is not None

    def _drop(self, failed: Sequence[Record]) -> None:
        """Take arms out that were measured in no window of several, such as those that stop all traffic."""
        for record in failed:
            name, arm = record.configuration, self.state.names.index(record.configuration)
            self._failures[name] += 1
            if self._failures[name] == FAILURES and not self.tuning.race.measured(arm):
                self.tuning.race.drop(arm)
                self.failing[name] = "; ".join(record.reasons[:1]) or f"no {self.by.name}"


def _complexity(arms: Sequence[Kept]) -> list[int]:
    return [one.arm.complexity for one in arms]


def _place_in(names: Sequence[str]) -> Callable[[Record], int]:
    return lambda record: names.index(record.configuration)
