"""Which runs stand against which: the two sides of a comparison, by block where blocks exist."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics import Floats

StateKey = tuple[str, int, str]  # path, replicas, configuration


@dataclass(frozen=True)
class Series:
    """The valid runs of one state in run order: values, and the block of each or None."""

    values: Floats
    blocks: tuple[Hashable, ...]


def series(runs: pd.DataFrame, column: str = "bitrate_mbps") -> dict[StateKey, Series]:
    """The series of every state in a run table; runs without a value are left out."""
    usable = runs[runs["valid"] & runs[column].notna()]
    collected: dict[StateKey, tuple[list[float], list[Hashable]]] = {}
    for row in usable[["path", "replicas", "configuration", "plan", "block", column]].itertuples(
        index=False, name=None
    ):
        path, replicas, configuration, plan, block, value = row
        values, blocks = collected.setdefault((path, replicas, configuration), ([], []))
        values.append(value)
        blocks.append(None if pd.isna(block) else (plan, int(block)))
    return {
        key: Series(np.array(values, dtype=float), tuple(blocks))
        for key, (values, blocks) in collected.items()
    }


def arms(a: Series, b: Series) -> tuple[Floats, Floats, bool]:
    """Values of A and B and whether they are paired.

    With two or more blocks in both, the i-th of each share a block (the mean where a block
    holds several runs) in A's run order, and runs without a partner are left out. Otherwise all
    runs of both, in run order.
    """
    first, second = _by_block(a), _by_block(b)
    shared = [block for block in first if block in second]
    if len(shared) < 2:
        return a.values, b.values, False
    return (
        np.array([np.mean(first[block]) for block in shared]),
        np.array([np.mean(second[block]) for block in shared]),
        True,
    )


def _by_block(one: Series) -> dict[Hashable, list[float]]:
    found: dict[Hashable, list[float]] = {}
    for block, value in zip(one.blocks, one.values, strict=True):
        if block is not None:
            found.setdefault(block, []).append(float(value))
    return found
