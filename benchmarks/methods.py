"""Switchback against isolated runs: ratios to the baseline, half-widths and time, at equal wall time.

    .venv/bin/python -m benchmarks.methods > benchmarks/methods.json        (root, about 5 minutes)

Words after it are numbers of pairs (4). Isolated runs measure 2 s after 1 s of traffic, with the congestion
control of switchback, for as long as switchback took. `speed` is how many times longer isolated runs need
for the same half-width: the ratio of the squared half-widths, each times its wall time. `agreement` is the
ratio of the two methods' ratios with its 90 % interval.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analysis.load import load
from analysis.statistics import Effect
from analysis.summary import Summary, summarise
from benchmarks import machine, show
from benchmarks.sweep import run

CONFIGURATIONS = "baseline,rps,rfs,rps-plus,rfs-plus,pipeline"
EPISODES, SEED = 20, 20261127
Z90 = 1.645


def main(asked: list[str]) -> None:
    """Measure and print the figures."""
    found: dict[str, Any] = {"machine": machine()}
    for pairs in map(int, asked or ["4"]):
        with TemporaryDirectory(prefix="steerlab-") as folder:
            found[f"{pairs} pairs"] = compared(Path(folder), pairs)
    show(found)


def compared(folder: Path, pairs: int) -> dict[str, Any]:
    """Both methods one after the other."""
    words = (
        "--configurations", CONFIGURATIONS, "--replicas", str(pairs), "--seed", str(SEED),
        "--traffic", "stream:congestion=cubic",
    )  # fmt: skip
    switched, _ = run(
        folder / "switchback", *words, "--method", "switchback", "--runs", str(EPISODES)
    )
    alone, _ = run(
        folder / "isolated", *words, "--runs", "200", "--duration", "2", "--omit", "1",
        "--max-time", f"{round(switched)}s",
    )  # fmt: skip
    walls = {"switchback": switched, "isolated": alone}
    concluded = {name: summarise(load(folder / name).records) for name in walls}
    effects = {name: _effects(one) for name, one in concluded.items()}
    rows = {}
    for name in effects["switchback"].keys() & effects["isolated"].keys():
        first, second = effects["switchback"][name], effects["isolated"][name]
        rows[name] = {
            "switchback": _figures(first),
            "isolated": _figures(second),
            "agreement": _agreement(first, second),
            "speed": round(_cost(second, alone) / _cost(first, switched), 1),
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
