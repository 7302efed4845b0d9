"""Evidence about means that is valid at every moment: e-values and confidence sequences (pure, numpy and scipy).

An e-value has a mean of at most 1 if the hypothesis is true, so it exceeds 1 / alpha at any time with
a probability of at most alpha (Ville). Here by a normal mixture, with unknown variance: H. Wang and
A. Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance"
(2024). A moderation adds the pooled variance of other values: see `statistics.moderated`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from analysis.statistics import Floats

# Weight of the prior on mean / standard deviation, in values.
PRIOR = 1.0
TINY = 1e-12
_LEAST = 1e-300


class Sums(NamedTuple):
    """Number, sum and sum of squares of values: arrays of one shape, an element for each mean."""

    n: Floats
    total: Floats
    squares: Floats

    @classmethod
    def empty(cls, *shape: int) -> Sums:
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, where: Any, values: Floats) -> None:
        self.n[where] += 1
        self.total[where] += values
        self.squares[where] += values * values

    def at(self, where: Any) -> Sums:
        return Sums(self.n[where], self.total[where], self.squares[where])

    @property
    def negative(self) -> Sums:
        return self._replace(total=-self.total)

    @property
    def mean(self) -> Floats:
        """The mean; 0 where there are no values."""
        return np.asarray(self.total / np.maximum(self.n, 1))

    @property
    def around(self) -> Floats:
        """Sum of the squared deviations from the mean."""
        return np.asarray(np.maximum(self.squares - self.total * self.mean, 0.0))

    @property
    def variance(self) -> Floats:
        return np.asarray(self.around / np.maximum(self.n - 1, 1))


class Moderation(NamedTuple):
    """Pooled sums of squares, for each element, that weigh so many values."""

    weight: float = 0.0
    squares: Floats | float = 0.0

    def at(self, where: Any) -> Moderation:
        return self._replace(squares=np.asarray(self.squares)[where])


def log_e(sums: Sums, own: Moderation) -> Floats:
    """Natural logarithm of the e-value against "the mean is at most 0". The prior is half-normal."""
    freedom, reach = sums.n + own.weight, sums.n + PRIOR
    null = sums.squares + own.squares + TINY
    rest = null - sums.total**2 / reach
    positive = special.stdtr(freedom, sums.total * np.sqrt(freedom / (reach * rest)))
    found = 0.5 * np.log(PRIOR / reach) + 0.5 * freedom * np.log(null / rest)
    found += math.log(2) + np.log(np.maximum(positive, _LEAST))
    return np.asarray(np.where(sums.n > 0, found, 0.0))


def radius(sums: Sums, own: Moderation, level: float) -> Floats:
    """Half-width of the two-sided confidence sequence of a mean, which ever misses it with `level`.

    Infinite for so few values that nothing can be stated. The prior is normal.
    """
    n = np.maximum(sums.n, 1)
    odds = 0.5 * np.log((n + PRIOR) / PRIOR) - math.log(level)
    k = np.exp(2 / (n + own.weight) * odds)
    room = 1 - k * PRIOR / (n + PRIOR)
    wide = (k - 1) * (sums.around + own.squares) / (n * np.where(room > 0, room, 1))
    return np.asarray(np.where((room > 0) & (sums.n > 0), np.sqrt(wide), np.inf))


def error(sums: Sums, own: Moderation) -> Floats:
    """Standard error of a mean, with the moderated variance."""
    n = np.maximum(sums.n, 1)
    freedom = np.maximum(n - 1 + own.weight, 1)
    return np.asarray(np.sqrt((sums.around + own.squares) / freedom / n))
