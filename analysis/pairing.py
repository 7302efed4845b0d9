"""The two sides of a comparison: which runs are compared, by block where blocks exist."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd

from analysis.statistics import Floats

StateKey = tuple[str, int, str]  # path, replicas, configuration
Block = tuple[Hashable, Hashable, int]  # plan, seed, number

# The share of blocks whose runs may be apart in time, for example after a late attempt at one run.
MOST_LATE = 0.2


@dataclass(frozen=True)
class Series:
    """The valid runs of one state in run order: values, and the block of each or None.

    `places` are the positions of the runs in time. `planned` is True where every run has a
    plan, a seed, a block and a start: only such an order is known to be random.
    """

    values: Floats
    blocks: tuple[Block | None, ...]
    places: tuple[float, ...] = ()
    planned: bool = True


@dataclass(frozen=True)
class Turn:
    """A row of a run table: its state, its block or None, and whether a plan with a seed ordered it."""

    state: StateKey
    block: Block | None
    planned: bool
    valid: bool
    repeated: bool


def turns(runs: pd.DataFrame) -> list[Turn]:
    """The rows of a run table, which are the same for each of its metrics."""
    columns = ["path", "replicas", "configuration", "plan", "seed", "block", "start"]
    found = []
    for path, replicas, configuration, plan, seed, block, start, valid, repeated in zip(
        *(runs[name].tolist() for name in (*columns, "valid", "repeated")), strict=True
    ):
        known, seeded = not pd.isna(block), not pd.isna(seed)
        found.append(
            Turn(
                (path, replicas, configuration),
                (plan, int(seed) if seeded else None, int(block)) if known else None,
                known and plan is not None and seeded and start is not None,
                valid,
                repeated,
            )
        )
    return found


def series(
    runs: pd.DataFrame, column: str, rows: Sequence[Turn] | None = None
) -> dict[StateKey, Series]:
    """The series of every state in one column of a run table; runs without a value are left out.

    `rows` are the turns of the table, where they are known.
    """
    collected: dict[StateKey, list[tuple[float, int, Turn]]] = {}
    place = 0
    for turn, value in zip(rows or turns(runs), runs[column].tolist(), strict=True):
        if turn.valid and not math.isnan(value):
            collected.setdefault(turn.state, []).append((value, place, turn))
            place += 1
    return {
        key: Series(
            np.array([value for value, _, _ in found], dtype=float),
            tuple(turn.block for _, _, turn in found),
            tuple(place for _, place, _ in found),
            all(turn.planned for _, _, turn in found),
        )
        for key, found in collected.items()
    }


def arms(a: Series, b: Series) -> tuple[Floats, Floats, bool]:
    """Values of A and B and whether they are paired.

    With two or more blocks in both, the i-th of each share a block (the mean where a block
    holds several runs) in A's run order, and runs without a partner are left out. Otherwise all
    runs of both, in run order.
    """
    first, second = by_block(a), by_block(b)
    shared = [block for block in first if block in second]
    if len(shared) < 2:
        return a.values, b.values, False
    return (
        np.array([fmean(first[block]) for block in shared]),
        np.array([fmean(second[block]) for block in shared]),
        True,
    )


def by_block(one: Series) -> dict[Block, list[float]]:
    """The values of each block."""
    found: dict[Block, list[float]] = {}
    for block, value in zip(one.blocks, one.values, strict=True):
        if block is not None:
            found.setdefault(block, []).append(float(value))
    return found


def not_randomised(a: Series, b: Series) -> str:
    """Why the order of these runs does not protect their comparison; empty where it does."""
    if not (a.planned and b.planned):
        why = "no plan, seed or start"
    elif len(set(a.blocks) & set(b.blocks)) < 2:
        why = "no shared blocks"
    elif not _together(a, b):
        why = "the runs of a block were not made together"
    else:
        return ""
    return f"the order was not randomised ({why})"


def _together(a: Series, b: Series) -> bool:
    """Whether the runs of a block followed each other, except in a few blocks (late attempts).

    All of A, then all of B, fails, whatever the plan was.
    """
    shared = set(a.blocks) & set(b.blocks)
    turns = sorted(
        (
            (place, block)
            for one in (a, b)
            for block, place in zip(one.blocks, one.places, strict=False)
            if block in shared
        ),
        key=lambda turn: turn[0],
    )
    found: dict[Block | None, list[int]] = {}
    for number, (_, block) in enumerate(turns):
        found.setdefault(block, []).append(number)
    late = sum(numbers[-1] - numbers[0] >= len(numbers) for numbers in found.values())
    return late <= MOST_LATE * len(found)
