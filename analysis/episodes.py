"""Episodes of switchback: their windows in order, and goodput and latency within a window (pure)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.schema import FEWEST_READINGS, Goodput, Record
from analysis.tables import reasons


@dataclass(frozen=True)
class Window:
    """A window, whether it counts, and the configuration of the window before (None: it is the first)."""

    record: Record
    counts: bool
    preceding: str | None


@dataclass(frozen=True)
class Episode:
    """The windows that shared connections, in their order."""

    path: str
    replicas: int
    windows: list[Window]


def episodes(records: Sequence[Record]) -> list[Episode]:
    """The episodes of these records; records without a place in a sweep are left out."""
    groups: dict[Hashable, list[tuple[int, Record, bool]]] = {}
    for record, why in zip(records, reasons(records), strict=True):
        if record.method == "switchback" and record.block is not None and record.order is not None:
            episode = (record.plan, record.seed, record.stack, record.block, record.attempt)
            place = (*episode, record.path, record.replicas)
            groups.setdefault(place, []).append((record.order, record, not why))
    found = []
    for group in groups.values():
        group.sort(key=lambda one: one[0])
        before = [None, *(record.configuration for _, record, _ in group)]
        windows = [
            Window(record, counts, name)
            for (_, record, counts), name in zip(group, before, strict=False)
        ]
        found.append(Episode(group[0][1].path, group[0][1].replicas, windows))
    return found


def is_settling(part: Goodput, record: Record) -> bool:
    """Whether a part of a record's goodput lies before the measured window, most of it at least."""
    return part.at + part.seconds / 2 < record.goodput[-1].end - record.duration


def halves(record: Record) -> tuple[float, float] | None:
    """Mean goodput (Mbit/s) in the first and the second half of a window; None where it is not known."""
    if sum(not is_settling(part, record) for part in record.goodput) < FEWEST_READINGS:
        return None
    end = record.goodput[-1].end
    middle = end - record.duration / 2
    first = _mean(record.goodput, end - record.duration, middle)
    second = _mean(record.goodput, middle, end)
    return (first, second) if first and second else None


def latency_halves(record: Record) -> tuple[float, float] | None:
    """Median latency (microseconds) in both halves, mean over the pairs; None where it is not known."""
    known = [pair.halves for pair in record.pairs if pair.halves and all(pair.halves)]
    return (fmean(one for one, _ in known), fmean(one for _, one in known)) if known else None


def _mean(parts: Sequence[Goodput], first: float, last: float) -> float:
    """Mean goodput between two times of the episode; 0 where most of it was not read."""
    shares = [max(0.0, min(part.end, last) - max(part.at, first)) for part in parts]
    sizes = [share * part.mbps for share, part in zip(shares, parts, strict=True)]
    return sum(sizes) / sum(shares) if 2 * sum(shares) > last - first else 0.0
