"""The course of a race, for reports: the estimate of each arm, when it left and why (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from analysis.metrics import Metric
from analysis.race import Standing, Track
from analysis.statistics import Effect


class Arm(NamedTuple):
    """A configuration of a race: `settings` are what it changes in words, `values` how many it changes."""

    name: str
    settings: str
    values: int


class Entrant(NamedTuple):
    """An arm with its way through the race. `fate`: whether it may be the best, else why it left.

    `ratio` is its estimated ratio to the baseline, and `behind` that to the leader, with an interval
    that holds for all arms at once and at every moment; both of the metric's values.
    """

    arm: Arm
    track: Track
    ratio: Effect
    behind: Effect
    open: bool
    fate: str


@dataclass(frozen=True)
class Course:
    """The arms of a race: those that may be the best, by their estimates, then the last to leave first."""

    metric: Metric
    entrants: Sequence[Entrant]
    leader: str
    episodes: int


def course(
    arms: Sequence[Arm],
    tracks: Sequence[Track],
    standing: Standing,
    metric: Metric,
    failing: Mapping[str, str],
) -> Course:
    """The course of a race whose arms have the numbers of `arms`; `failing` are reasons by name."""
    entrants = [
        Entrant(
            arm,
            track,
            _effect(metric, track.level, None),
            _effect(metric, track.behind, track.half),
            number in standing.open,
            _fate(arm, track, arms, standing, failing),
        )
        for number, (arm, track) in enumerate(zip(arms, tracks, strict=True))
    ]
    entrants.sort(key=_rank)
    return Course(metric, entrants, arms[standing.leader].name, standing.episodes)


def _rank(one: Entrant) -> tuple[float, ...]:
    left, behind = one.track.left, one.track.behind
    return (not one.open, -left.episodes if left else 0, math.inf if behind is None else -behind)


def _effect(metric: Metric, log: float | None, half: float | None) -> Effect:
    """The ratio of the metric's values for a difference of logarithms of which higher is better."""
    if log is None:
        return Effect(None)
    if half is None:
        return Effect(math.exp(metric.sign * log))
    low, high = sorted(math.exp(metric.sign * one) for one in (log - half, log + half))
    return Effect(math.exp(metric.sign * log), low, high)


def _fate(
    arm: Arm, track: Track, arms: Sequence[Arm], standing: Standing, failing: Mapping[str, str]
) -> str:
    left = track.left
    if left is None:
        last = track.measured[-1] if track.measured else 0
        late = f"; no time for it after episode {last}" if last < standing.episodes else ""
        return f"{'leads' if arms[standing.leader] == arm else 'may be the best'}{late}"
    if left.why == "unmeasured":
        return f"cannot be measured: {failing.get(arm.name, 'no valid window')}"
    if left.by is None:
        return "exceeds a limit"
    return f"not the best: behind {arms[left.by].name}"
