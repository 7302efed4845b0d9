"""Switchback against isolated runs on the lab: do their ratios agree, and which is faster?

    .venv/bin/python -m benchmarks.methods > benchmarks/methods.json        (root, 90 minutes)

Words after it are numbers of pairs (4, 1, 16). The methods take turns, so that drift of the machine is
shared. Isolated runs measure 2 s after 1 s of traffic, with the congestion control of switchback. `speed` is
how many times longer isolated runs need for the same half-width: the ratio of the squared half-widths, each
times the wall time of its method. `agreement` is the ratio of the two methods' ratios
with its 90 % interval, over both sweeps weighted by precision: of goodput; of packets a second, which iperf3 does not count; and
of goodput among blocks with the same share of packets on each core, which hashes and the scheduler decide. `carry_over` has the
95 % intervals of the effect on the window that follows.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from analysis.carryover import SwitchbackChecks
from analysis.load import load
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.summary import Summary, summarise
from benchmarks import machine, show
from benchmarks.sweep import run

ROUNDS, SEED = 2, 20261127
ISOLATED, SWITCHBACK = ("--method", "isolated", "--omit", "1"), ("--method", "switchback")
ALL, RPS = "six configurations", "rps"
# RPS has four times the spread of the others, since the hashes of few connections decide: it has a sweep of its own.
SWEEPS: dict[str, dict[str, Sequence[str]]] = {
    ALL: {
        "switchback": (*SWITCHBACK, "--runs", "30"),
        "isolated": (*ISOLATED, "--runs", "15", "--duration", "2"),
    },
    RPS: {
        "switchback": (*SWITCHBACK, "--runs", "60"),
        "isolated": (*ISOLATED, "--runs", "40", "--duration", "2"),
    },
}
CONFIGURATIONS = {
    ALL: "baseline,rps,rfs,rps-plus,rfs-plus,pipeline",
    RPS: "baseline,rps,rps-plus",
}
Z90 = 1.645
METHODS = ("switchback", "isolated")


def main(asked: list[str]) -> None:
    """Measure and print the figures."""
    found: dict[str, Any] = {"machine": machine()}
    for pairs in map(int, asked or ["4", "1", "16"]):
        with TemporaryDirectory(prefix="steerlab-") as folder:
            sweeps = {
                name: measured(
                    Path(folder, name), pairs, methods, ROUNDS,
                    ("--configurations", CONFIGURATIONS[name]),
                )
                for name, methods in SWEEPS.items()
            }  # fmt: skip
        found[f"{pairs} pairs"] = together(sweeps)
    show(found)


class Measured(NamedTuple):
    """Seconds and records of each method."""

    walls: dict[str, float]
    records: dict[str, list[Record]]


def measured(
    folder: Path,
    pairs: int,
    methods: Mapping[str, Sequence[str]],
    rounds: int,
    words: Sequence[str],
) -> Measured:
    """Both methods in turns; `methods` and `words` are options of `sweep`."""
    walls = dict.fromkeys(methods, 0.0)
    records: dict[str, list[Record]] = {name: [] for name in methods}
    for number in range(rounds):
        for name, own in methods.items():
            out = folder / f"{name}-{number}"
            wall, _ = run(
                out, *own, *words, "--replicas", str(pairs),
                "--seed", str(SEED + number), "--traffic", "stream:congestion=cubic",
            )  # fmt: skip
            walls[name] += wall
            records[name] += load(out).records
    return Measured(walls, records)


def together(sweeps: Mapping[str, Measured]) -> dict[str, Any]:
    """The figures of each sweep, and the agreement of the methods over all of them."""
    summaries = {name: concluded(one) for name, one in sweeps.items()}
    found = {name: compared(one, summaries[name]) for name, one in sweeps.items()}
    every = [effects(one) for one in summaries.values()]
    records = {
        method: [record for one in sweeps.values() for record in one.records[method]]
        for method in METHODS
    }
    agreement = {
        name: {
            "goodput": agreed(
                *(
                    pooled([one[method][name] for one in every if name in one[method]])
                    for method in METHODS
                )
            ),
            "by_packets": by_packets(records, name),
            "by_placement": by_placement(records, name),
        }
        for name in sorted({name for one in every for name in one["isolated"]})
    }
    return {**found, "agreement": agreement}


def concluded(one: Measured) -> dict[str, Summary]:
    """The conclusions of each method alone."""
    return {method: summarise(records) for method, records in one.records.items()}


def compared(one: Measured, summaries: Mapping[str, Summary]) -> dict[str, Any]:
    """The figures of both methods in one sweep, and how they compare."""
    by_method = effects(summaries)
    rows = {}
    for name in by_method["switchback"].keys() & by_method["isolated"].keys():
        first, second = by_method["switchback"][name], by_method["isolated"][name]
        slow, fast = cost(second, one.walls["isolated"]), cost(first, one.walls["switchback"])
        rows[name] = {
            "switchback": _figures(first),
            "isolated": _figures(second),
            "agreement": agreed(pooled([first]), pooled([second])),
            "speed": round(slow / fast, 1),
        }
    return {
        "wall_s": {name: round(wall, 1) for name, wall in one.walls.items()},
        "runs": {name: len(each.runs) for name, each in summaries.items()},
        "invalid": {name: len(each.invalid) for name, each in summaries.items()},
        "verdicts": {
            name: {contrast.b: contrast.verdict for contrast in each.contrasts}
            for name, each in summaries.items()
        },
        "carry_over": _carry_over(summaries["switchback"].switchback),
        "configurations": dict(sorted(rows.items())),
    }


class Block(NamedTuple):
    """A configuration against the baseline of its block: logarithms of the ratios of goodput and of
    packets a second, and where the packets were processed (tenths by core)."""

    goodput: float
    packets: float
    placed: tuple[int, ...]


def blocks(records: Sequence[Record], name: str) -> list[Block]:
    """The valid pairs of a configuration and the baseline."""
    known: dict[Any, dict[str, Record]] = {}
    for one in records:
        if one.valid and one.window:
            known.setdefault((one.plan, one.seed, one.block), {})[one.configuration] = one
    both = [
        (own[name], own["baseline"]) for own in known.values() if {name, "baseline"} <= own.keys()
    ]
    found = []
    for one, base in both:
        mine, other = _processed(one), _processed(base)
        found.append(
            Block(
                math.log(goodput(one) / goodput(base)),
                math.log(math.fsum(mine) / math.fsum(other)),
                tuple(round(10 * each / math.fsum(mine)) for each in mine),
            )
        )
    return found


def goodput(record: Record) -> float:
    return math.fsum(pair.values["bitrate_mbps"] or 0.0 for pair in record.pairs)


def _processed(record: Record) -> list[float]:
    """Packets a second on each core."""
    return [row.processed / (record.window or math.nan) for row in record.softnet]


def by_packets(records: Mapping[str, Sequence[Record]], name: str) -> dict[str, Any]:
    """Agreement of packets a second, which no clock of a client has a part in: the counters of
    softnet_stat are read at the edges of the window."""
    return agreed(
        *(
            (statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs)))
            for method in METHODS
            for logs in [[one.packets for one in blocks(records[method], name)]]
        )
    )


def by_placement(records: Mapping[str, Sequence[Record]], name: str) -> dict[str, Any]:
    """Agreement among blocks whose packets were spread over the cores alike: least squares with an
    effect of the method and one of each placement."""
    rows = [(method, one) for method in METHODS for one in blocks(records[method], name)]
    places = sorted({one.placed for _, one in rows})
    design = np.array(
        [
            [float(method == METHODS[0]), *(float(one.placed == place) for place in places)]
            for method, one in rows
        ]
    )
    logs = np.array([one.goodput for _, one in rows])
    inverse = np.linalg.pinv(design.T @ design)
    effects = inverse @ design.T @ logs
    left = logs - design @ effects
    error = math.sqrt(left @ left / (len(rows) - design.shape[1]) * inverse[0, 0])
    return agreed((float(effects[0]), error), (0.0, 0.0))


def _carry_over(checks: SwitchbackChecks | None) -> dict[str, list[float]]:
    """95 % intervals of the effect of a configuration on the window after it."""
    return {
        one.configuration: [round(one.low or 0, 3), round(one.high or 0, 3)]
        for one in (checks.carryover if checks else [])
    }


def effects(summaries: Mapping[str, Summary]) -> dict[str, dict[str, Effect]]:
    """The effects against the baseline by method and configuration."""
    return {
        method: {each.b: each.effect for each in summary.contrasts if each.effect.low}
        for method, summary in summaries.items()
    }


def pooled(found: Sequence[Effect]) -> tuple[float, float]:
    """Logarithm of the ratio over several sweeps and its standard error, weighted by precision."""
    weights = [1 / ((one.error or math.inf) ** 2) for one in found]
    logs = [math.log(one.estimate or 1) for one in found]
    total = math.fsum(weights)
    mean = math.fsum(w * log for w, log in zip(weights, logs, strict=True)) / total
    return mean, 1 / math.sqrt(total)


def _half(effect: Effect) -> float:
    """Half the interval of the logarithm."""
    return math.log((effect.high or 1) / (effect.low or 1)) / 2


def cost(effect: Effect, wall: float) -> float:
    """Seconds for a half-width of 1, where it falls with the root of time."""
    return _half(effect) ** 2 * wall


def _figures(effect: Effect) -> dict[str, Any]:
    interval = [round(effect.low or 0, 3), round(effect.high or 0, 3)]
    return {
        "ratio": round(effect.estimate or 0, 3),
        "interval_95": interval,
        "half_width": round(_half(effect), 4),
        "blocks": effect.n_b,
    }


def agreed(first: tuple[float, float], second: tuple[float, float]) -> dict[str, Any]:
    """Ratio of the two methods' ratios, from their logarithms and errors."""
    log = first[0] - second[0]
    error = math.hypot(first[1], second[1])
    low, high = (math.exp(log + sign * Z90 * error) for sign in (-1, 1))
    return {"ratio": round(math.exp(log), 3), "interval_90": [round(low, 3), round(high, 3)]}


if __name__ == "__main__":
    main(sys.argv[1:])
