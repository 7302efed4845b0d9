"""Goodput over time within a window, from the agent's readings (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from analysis.schema import Goodput


def over_time(trace: Sequence[dict[str, Any]], start: float) -> list[Goodput]:
    """Total goodput between each reading of a window's `trace` and the next.

    `start` is the episode's start by the clock of the readings. A part in which a connection of
    any receiver ended is left out.
    """
    found = []
    for before, after in pairwise(trace):
        seconds = round(after["at"] - before["at"], 6)
        if None in (*before["bytes"], *after["bytes"]) or seconds <= 0:
            continue
        size = sum(after["bytes"]) - sum(before["bytes"])
        if size >= 0:
            at = round(before["at"] - start, 6)
            found.append(Goodput(at=at, seconds=seconds, mbps=rate(size, seconds)))
    return found


def rate(size: float, seconds: float) -> float:
    """Mbit/s."""
    return round(size * 8e-6 / seconds, 6)
