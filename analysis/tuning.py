"""A race and its confirmation within a budget of time, as a sequence of steps (pure).

    tuning = Tuning(Race(complexity), Costs(0.9, 0.61), budget=180)
    while step := tuning.step(used):            # seconds since the start
        tuning.add(step, logs, excesses)        # nothing where the episode is invalid
    tuning.answer()

The estimate of a race's winner is too high: it was chosen for it. So a part of the budget is kept for
fresh episodes with the recommended arm and the baseline alone, and their ratio is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from analysis import statistics
from analysis.evalues import Moderation, Sums, radius
from analysis.race import KEPT, Costs, Race, Standing
from analysis.statistics import Effect, Floats

Phase = Literal["race", "confirmation"]

# Part of the budget that is kept for the confirmation.
SHARE = 0.25
# Episodes of the confirmation, where there is time for them.
FEWEST = 10
# Windows of the confirmation are so many times as long.
LENGTH = 2
# Episodes of the race before what helped is combined, and those that the combined arms must have time for.
COMBINE = JUDGED = 4
# The spread of the race's few episodes is uncertain, so more episodes are made than it asks for.
_SPARE = 1.5


class Step(NamedTuple):
    """One episode: its arms, and the length of their windows, in those of the race."""

    phase: Phase
    arms: tuple[int, ...]
    length: int = 1

    @property
    def total(self) -> int:
        return len(self.arms) * self.length


# Chooses arms that join the race, from what helped in it; the values that each of them changes.
Combine = Callable[[Race], Sequence[int]]


@dataclass(frozen=True)
class Answer:
    """The arm to apply, and the one that the race recommends.

    `ratio` is that of the recommended arm to the baseline, above 1 where it is better, of fresh
    episodes alone; None where none was needed, or made. `kept`: whether these show that each limit
    is kept; None without limits.
    """

    arm: int
    standing: Standing
    ratio: Effect | None = None
    kept: bool | None = None


@dataclass
class Tuning:
    """Race and confirmation. The number of confirming episodes is fixed before the first of them."""

    race: Race
    costs: Costs
    budget: float
    combine: Combine | None = None
    planned: int | None = field(default=None, init=False)
    _tried: int = field(default=0, init=False)
    _final: Standing | None = field(default=None, init=False)
    _logs: list[Sequence[float]] = field(default_factory=list, init=False)
    _excesses: list[Sequence[Sequence[float]]] = field(default_factory=list, init=False)

    @property
    def standing(self) -> Standing:
        return self._final or self.race.standing()

    def step(self, used: float) -> Step | None:
        """The next episode after `used` seconds; None where all is done."""
        if self._final is None:
            arms = self._racing(self.budget * (1 - SHARE) - used)
            if arms:
                return Step("race", tuple(arms))
            self.confirm(self._needed(self.budget - used))
        assert self.planned is not None  # noqa: S101
        if self._tried < self.planned:
            return Step("confirmation", (self.standing.recommended, 0), LENGTH)
        return None

    def _racing(self, left: float) -> list[int]:
        race = self.race
        if self.combine and race.episodes >= COMBINE:
            if left >= JUDGED * self.costs.of(KEPT + race.room):  # else they could not be judged
                race.join(self.combine(race))
            self.combine = None
        done = race.episodes and not self.combine and race.standing().resolved
        return [] if done else race.next(left, self.costs)

    def _needed(self, left: float) -> int:
        """Episodes for an interval of ± eps, as many as there is time for; 0 for the baseline."""
        arm = self.race.standing().recommended
        if not arm:
            return 0
        half = special.ndtri(1 - self.race.aims.alpha / 2) * self.race.spread(arm, 0)
        wanted = max(FEWEST, math.ceil(_SPARE * (half / self.race.aims.limit) ** 2))
        possible = int(left / self.costs.of(2 * LENGTH))
        return min(wanted, possible) if possible > 1 else 0

    def confirm(self, episodes: int) -> None:
        """End the race, and plan so many episodes to confirm what it recommends."""
        self._final = self.race.standing()
        self.planned = episodes

    def add(
        self,
        step: Step,
        logs: Sequence[float] | None,
        excesses: Sequence[Sequence[float]] = (),
    ) -> None:
        """What an episode measured, the log of each arm; None if it is invalid."""
        self._tried += step.phase == "confirmation"
        if logs is None:
            return
        if step.phase == "race":
            self.race.add(step.arms, logs, excesses)
        else:
            self._logs.append(logs)
            self._excesses.append(excesses)

    def answer(self) -> Answer:
        """The answer so far, at any time."""
        standing = self.standing
        if len(self._logs) < 2:
            return Answer(0, standing)
        logs = np.asarray(self._logs, dtype=float)
        complete = self._tried == self.planned
        ratio = _ratio(logs[:, 1], logs[:, 0], self.race.aims.alpha, complete)
        low, _ = ratio.interval
        better = low is not None and low > 1
        kept = None
        if self._excesses[0]:
            own, baseline = np.moveaxis(np.asarray(self._excesses, dtype=float), -1, 0)
            kept = bool(np.all(_upper(own, self.race.aims.alpha) <= 0))
            # a baseline that exceeds a limit is no answer: an arm that gains nothing is
            better = better or bool(np.any(_upper(-baseline, self.race.aims.alpha) < 0))
        applied = better and kept is not False
        return Answer(standing.recommended if applied else 0, standing, ratio, kept)


def _ratio(a: Floats, b: Floats, alpha: float, complete: bool) -> Effect:
    """B against A. If the number of episodes was not kept to, the interval is valid at any number."""
    found = statistics.difference(a, b, paired=True, confidence=1 - alpha, check=False)
    if not complete and found.estimate is not None:
        sums = Sums(
            *(np.array(float(one)) for one in (len(a), np.sum(b - a), np.sum((b - a) ** 2)))
        )
        half = float(radius(sums, Moderation(), alpha))
        low, high = found.estimate - half, found.estimate + half
        known = math.isfinite(half)
        found = replace(found, low=low if known else None, high=high if known else None, p=None)
    return statistics.exponential(found)


def _upper(values: Floats, alpha: float) -> Floats:
    """One-sided upper bound of the mean over the episodes (first axis), by Student's t."""
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return np.asarray(values.mean(axis=0) + special.stdtrit(len(values) - 1, 1 - alpha) * error)
