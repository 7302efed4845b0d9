"""Evidence for comparisons: the runs by state, their conditions, and the dependence check."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import pandas as pd

from analysis import dependence, machine, statistics
from analysis.dependence import Check
from analysis.machine import Conditions
from analysis.metrics import BITRATE, Metric, Scale
from analysis.pairing import (
    Block,
    Series,
    StateKey,
    Turn,
    arms,
    by_block,
    not_randomised,
    series,
    turns,
)
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.tables import configuration_order, reasons
from analysis.verdict import p_value

# With fewer runs, neither the check for dependence nor the test itself has power.
FEWEST_RUNS = 6
# Runs that fail where they are slow make a configuration look better. More than one failure, and
# more than this share of a side's attempts, makes a comparison inconclusive.
MOST_INVALID = 0.02
# An order that never changes is not random if a random one would be as constant with these odds.
FIXED_ORDER = 0.01


@dataclass(frozen=True)
class Attempts:
    """Counts of a state: all attempts, failed ones, and valid ones without a value."""

    made: int = 0
    failed: int = 0
    without: int = 0

    @property
    def doubt(self) -> str:
        if self.without:
            return f"{self.without} valid runs have no value to compare"
        if self.failed > 1 and self.failed > MOST_INVALID * self.made:
            return f"{self.failed} of {self.made} attempts are invalid"
        return ""


@dataclass(frozen=True)
class Evidence:
    """The valid runs of every state in one metric, and the reasons against comparing them."""

    series: dict[StateKey, Series]
    conditions: dict[StateKey, Conditions]
    check: Check
    attempts: dict[StateKey, Attempts] = field(default_factory=dict)
    same_turn: frozenset[StateKey] = frozenset()
    metric: Metric = BITRATE

    def effect(self, a: StateKey, b: StateKey, *, confidence: float, check: bool = False) -> Effect:
        """B against A, by block where they share blocks; without power, which a family decides."""
        first, second, paired = arms(self.series[a], self.series[b])
        found = statistics.effect(
            self.metric.scale,
            first,
            second,
            paired=paired,
            confidence=confidence,
            check=check,
            worth=self.worth,
        )
        zero = [key[2] for key, values in ((a, first), (b, second)) if min(values, default=1) <= 0]
        if self.metric.scale != "ratio" or not zero:
            return found
        return replace(found, problem=f"a run of {' and of '.join(zero)} has {self.metric.title} 0")

    def doubt(
        self, a: StateKey, b: StateKey, *, alike: bool = True, but: Collection[str] = ()
    ) -> str:
        """Why B against A is inconclusive, in a few words; empty where it is not.

        `alike` requires equal conditions of all runs of both, except for those in `but`, in which
        the two sides differ by their nature.
        """
        doubts = self._doubts(a, b, self.unlike(a, b, but=but) if alike else [])
        return next(filter(None, doubts), "")

    def _doubts(self, a: StateKey, b: StateKey, unlike: Sequence[str]) -> Iterator[str]:
        yield from (f"the runs differ in {one}" for one in unlike)
        yield self._mixed_nodes(a, b)
        yield self._steered(a, b)
        yield not_randomised(self.series[a], self.series[b])
        for key in {a, b} & self.same_turn:
            yield f"the order was not randomised ({key[2]} has the same position in every block)"
        shared = len(set(self.series[a].blocks) & set(self.series[b].blocks))
        yield too_few(shared)
        yield self.lost(a, b)
        independent = self.check.worth * shared
        if independent < FEWEST_RUNS:
            yield (
                f"the blocks are not independent (p {p_value(self.check.p)}): {shared} are worth "
                f"{independent:.1f}"
            )

    def doubt_alone(self, key: StateKey, *, alike: bool = True) -> str:
        """Why the runs of one state, without a comparison, are inconclusive; empty where not."""
        return next(filter(None, self._doubts_alone(key, alike)), "")

    def _doubts_alone(self, key: StateKey, alike: bool) -> Iterator[str]:
        yield from (f"the runs differ in {one}" for one in (self.unlike(key) if alike else []))
        yield self._mixed_nodes(key)
        if machine.CHANGED_STEERING in self.conditions[key]:
            yield f"the steering of {key[2]} changed during a run"
        yield self.lost(key)
        values, _ = statistics.scaled(self.series[key].values, self.metric.scale)
        yield too_few(len(values))
        series = dependence.of_residuals((values - values.mean())[:, None])
        if series.found:
            yield f"the runs of {key[2]} are not independent (p {p_value(series.p)})"

    def lost(self, *keys: StateKey) -> str:
        """Why the remaining runs do not represent all attempts; empty where they do."""
        doubts = ((key, self.attempts[key].doubt) for key in keys if key in self.attempts)
        return next((f"{key[2]}: {doubt}" for key, doubt in doubts if doubt), "")

    def _mixed_nodes(self, *keys: StateKey) -> str:
        """In what the nodes of these runs differ, whose results would be one figure; empty where in nothing."""
        words = {one for key in keys for one in self.conditions[key].get(machine.UNLIKE_NODES, ())}
        return f"unlike nodes: {min(words)}" if words else ""

    def _steered(self, a: StateKey, b: StateKey) -> str:
        """Why the steering that was read back is not that of two configurations."""
        for key in (a, b):
            if self.conditions[key].get(machine.CHANGED_STEERING):
                return f"the steering of {key[2]} changed during a run"
        first, second = (self.conditions[key].get(machine.steering_of(key[2])) for key in (a, b))
        if a[2] != b[2] and first is not None and first == second:
            return f"{a[2]} and {b[2]} had the same steering"
        return ""

    def unlike(self, *keys: StateKey, but: Collection[str] = ()) -> list[str]:
        """The conditions in which the runs of these states differ, in words."""
        own = [self.conditions[key] for key in keys]
        together = machine.mixtures(
            {name: values for name, values in machine.together(*own).items() if name not in but}
        )
        return together + [one for each in own for one in machine.mixtures(each) if but]

    @property
    def worth(self) -> float:
        """Independent blocks that a block counts as: of all together at least as many as a verdict needs."""
        blocks = max(FEWEST_RUNS, self.check.blocks)
        return max(self.check.worth, FEWEST_RUNS / blocks)

    @property
    def kept(self) -> float:
        """The share of sound experiments whose verdict the check for dependence does not withhold."""
        few = self.check.least_worth * self.check.blocks < FEWEST_RUNS
        return 1 - dependence.ALPHA if few and self.check.p is not None else 1.0


def too_few(runs: int) -> str:
    """Why so many runs are not enough; empty where they are."""
    return "" if runs >= FEWEST_RUNS else f"only {runs} runs, at least {FEWEST_RUNS} are needed"


def gather(
    records: Sequence[Record], baseline: str, metrics: Iterable[Metric], runs: pd.DataFrame
) -> dict[str, Evidence]:
    """The evidence of records in several metrics; `runs` is their run table."""
    groups: dict[StateKey, list[Record]] = {}
    for record, why in zip(records, reasons(records), strict=True):
        if not why:
            key = (record.path, record.replicas, record.configuration)
            groups.setdefault(key, []).append(record)
    conditions = {key: machine.conditions(group) for key, group in groups.items()}
    rows = turns(runs)
    blocks = list(dict.fromkeys(turn.block for turn in rows if turn.block is not None))
    ranks = {
        name: rank for rank, name in enumerate(configuration_order(runs["configuration"], baseline))
    }
    evidence = {}
    for metric in metrics:
        collected = series(runs, metric.name, rows)
        found = {
            key: collected[key]
            for key in sorted(
                collected, key=lambda key: (key[0] != "overlay", key[1], ranks[key[2]])
            )
        }
        evidence[metric.name] = Evidence(
            series=found,
            conditions=conditions,
            check=check(found, blocks, metric.scale),
            attempts=_attempts(rows, runs[metric.name].tolist()),
            same_turn=frozenset(_same_turn(found)),
            metric=metric,
        )
    return evidence


def _same_turn(found: Mapping[StateKey, Series]) -> Iterator[StateKey]:
    """The states with the same position in each block, which is unlikely in a random order."""
    turns: dict[tuple[tuple[str, int], Block], list[tuple[float, StateKey]]] = {}
    sizes = Counter(key[:2] for key in found)
    for key, one in found.items():
        for block, place in zip(one.blocks, one.places, strict=False):
            if block is not None:
                turns.setdefault((key[:2], block), []).append((place, key))
    ranks: dict[StateKey, list[int]] = {}
    for (group, _), runs in turns.items():
        if len(runs) == len({key for _, key in runs}) == sizes[group] > 1:
            for rank, (_, key) in enumerate(sorted(runs)):
                ranks.setdefault(key, []).append(rank)
    for key, own in ranks.items():
        if len(set(own)) == 1 and sizes[key[:2]] ** (1 - len(own)) < FIXED_ORDER:
            yield key


def _attempts(rows: Iterable[Turn], values: Iterable[float]) -> dict[StateKey, Attempts]:
    """The attempts of each state; a valid attempt that was repeated does not count."""
    counts: dict[StateKey, list[int]] = {}
    for row, value in zip(rows, values, strict=True):
        if not row.repeated:
            one = counts.setdefault(row.state, [0, 0, 0])
            one[0] += 1
            one[1] += not row.valid
            one[2] += row.valid and math.isnan(value)
    return {state: Attempts(*one) for state, one in counts.items()}


def check(found: dict[StateKey, Series], blocks: Sequence[Block], scale: Scale = "ratio") -> Check:
    """The dependence check over every path and replica count with two configurations or more.

    `blocks` are in the order in which they were made.
    """
    groups: dict[tuple[str, int], list[dict[Block, float]]] = {}
    for (path, replicas, _), one in found.items():
        means = {block: fmean(values) for block, values in by_block(one).items()}
        usable = (
            {block: math.log(mean) for block, mean in means.items() if mean > 0}
            if scale == "ratio"
            else means
        )
        if usable and one.planned:
            groups.setdefault((path, replicas), []).append(usable)
    known = {block for group in groups.values() for one in group for block in one}
    return dependence.check(groups.values(), [block for block in blocks if block in known])
