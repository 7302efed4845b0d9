"""Switchback against isolated runs on a cluster: which is faster, and do their ratios agree?

    .venv/bin/python -m benchmarks.cluster -c kubernetes.images=... > benchmarks/cluster.json
    .venv/bin/python -m benchmarks.cluster --before RESULTS SECONDS -c ... > benchmarks/cluster_before.json

Words after it are options of `sweep` that select the cluster. With `--before` the isolated runs are those of a sweep
by an earlier version, just before on the same machine, whose command took so many seconds. The figures are those of `benchmarks.methods`:
`speed` is how many times longer isolated runs need for the same half-width. The wall time of each method
is that of its whole command, with set-up and report. `pooled` is over the configurations whose spread does not
depend on hashes: `spread` is the root of the mean variance of the logarithm of the ratio by block, `speed` has the mean of
the squared half-widths, and its interval is that of a bootstrap of the blocks of both methods. `doubts` are why verdicts
are inconclusive, `dependence` is the check of the blocks, `reasons` are why attempts are invalid. About 13 minutes.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.dependence import Check
from analysis.load import load
from analysis.schema import Record
from analysis.summary import Summary
from benchmarks import machine, methods, show

PAIRS = 4
CONFIGURATIONS = methods.CONFIGURATIONS[methods.ALL]
METHODS = {
    "switchback": ("--method", "switchback", "--runs", "42"),
    "isolated": ("--method", "isolated", "--runs", "13", "--duration", "2", "--omit", "1"),
}
QUIET = ("pipeline", "rfs", "rfs-plus")
RESAMPLES = 2000


def main(where: list[str]) -> None:
    """Measure and print the figures."""
    earlier: dict[str, tuple[str, float]] = {}
    if where[:1] == ["--before"]:
        _, results, seconds, *where = where
        earlier["isolated"] = results, float(seconds)
    own = {name: words for name, words in METHODS.items() if name not in earlier}
    with TemporaryDirectory(prefix="steerlab-") as folder:
        words = ("--target", "kubernetes", "--configurations", CONFIGURATIONS, *where)
        found = methods.measured(Path(folder), PAIRS, own, 1, words)
    for name, (kept, wall) in earlier.items():
        found.walls[name], found.records[name] = wall, load(Path(kept)).records
    show({"machine": machine(), "pairs": PAIRS, **figures(found)})


def figures(found: methods.Measured) -> dict[str, Any]:
    """The figures of both methods, and how they compare."""
    summaries = methods.concluded(found)
    return {
        **methods.compared(found, summaries),
        "doubts": {name: _doubts(one) for name, one in summaries.items()},
        "dependence": {name: _dependence(one.check) for name, one in summaries.items()},
        "reasons": {name: _reasons(records) for name, records in found.records.items()},
        "pooled": pooled(found, summaries),
    }


def _doubts(summary: Summary) -> dict[str, str]:
    return {one.b: one.doubt for one in summary.contrasts if one.doubt}


def _dependence(check: Check) -> dict[str, float | None]:
    return {"lag1": check.lag1 and round(check.lag1, 3), "p": check.p and round(check.p, 4)}


def _reasons(records: Sequence[Record]) -> dict[str, int]:
    return dict(Counter(reason for one in records if not one.valid for reason in one.reasons))


def pooled(found: methods.Measured, summaries: Mapping[str, Summary]) -> dict[str, Any]:
    """Spread and speed over the configurations whose spread does not depend on hashes."""
    effects = methods.effects(summaries)
    logs = {name: table(records) for name, records in found.records.items()}
    costs = {
        name: statistics.fmean(methods.cost(effects[name][one], wall) for one in QUIET)
        for name, wall in found.walls.items()
    }
    speed = costs["isolated"] / costs["switchback"]
    draw = np.random.default_rng(methods.SEED)
    quotient = variance(logs["isolated"]) / variance(logs["switchback"])
    quotients = [
        variance(draw.choice(logs["isolated"], len(logs["isolated"])))
        / variance(draw.choice(logs["switchback"], len(logs["switchback"])))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(quotients, (0.05, 0.95)) / quotient * speed
    return {
        "spread": {name: round(float(np.sqrt(variance(one))), 4) for name, one in logs.items()},
        "speed": round(speed, 1),
        "interval_90": [round(float(low), 1), round(float(high), 1)],
    }


def table(records: Sequence[Record]) -> NDArray[np.float64]:
    """The logarithms of the ratios: a row for each block that has all of these configurations."""
    known: dict[int | None, dict[str, float]] = {}
    for one in records:
        if one.valid:
            known.setdefault(one.block, {})[one.configuration] = math.log(methods.goodput(one))
    full = [own for own in known.values() if {"baseline", *QUIET} <= own.keys()]
    return np.array([[own[name] - own["baseline"] for name in QUIET] for own in full])


def variance(logs: NDArray[np.float64]) -> float:
    """The mean of the variances of the columns."""
    return float(np.mean(np.var(logs, axis=0, ddof=1)))


if __name__ == "__main__":
    main(sys.argv[1:])
