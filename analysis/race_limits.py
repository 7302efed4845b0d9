"""Limits in a race: by how much each arm exceeds them, and the evidence for either side (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.evalues import TINY, Moderation, Sums, error, log_e
from analysis.limits import Limit
from analysis.statistics import MODERATION, Floats

Flags = NDArray[np.bool_]
# Episodes after which a value that never varied is certain, such as no dropped packet at all.
_CERTAIN = 3


def excess(limit: Limit, value: float, baseline: float) -> float:
    """By how much a value exceeds a limit; at most 0 where it keeps it.

    In the unit of the metric, or a difference of logarithms where the metric is compared by ratio.
    Raises ValueError for a value that has no logarithm.
    """
    if limit.kind == "difference":
        return limit.metric.sign * (limit.bound - (value - baseline))
    if limit.metric.scale == "difference":
        return limit.metric.sign * (limit.bound - value)
    reference = baseline * limit.bound if limit.kind == "ratio" else limit.bound
    return limit.metric.sign * (math.log(reference) - math.log(value))


class Excesses:
    """The excesses of each arm, over the episodes that measured it: limits x arms."""

    def __init__(self, limits: int, arms: int) -> None:
        self._sums = Sums.empty(limits, arms)

    def __len__(self) -> int:
        return len(self._sums.n)

    def add(self, arms: Sequence[int], rows: Sequence[Sequence[float]]) -> None:
        """One episode: a row for each limit, with the excess of each of these arms."""
        if len(self):
            self._sums.add((slice(None), [*arms]), np.asarray(rows, dtype=float))

    def kept(self) -> Floats:
        """Log e-value of each arm that it keeps all limits; infinite without limits."""
        if not len(self):
            return np.full(self._sums.n.shape[1], np.inf)
        found = log_e(self._sums.negative, self._moderation())
        sure = np.where(self._sums.mean <= 0, np.inf, -np.inf)
        return np.asarray(np.where(self._certain(), sure, found).min(axis=0))

    def exceeded(self, level: float) -> Flags:
        """Arms that are shown to exceed a limit; all of them together err with `level` for an arm."""
        if not len(self):
            return np.zeros(self._sums.n.shape[1], dtype=bool)
        found = log_e(self._sums, self._moderation())
        sure = np.where(self._sums.mean <= 0, -np.inf, np.inf)
        most = np.where(self._certain(), sure, found).max(axis=0)
        return np.asarray(most >= math.log(len(self) / level))

    def likely(self, errors: float) -> Flags:
        """Arms whose mean excesses, plus so many standard errors, are at most 0."""
        spread = np.where(self._certain(), 0.0, error(self._sums, self._moderation()))
        return np.asarray((self._sums.mean + errors * spread <= 0).all(axis=0))

    def _certain(self) -> Flags:
        return np.asarray((self._sums.n >= _CERTAIN) & (self._sums.around <= TINY))

    def _moderation(self) -> Moderation:
        """The mean variance of the arms that vary, and no less than an arm's own."""
        own = self._sums.variance
        varying = own > TINY
        pooled = own.sum(axis=1, keepdims=True) / np.maximum(varying.sum(axis=1, keepdims=True), 1)
        return Moderation(MODERATION, MODERATION * np.maximum(own, pooled) + TINY)
