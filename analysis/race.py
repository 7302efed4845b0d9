"""A race: which of many configurations is the best, from episodes that measure some of them each (pure).

    race = Race([0, 1, 1, 2])               # values that each arm changes; arm 0 is the baseline
    while arms := race.next(left, costs):   # seconds
        race.add(arms, logs)                # of one episode
        if race.standing().resolved:
            break

All inference is on differences of logarithms within an episode, so what all its windows share cancels.
Every statement holds at every moment, so a race can be watched and ended at any time. An arm leaves
when the mean of its e-values over all rivals reaches 1 / alpha, so neither their number nor that of
the looks needs an adjustment: V. Vovk and R. Wang, "E-values: calibration, combination and
applications" (2021). What all this reaches is simulated in benchmarks/race.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from analysis.evalues import TINY, Moderation, Sums, error, log_e, radius
from analysis.race_limits import Excesses
from analysis.statistics import MODERATION, Floats

# Episodes that measure an arm before it may be left out for want of time, and those before any arm leaves.
FEWEST = 3
# An episode measures as many arms as leave time for so many more episodes, but no fewer than KEPT.
# Fewer find less often that an arm is not the best, more find less often which one is (benchmarks/race.py).
AHEAD, KEPT = 20, 3
# One of so many arms that are left out for want of time is measured beside the best.
VISITS = 12
# Variance of a difference before any is known: a standard deviation of 10 %.
_UNKNOWN = 0.01


class Aims(NamedTuple):
    """The loss that does not count, as a fraction, and the error rate."""

    eps: float = 0.03
    alpha: float = 0.05

    @property
    def limit(self) -> float:
        return math.log1p(self.eps)


class Costs(NamedTuple):
    """Seconds of an episode beside its windows, and of a window with what precedes it."""

    episode: float
    window: float

    def of(self, windows: int) -> float:
        return self.episode + self.window * windows

    def windows(self, seconds: float) -> int:
        """How many windows an episode of so many seconds has."""
        return max(0, int((seconds - self.episode) / self.window))


class Standing(NamedTuple):
    """What can be stated after an episode. Arms are numbers.

    The best arm is in `open` with 1 - alpha. `loss` is a bound on log(best / recommended), infinite
    where nothing can be stated. `resolved`: more episodes would not change the recommendation.
    """

    open: tuple[int, ...]
    leader: int
    recommended: int
    loss: float
    resolved: bool
    episodes: int


class Exit(NamedTuple):
    """When an arm left, after so many episodes, and why: `by` is the arm with the most evidence."""

    episodes: int
    why: Literal["beaten", "limit", "unmeasured"]
    by: int | None = None


class Track(NamedTuple):
    """The way of one arm through a race.

    It joined after `joined` episodes; `measured` are the numbers of those that measured it, from 1.
    `level` is its log ratio to the baseline, and `behind` that to the leader, with the half-width
    `half` of an interval that holds for all arms at once, at every moment. None: unknown.
    """

    joined: int
    measured: tuple[int, ...]
    left: Exit | None
    level: float | None
    behind: float | None
    half: float | None


class Race:
    """The evidence so far.

    `complexity` is the number of values that each arm changes. An arm must keep `limits` limits; with
    any, each episode must measure the baseline. `most` is the largest number of arms, if some join later.
    """

    def __init__(
        self, complexity: Sequence[int], *, limits: int = 0, most: int = 0, aims: Aims | None = None
    ) -> None:
        most = max(most, len(complexity))
        self.aims = aims or Aims()
        self.rounds: list[tuple[int, ...]] = []  # the arms of each episode
        self.exits: dict[int, Exit] = {}
        self._since: list[int] = []  # episodes before each arm joined
        self._complexity = np.zeros(most)
        self._open = np.zeros(most, dtype=bool)
        self._joined = 0
        self._count = np.zeros(most)
        self._pairs = Sums.empty(most, most)  # [a, b]: log a - log b
        self._together = np.zeros((most, most))  # [a, b]: sum of 1 / arms, over their episodes
        self._above = np.zeros(most)  # sum of log - mean log of its episode
        self._excesses = Excesses(limits, most)
        # a single comparison has nothing to pool: moderated by itself, it would be too sure
        self._weight = float(MODERATION if most > 2 else 0)
        self._own = Moderation()
        self._levels = np.full(most, -np.inf)
        self._noise = _UNKNOWN / 2  # variance of an arm's log in an episode, pooled
        self.join(complexity)

    @property
    def episodes(self) -> int:
        return len(self.rounds)

    def join(self, complexity: Sequence[int]) -> list[int]:
        """The numbers of new arms. Raises ValueError if there are more than `most` then."""
        new = range(self._joined, self._joined + len(complexity))
        if new.stop > len(self._open):
            raise ValueError(f"{new.stop} arms are more than {len(self._open)}")
        self._complexity[new.start : new.stop] = complexity
        self._open[new.start : new.stop] = True
        self._joined = new.stop
        self._since += [self.episodes] * len(complexity)
        self._own = self._moderation()
        return list(new)

    def add(
        self,
        arms: Sequence[int],
        values: Sequence[float],
        excesses: Sequence[Sequence[float]] = (),
    ) -> None:
        """One complete episode: logarithms, higher is better, and for each limit the excesses of the arms.

        Arms that are shown not to be the best, or to exceed a limit, leave.
        """
        logs = np.asarray(values, dtype=float)
        self._pairs.add(np.ix_(arms, arms), np.subtract.outer(logs, logs))
        self._together[np.ix_(arms, arms)] += 1 / len(logs)
        self._above[[*arms]] += logs - logs.mean()
        self._excesses.add(arms, excesses)
        self._count[[*arms]] += 1
        self.rounds.append(tuple(arms))
        self._own = self._moderation()
        self._levels = self._solved()
        if self.episodes >= FEWEST:
            self._leave()

    @property
    def room(self) -> int:
        """How many arms may still join."""
        return len(self._open) - self._joined

    def drop(self, arm: int) -> None:
        """Take an arm out that cannot be measured."""
        self._open[arm] = False
        self.exits.setdefault(arm, Exit(self.episodes, "unmeasured"))

    def measured(self, arm: int) -> bool:
        return bool(self._count[arm])

    def _leave(self) -> None:
        """Take out the arms that others beat, which keep the limits, and those that exceed a limit."""
        level = self.aims.alpha / (2 if len(self._excesses) else 1)  # a half for each way to leave
        open_ = np.flatnonzero(self._open)
        where = (slice(None), open_)
        e = log_e(self._pairs.at(where), self._own.at(where))
        e = np.minimum(e, self._excesses.kept()[:, None])
        e[open_, np.arange(len(open_))] = -np.inf
        mean = special.logsumexp(e, axis=0) - math.log(len(self._open) - 1)
        beaten = np.zeros(len(self._open), dtype=bool)
        beaten[open_] = mean >= -math.log(level)
        beaten[self._leader()] = False
        exceeded = self._excesses.exceeded(level)
        for place, arm in enumerate(map(int, open_)):
            if exceeded[arm]:
                self.exits[arm] = Exit(self.episodes, "limit")
            elif beaten[arm]:
                self.exits[arm] = Exit(self.episodes, "beaten", int(np.argmax(e[:, place])))
        self._open &= ~(beaten | exceeded)

    def _moderation(self) -> Moderation:
        """Pooled variance of the open arms' differences, larger where an arm is noisier than others."""
        known = (self._pairs.n > 1) & ~np.eye(len(self._open), dtype=bool)
        both = known & self._open[:, None] & self._open
        known = both if both.any() else known
        if not known.any():
            return Moderation(self._weight, np.full(known.shape, self._weight * _UNKNOWN))
        variance = self._pairs.variance * known
        number = known.sum(axis=1)
        pooled = variance.sum() / number.sum()
        self._noise = float(pooled) / 2
        own = np.where(number > 0, variance.sum(axis=1) / np.maximum(number, 1), pooled)
        larger = np.maximum(pooled, own[:, None] + own - pooled)
        return Moderation(self._weight, self._weight * larger + TINY)

    def _solved(self) -> Floats:
        """Level of each arm, by least squares with an effect of each episode and arm; -inf where unknown."""
        together = self._together * ~np.eye(len(self._open), dtype=bool)
        weight = together.sum(axis=1)
        known = weight > 0
        laplacian = np.diag(np.where(known, weight, 1.0)) - together
        # levels are relative: that their sum is 0 makes them unique
        levels = np.linalg.solve(laplacian + np.outer(known, known), self._above)
        return np.where(known, levels, -np.inf)

    def _leader(self) -> int:
        """The open arm that seems to keep the limits and is the best by its level less one standard error.

        So few episodes of an arm, which may have been lucky ones, count less.
        """
        possible = self._open & self._excesses.likely(0.0) & (self._count > 0)
        safe = self._levels - np.sqrt(self._noise / np.maximum(self._count, 1))
        return int(np.argmax(np.where(possible, safe, -np.inf)))

    def _apart(self, arm: int, other: int) -> float | None:
        """The difference of the levels of two arms; None where it is unknown."""
        levels = self._levels
        known = self._count[arm] and self._count[other]
        return float(levels[arm] - levels[other]) if known else None

    def _losses(self) -> Floats:
        """Bound on log(best / arm), for each open arm."""
        level = 2 * self.aims.alpha / (len(self._open) - 1)
        upper = self._pairs.mean + radius(self._pairs, self._own, level)
        upper[~self._open] = -np.inf
        np.fill_diagonal(upper, 0.0)
        found = upper.max(axis=0)
        return found if self.episodes >= FEWEST else np.full_like(found, np.inf)

    def standing(self) -> Standing:
        leader, losses = self._leader(), self._losses()
        behind, own = self._pairs.at(leader), self._own.at(leader)
        short = behind.mean
        # one of many arms that only take turns may look near by luck
        often = (behind.n >= FEWEST) & (2 * self._count >= self._count[leader])
        near = self._open & often & (short + error(behind, own) <= self.aims.limit)
        near[leader] = True
        near &= self._excesses.likely(1.0)
        if not near.any():
            near[0 if self._open[0] else leader] = True
        good = self._open & (losses <= self.aims.limit)
        good &= self._excesses.kept() >= -math.log(self.aims.alpha)
        simplest = self._complexity[good].min(initial=-1.0 if not good.any() else np.inf)
        unsettled = self._open & ~good & (self._complexity < simplest)
        settled = bool(good.any() and not unsettled.any())
        rank = 1e3 * self._complexity + short
        best = int(np.argmin(np.where(good if settled else near, rank, np.inf)))
        return Standing(
            open=tuple(map(int, np.flatnonzero(self._open))),
            leader=leader,
            recommended=best,
            loss=float(losses[best]),
            resolved=settled or int(self._open.sum()) == 1,
            episodes=self.episodes,
        )

    def gains(self) -> list[tuple[int, float, float]]:
        """The arms that were measured beside the baseline, best first: mean log to it, standard error.

        Also those that left, because another one is better; not those that seem to exceed a limit.
        """
        found = self._pairs.at((slice(None), 0))
        errors = error(found, self._own.at((slice(None), 0)))
        possible = (found.n > 0) & self._excesses.likely(0.0)
        arms = [arm for arm in range(1, self._joined) if possible[arm]]
        rows = [(arm, float(found.mean[arm]), float(errors[arm])) for arm in arms]
        return sorted(rows, key=lambda row: -row[1])

    def level(self, arm: int) -> float | None:
        """Log ratio of an arm to the baseline, also where others alone connect both; None where unknown."""
        return self._apart(arm, 0)

    def tracks(self) -> list[Track]:
        """The way of each arm that joined."""
        leader, pairs = self._leader(), len(self._open) * (len(self._open) - 1) / 2
        behind = self._pairs.at((slice(None), leader))
        half = radius(behind, self._own.at((slice(None), leader)), self.aims.alpha / pairs)
        half[leader] = math.inf  # compared with itself
        numbered = list(enumerate(self.rounds, 1))
        return [
            Track(
                self._since[arm],
                tuple(number for number, arms in numbered if arm in arms),
                self.exits.get(arm),
                self.level(arm),
                float(behind.mean[arm]) if behind.n[arm] else self._apart(arm, leader),
                float(half[arm]) if math.isfinite(half[arm]) else None,
            )
            for arm in range(self._joined)
        ]

    def spread(self, a: int, b: int) -> float:
        """Standard deviation of the difference of two arms in an episode, moderated."""
        return float(error(self._pairs, self._own)[a, b] * math.sqrt(max(1, self._pairs.n[a, b])))

    def next(self, left: float, costs: Costs) -> list[int]:
        """The arms of the next episode, with `left` seconds for the race; empty where it is over.

        New arms first, beside some that they are compared with, then the best. What is left out
        takes turns beside these, or nothing would ever show that it is worse.
        """
        ranked = np.flatnonzero(self._open)
        new = self._count[ranked] < FEWEST
        ranked = ranked[np.lexsort((-self._levels[ranked], ~new))]
        most = max(KEPT, int(new.sum()) + KEPT - 1, costs.windows(left / AHEAD))
        out = ranked[most:]
        turns = out[np.argsort(self._count[out], kind="stable")][: math.ceil(len(out) / VISITS)]
        arms = [int(arm) for arm in (*ranked[:most], *turns)]
        if len(self._excesses) and 0 not in arms:
            arms.append(0)
        return arms if len(arms) > 1 and costs.of(len(arms)) <= left else []
