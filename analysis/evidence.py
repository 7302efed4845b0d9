"""What a directory of records can be concluded from: runs by state, their conditions, one check."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import dependence, machine, statistics
from analysis.dependence import Check
from analysis.machine import Conditions
from analysis.pairing import Block, Series, StateKey, arms, by_block, not_randomised, series
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.tables import configuration_order, reasons, run_table
from analysis.verdict import p_value

# With fewer runs the check for dependence sees next to nothing, and neither does the test itself.
FEWEST_RUNS = 6


@dataclass(frozen=True)
class Evidence:
    """The valid runs of every state in one metric, and what speaks against comparing them."""

    series: dict[StateKey, Series]
    conditions: dict[StateKey, Conditions]
    check: Check

    def effect(
        self,
        a: StateKey,
        b: StateKey,
        *,
        confidence: float,
        check: bool = False,
    ) -> Effect:
        """B against A, by block where they share blocks; without power, which a family decides."""
        first, second, paired = arms(self.series[a], self.series[b])
        return statistics.ratio(first, second, paired=paired, confidence=confidence, check=check)

    def doubt(
        self, a: StateKey, b: StateKey, *, alike: bool = True, but: Collection[str] = ()
    ) -> str:
        """Why B against A cannot be concluded, in a few words; empty where it can.

        `alike` asks for equal conditions of all runs of both, `but` for those that the two sides
        differ in by their nature.
        """
        unlike = self.unlike(a, b, but=but) if alike else []
        if unlike:
            return f"the runs are not alike in {unlike[0]}"
        disorder = not_randomised(self.series[a], self.series[b])
        if disorder:
            return disorder
        shared = len(set(self.series[a].blocks) & set(self.series[b].blocks))
        if shared < FEWEST_RUNS:
            return f"{shared} runs, at least {FEWEST_RUNS} are needed"
        if self.check.found:
            return f"the blocks are not independent (p {p_value(self.check.p)})"
        return ""

    def unlike(self, *keys: StateKey, but: Collection[str] = ()) -> list[str]:
        """The conditions in which the runs of these states differ, in words."""
        own = [self.conditions[key] for key in keys]
        together = machine.mixtures(
            {name: values for name, values in machine.together(*own).items() if name not in but}
        )
        return together + [one for each in own for one in machine.mixtures(each) if but]

    @property
    def kept(self) -> float:
        """The share of sound experiments that the check lets pass."""
        return 1.0 if self.check.p is None else 1 - dependence.ALPHA


def gather(
    records: Sequence[Record],
    baseline: str,
    column: str = "bitrate_mbps",
    *,
    runs: pd.DataFrame | None = None,
) -> Evidence:
    """The evidence of records in a column of their run table (`runs` where it is at hand)."""
    runs = run_table(records) if runs is None else runs
    collected = series(runs, column)
    names = configuration_order((key[2] for key in collected), baseline)
    found = {
        key: collected[key]
        for key in sorted(
            collected, key=lambda key: (key[0] != "overlay", key[1], names.index(key[2]))
        )
    }
    groups: dict[StateKey, list[Record]] = {}
    for record, why in zip(records, reasons(records), strict=True):
        if not why:
            key = (record.path, record.replicas, record.configuration)
            groups.setdefault(key, []).append(record)
    return Evidence(
        series=found,
        conditions={key: machine.conditions(group) for key, group in groups.items()},
        check=check(found, _block_order(runs)),
    )


def check(found: dict[StateKey, Series], blocks: Sequence[Block]) -> Check:
    """The dependence check over every path and replica count with two configurations or more.

    `blocks` are in the order in which they were made.
    """
    groups: dict[tuple[str, int], list[dict[Block, float]]] = {}
    for (path, replicas, _), one in found.items():
        means = {block: float(np.mean(values)) for block, values in by_block(one).items()}
        usable = {block: math.log(mean) for block, mean in means.items() if mean > 0}
        if usable and one.planned:
            groups.setdefault((path, replicas), []).append(usable)
    known = {block for group in groups.values() for one in group for block in one}
    return dependence.check(groups.values(), [block for block in blocks if block in known])


def _block_order(runs: pd.DataFrame) -> list[Block]:
    """Every block of a run table, in the order of first runs."""
    order: dict[Block, None] = {}
    for plan, seed, block in runs[["plan", "seed", "block"]].itertuples(index=False, name=None):
        if not pd.isna(block):
            order.setdefault((plan, None if pd.isna(seed) else int(seed), int(block)))
    return list(order)
