"""Limits of metrics, such as `p99_us=+10%`: their text, and what an interval shows of them (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from analysis.metrics import Metric, UnknownMetric, find

# ratio: relative to the baseline; difference: from the baseline, in the unit; value: by itself.
Kind = Literal["ratio", "difference", "value"]
Standing = Literal["within", "exceeded", "inconclusive"]

FORMS = "METRIC=+10% (relative to the baseline), METRIC=+5 (difference, in its unit), or METRIC=200"
_TEXT = re.compile(
    r"([a-z0-9_]+)\s*=\s*([+-]?)(\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})\s*(%?)", re.ASCII
)


class InvalidLimit(ValueError):
    """A limit that cannot be read; the message has the fault and the remedy."""


@dataclass(frozen=True)
class Limit:
    """The worst value of a metric that is accepted: an upper bound where lower is better, else a
    lower bound. `bound` is a ratio (1.1 for +10 %), or in the unit of the metric."""

    metric: Metric
    kind: Kind
    bound: float

    def __str__(self) -> str:
        """The text that `parse` reads as this limit."""
        if self.kind == "ratio":
            return f"{self.metric.name}={(self.bound - 1) * 100:+.10g}%"
        return f"{self.metric.name}={self.bound:{'+' if self.kind == 'difference' else ''}.10g}"

    def standing(self, low: float | None, high: float | None) -> Standing:
        """What an interval shows: all of it on one side of the bound, or neither."""
        if low is None or high is None:
            return "inconclusive"
        best, worst = (low, high) if self.metric.better == "lower" else (high, low)
        if self.metric.sign * (worst - self.bound) >= 0:
            return "within"
        return "exceeded" if self.metric.sign * (best - self.bound) < 0 else "inconclusive"


def worst_of(standings: Iterable[Standing]) -> Standing:
    """The standing of several limits or places together."""
    found = set(standings)
    if "exceeded" in found:
        return "exceeded"
    return "inconclusive" if "inconclusive" in found else "within"


def parse(text: str) -> Limit:
    """The limit that a text states.

    Raises InvalidLimit for another form, an unknown metric, and a percentage of a metric that may
    be 0.
    """
    match = _TEXT.fullmatch(text.strip())
    if not match:
        raise InvalidLimit(f"{text!r} is not a limit: write {FORMS}")
    name, sign, digits, percent = match.groups()
    if name == "idle":  # an older name of `--metric` for CPU time, whose direction is the opposite
        raise InvalidLimit(f"{text!r}: idle is not a metric: write idle_percent or cpu_s_per_gbit")
    try:
        metric = find(name)
    except UnknownMetric as error:
        raise InvalidLimit(str(error)) from None
    number = float(sign + digits)
    if not percent:
        return Limit(metric, "difference" if sign else "value", number)
    if not sign:
        raise InvalidLimit(
            f"{text!r} has no sign: +{digits}% or -{digits}% of the baseline's value"
        )
    if metric.scale == "difference":
        raise InvalidLimit(
            f"{text!r}: {metric.name} may be 0, so it has no percentage: write a difference such "
            f"as {metric.name}={sign}5, or a value such as {metric.name}=5, in {metric.unit}"
        )
    if number <= -100:
        raise InvalidLimit(f"{text!r} is less than nothing: a change is more than -100%")
    return Limit(metric, "ratio", 1 + number / 100)


def parse_all(texts: Iterable[str]) -> tuple[Limit, ...]:
    """The limits of these texts, each of which may hold several, separated by commas."""
    found: list[Limit] = []
    for text in texts:
        words = [word for word in text.split(",") if word.strip()]
        # an empty text is a mistake, such as an unset variable of a shell: no limit would be kept
        found += [parse(word) for word in words or [text]]
    return tuple(dict.fromkeys(found))
