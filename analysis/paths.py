"""The paths of measured packets: their names, and the one that is shown first (pure)."""

from __future__ import annotations

from collections.abc import Iterable

NAMES = {"overlay": "overlay", "direct": "no tunnel", "host": "host network"}


def first(paths: Iterable[str]) -> str:
    """Of these paths the one that is shown where only one is; the overlay where there is none."""
    return min(paths, key=list(NAMES).index, default="overlay")


def planned(path: str) -> str:
    """The path in the plan of a run with this one: where pods need no tunnel is found by measuring."""
    return "overlay" if path == "direct" else path
