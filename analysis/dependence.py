"""One test for the whole table: do the blocks of a sweep depend on each other? (pure)

A random order within blocks protects effects from drift that all configurations share, however
correlated that drift is. It does not protect them from an effect that itself drifts: then the
interval describes this occasion only. Such drift is in the residuals without the means of
configurations and blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Column = Mapping[Any, float]  # by block, the value of a configuration (a logarithm for ratios)

ALPHA = 0.05
# With 4 blocks the most extreme of the orders has a probability of 1/12: no test at 5 % exists.
FEWEST_BLOCKS = 5
_MOST_EXACT = 7
_ORDERS = 1999
_NO_SPREAD = 1e-9
_MOST_RHO = 0.99
_ROUNDS = 20


@dataclass(frozen=True)
class Check:
    """Pooled lag-1 autocorrelation of a table's residuals, and its one-sided p value.

    `p` is None where the table cannot show dependence: fewer than 5 blocks, or no spread.
    """

    blocks: int
    columns: int
    lag1: float | None = None
    p: float | None = None

    @property
    def found(self) -> bool:
        return self.p is not None and self.p <= ALPHA

    @property
    def worth(self) -> float:
        """How many independent blocks one block is worth: 1 where no dependence is found."""
        return _worth(self.blocks, self.lag1) if self.found and self.lag1 is not None else 1.0

    @property
    def least_worth(self) -> float:
        """The same where dependence is just found, as it is by chance, about."""
        if self.p is None:
            return 1.0
        error = 1 / math.sqrt(self.blocks * max(1, self.columns - 1))
        return _worth(self.blocks, -1 / self.blocks + special.ndtri(1 - ALPHA) * error)


def _worth(blocks: int, lag1: float) -> float:
    """Independent blocks that each of so many is worth, with this autocorrelation of their residuals.

    With the lag-1 autocorrelation rho of a first-order autoregressive series it is
    (1 - rho) / (1 + rho): G. V. Bayley and J. M. Hammersley (1946). The estimate of rho from n blocks is too
    low by (1 + 4 rho) / n, which is put right: F. H. C. Marriott and J. A. Pope (1954).
    """
    rho = min((blocks * lag1 + 1) / (blocks - 4), _MOST_RHO)
    return min(1.0, (1 - rho) / (1 + rho))


def check(groups: Iterable[Sequence[Column]], blocks: Sequence[Hashable]) -> Check:
    """The test over a table of configurations (columns) in groups that share their blocks.

    `blocks` are in the order in which they were made. Residuals are centred by configuration and,
    within each group, by block; each configuration weighs alike. The blocks of the whole table
    are permuted jointly, which is exact where blocks are exchangeable: independent blocks of any
    distribution, and any drift that a group's configurations share.
    """
    residuals = [_residuals(group, blocks) for group in groups if len(group) > 1]
    table = np.hstack([np.empty((len(blocks), 0)), *residuals])
    return of_residuals(table)


def of_residuals(table: Floats) -> Check:
    """The test on residuals: a row for each block, a column for each configuration."""
    blocks, columns = table.shape
    scale = np.sqrt(np.sum(table**2, axis=0))
    table = table[:, scale > _NO_SPREAD] / scale[scale > _NO_SPREAD]
    if blocks < 3 or not table.shape[1]:
        return Check(blocks, columns)
    together = table @ table.T
    lag1 = float(np.trace(together, 1) / np.trace(together))
    if blocks < FEWEST_BLOCKS:
        return Check(blocks, columns, lag1)
    orders = _orders(blocks)
    own = _studentised(np.diagonal(together, 1))
    as_high = np.count_nonzero(_studentised(together[orders[:, :-1], orders[:, 1:]]) >= own - 1e-9)
    exact = blocks <= _MOST_EXACT
    p = as_high / len(orders) if exact else (as_high + 1) / (len(orders) + 1)
    return Check(blocks, columns, lag1, float(p))


def _studentised(products: Floats) -> Floats:
    """Sum of the products of neighbours, relative to what it would be by chance.

    Without the division, a sweep whose last blocks have few configurations (`--until-ci`) would
    look dependent: J. P. Romano and M. A. Tirlea, "Permutation testing for dependence in time
    series" (2022).
    """
    size = np.sqrt(np.sum(products**2, axis=-1))
    return np.asarray(np.sum(products, axis=-1) / np.maximum(size, _NO_SPREAD))


def centred(values: Floats) -> Floats:
    """Values (blocks x configurations, NaN where missing) without the means of both; 0 for NaN."""
    missing = np.isnan(values)
    rest = np.where(missing, 0.0, values)
    for _ in range(_ROUNDS if missing.any() else 1):
        for axis in (0, 1):
            counts = np.maximum(1, (~missing).sum(axis=axis, keepdims=True))
            rest = np.where(missing, 0.0, rest - rest.sum(axis=axis, keepdims=True) / counts)
    return rest


def _residuals(group: Sequence[Column], blocks: Sequence[Hashable]) -> Floats:
    return centred(
        np.array([[one.get(block, math.nan) for one in group] for block in blocks]).reshape(
            len(blocks), len(group)
        )
    )


@lru_cache(maxsize=64)
def _orders(blocks: int) -> NDArray[np.int64]:
    """Every order of few blocks, else a fixed random sample of them."""
    if blocks <= _MOST_EXACT:
        return np.array(list(itertools.permutations(range(blocks))))
    rng = np.random.default_rng(0)
    return rng.permuted(np.tile(np.arange(blocks), (_ORDERS, 1)), axis=1)
