"""Would longer windows be more precise? From the readings of goodput in a switchback sweep with long windows.

    ./steerlab sweep --method switchback --window 1.5 --runs 18 ... --out DIR
    .venv/bin/python -m benchmarks.windows DIR OVERHEAD > benchmarks/windows.json

`spread` is the standard deviation by episode of the logarithm of the ratio to the baseline, if a window had so many
seconds: the root of the mean variance over the parts of such a length that follow each other in a window. `cost` is the
time for an interval of the same width, relative to windows of 0.4 s: the variance times the seconds of an episode, of which
OVERHEAD are neither window nor settling. Parts of windows in a short episode would be closer to each other, which is not
seen here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from analysis.load import load
from analysis.schema import Record
from benchmarks import machine, show
from experiments.run.episodes import Timing
from experiments.run.options import WINDOW_S

# A hash decides on which cores their connections are processed.
HASHED = ("rps", "rps-plus")
SECONDS = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0)


def main(folder: str, overhead: float) -> None:
    """Print the figures of the sweep in a folder."""
    episodes: dict[int | None, dict[str, Record]] = {}
    for one in load(Path(folder)).records:
        if one.valid:
            episodes.setdefault(one.block, {})[one.configuration] = one
    first = next(iter(next(iter(episodes.values())).values()))
    names = sorted({name for own in episodes.values() for name in own} - {"baseline"})
    complete = [own for own in episodes.values() if {"baseline", *names} <= own.keys()]
    seconds = [one for one in SECONDS if one <= first.duration]
    variances = {one: {name: variance(complete, name, one) for name in names} for one in seconds}
    quiet = [name for name in names if name not in HASHED]
    found = {
        group: {one: float(np.mean([variances[one][name] for name in own])) for one in seconds}
        for group, own in (("all", names), ("without hashes", quiet))
    }
    lasts = {one: overhead + (len(names) + 1) * Timing(one, first.omit).period for one in seconds}
    show({
        "machine": machine(),
        "episodes": len(complete),
        "overhead_s": overhead,
        "spread": {
            group: {f"{one:g}": round(math.sqrt(own[one]), 3) for one in seconds}
            for group, own in found.items()
        },
        "cost": {
            group: {
                f"{one:g}": round(own[one] * lasts[one] / (own[WINDOW_S] * lasts[WINDOW_S]), 2)
                for one in seconds
            }
            for group, own in found.items()
        },
    })  # fmt: skip


def variance(episodes: Sequence[Mapping[str, Record]], name: str, seconds: float) -> float:
    """Of the logarithm of the ratio to the baseline by episode: the mean over the parts of a window."""
    parts = int(episodes[0][name].duration / seconds + 1e-6)
    logs = [
        [
            math.log(goodput(own[name], at, seconds) / goodput(own["baseline"], at, seconds))
            for at in (part * seconds for part in range(parts))
        ]
        for own in episodes
    ]
    return float(np.mean(np.var(logs, axis=0, ddof=1)))


def goodput(record: Record, at: float, seconds: float) -> float:
    """Mean goodput of a part of a window that begins `at` seconds after it (pure)."""
    last = record.goodput[-1]
    first = last.at + last.seconds - record.duration + at
    size = length = 0.0
    for one in record.goodput:
        within = min(one.at + one.seconds, first + seconds) - max(one.at, first)
        size, length = size + max(0.0, within) * one.mbps, length + max(0.0, within)
    return size / length


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
