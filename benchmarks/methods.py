"""Switchback against isolated runs on the lab: do their ratios agree, and which is faster?

    .venv/bin/python -m benchmarks.methods > benchmarks/methods.json        (root, 90 minutes)

Words after it are numbers of pairs (4, 1, 16). The methods take turns, so that drift of the machine is
shared. Isolated runs measure 2 s (of RPS 1 s) after 1 s of traffic, with the congestion control of switchback. `speed` is
how many times longer isolated runs need for the same half-width: the ratio of the squared half-widths, each
times the wall time of its method. `agreement` is the ratio of the two methods' ratios with its 90 % interval.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
        "isolated": (*ISOLATED, "--runs", "40", "--duration", "1"),
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
        for name, methods in SWEEPS.items():
            with TemporaryDirectory(prefix="steerlab-") as folder:
                words = ("--configurations", CONFIGURATIONS[name])
                found[f"{pairs} pairs, {name}"] = compared(
                    Path(folder), pairs, methods, ROUNDS, words
                )
    show(found)


def compared(
    folder: Path,
    pairs: int,
    methods: Mapping[str, Sequence[str]],
    rounds: int,
    words: Sequence[str],
) -> dict[str, Any]:
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
    concluded = {name: summarise(made) for name, made in records.items()}
    effects = {name: _effects(one) for name, one in concluded.items()}
    rows = {}
    for name in effects["switchback"].keys() & effects["isolated"].keys():
        first, second = effects["switchback"][name], effects["isolated"][name]
        rows[name] = {
            "switchback": _figures(first),
            "isolated": _figures(second),
            "agreement": _agreement(first, second),
            "speed": round(_cost(second, walls["isolated"]) / _cost(first, walls["switchback"]), 1),
        }
    return {
        "wall_s": {name: round(wall, 1) for name, wall in walls.items()},
        "runs": {name: len(one.runs) for name, one in concluded.items()},
        "invalid": {name: len(one.invalid) for name, one in concluded.items()},
        "verdicts": {
            name: {contrast.b: contrast.verdict for contrast in one.contrasts}
            for name, one in concluded.items()
        },
        "configurations": dict(sorted(rows.items())),
    }


def _effects(summary: Summary) -> dict[str, Effect]:
    return {one.b: one.effect for one in summary.contrasts if one.effect.low}


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


def _agreement(first: Effect, second: Effect) -> dict[str, Any]:
    """Ratio of the two methods' ratios."""
    log = math.log((first.estimate or 1) / (second.estimate or 1))
    error = math.hypot(first.error or 0, second.error or 0)
    low, high = (math.exp(log + sign * Z90 * error) for sign in (-1, 1))
    return {"ratio": round(math.exp(log), 3), "interval_90": [round(low, 3), round(high, 3)]}


if __name__ == "__main__":
    main(sys.argv[1:])
