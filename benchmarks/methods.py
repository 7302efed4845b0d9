"""Switchback against isolated runs on the lab: do their ratios agree, and which is faster?

    .venv/bin/python -m benchmarks.methods > benchmarks/methods.json        (root, 90 minutes)

Words after it are numbers of pairs (4, 1, 16). The methods take turns, so that drift of the machine is
shared. Isolated runs measure 2 s after 1 s of traffic, with the congestion control of switchback. `speed` is
how many times longer isolated runs need for the same half-width: the ratio of the squared half-widths, each
times the wall time of its method. `agreement` is the ratio of the two methods' ratios with its 90 % interval,
of a sweep and over both sweeps, weighted by precision.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from analysis.load import load
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.summary import summarise
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
    found = {name: compared(one) for name, one in sweeps.items()}
    every = [effects(one) for one in sweeps.values()]
    names = dict.fromkeys(name for one in every for name in one["isolated"])
    agreement = {
        name: agreed(
            *(
                pooled([one[method][name] for one in every if name in one[method]])
                for method in ("switchback", "isolated")
            )
        )
        for name in sorted(names)
    }
    return {**found, "agreement": agreement}


def compared(one: Measured) -> dict[str, Any]:
    """The figures of both methods in one sweep, and how they compare."""
    concluded = {name: summarise(made) for name, made in one.records.items()}
    by_method = effects(one)
    rows = {}
    for name in by_method["switchback"].keys() & by_method["isolated"].keys():
        first, second = by_method["switchback"][name], by_method["isolated"][name]
        slow, fast = _cost(second, one.walls["isolated"]), _cost(first, one.walls["switchback"])
        rows[name] = {
            "switchback": _figures(first),
            "isolated": _figures(second),
            "agreement": agreed(pooled([first]), pooled([second])),
            "speed": round(slow / fast, 1),
        }
    return {
        "wall_s": {name: round(wall, 1) for name, wall in one.walls.items()},
        "runs": {name: len(each.runs) for name, each in concluded.items()},
        "invalid": {name: len(each.invalid) for name, each in concluded.items()},
        "verdicts": {
            name: {contrast.b: contrast.verdict for contrast in each.contrasts}
            for name, each in concluded.items()
        },
        "configurations": dict(sorted(rows.items())),
    }


def effects(one: Measured) -> dict[str, dict[str, Effect]]:
    """The effects against the baseline by method and configuration."""
    return {
        method: {each.b: each.effect for each in summarise(records).contrasts if each.effect.low}
        for method, records in one.records.items()
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


def _cost(effect: Effect, wall: float) -> float:
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
