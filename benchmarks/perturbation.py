"""Does measuring disturb what is measured: the harness's CPU time, and runs without its reads.

    .venv/bin/python -m benchmarks.perturbation > benchmarks/perturbation.json   (root, 6 minutes)

One lab, 4 pairs of rfs: runs in random order within each of 30 blocks, one with the reads of /proc
at the window's edges and one without. Two one-sided tests on the log ratios of a block (Schuirmann
1987): equivalent where the 90 % interval of the ratio lies within 5 % of 1.
"""

from __future__ import annotations

import math
import random
import resource
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scipy import stats

from benchmarks import show
from experiments.engines import stacks
from experiments.engines.embedded import Embedded
from experiments.host import lock
from experiments.targets.lab import clients
from experiments.targets.lab.backend import LabBackend
from infra.lab import measurement
from infra.traffic.contract import Values

PAIRS, BLOCKS, DURATION, OMIT, MARGIN, SEED = 4, 30, 3, 1, 0.05, 7


def main() -> None:
    """Measure and print the figures."""
    with TemporaryDirectory(prefix="steerlab-") as home, lock.machine("benchmark of perturbation"):
        values = {
            "configuration": "rfs",
            "replicas": str(PAIRS),
            "runs": "0",
            "duration": str(DURATION),
            "omit": str(OMIT),
        }
        stack, state = stacks.own(Path(home), "perturbation", values)
        engine = Embedded()
        engine.up(stack)
        try:
            show(_figures(measurement.of(state)))
        finally:
            engine.destroy(stack)


def _figures(what: Any) -> dict[str, Any]:
    site = LabBackend(what)
    order = random.Random(SEED)  # noqa: S311
    logs: list[float] = []
    own: list[float] = []
    for _ in range(BLOCKS):
        rates: dict[bool, float] = {}
        for reading in order.sample([True, False], 2):
            if reading:
                driven = site.drive(PAIRS)
                (edges,) = driven.edges.values()
                own.append((edges[1].own_cpu - edges[0].own_cpu) / (edges[1].at - edges[0].at))
                results = driven.results
            else:
                results = clients.run(what, what.pairs[:PAIRS], lambda *_: None)
            rates[reading] = statistics.mean(
                one.outcome.numbers["bitrate_mbps"] if isinstance(one.outcome, Values) else math.nan
                for one in results
            )
        logs.append(math.log(rates[True] / rates[False]))
    interval = stats.t.interval(0.90, BLOCKS - 1, statistics.mean(logs), stats.sem(logs))
    low, high = (math.exp(edge) for edge in interval)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "figure": f"{PAIRS} pairs of rfs, {DURATION} s after {OMIT} s, {BLOCKS} blocks",
        "harness_share_of_a_core": {
            "median": round(statistics.median(own), 5),
            "most": round(max(own), 5),
        },
        "ratio_with_reads_to_without": round(math.exp(statistics.mean(logs)), 4),
        "interval_90": [round(low, 4), round(high, 4)],
        "equivalent_within": MARGIN,
        "equivalent": low > 1 / (1 + MARGIN) and high < 1 + MARGIN,
        "memory_mb": round(usage.ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    main()
