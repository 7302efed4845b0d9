"""Does `tune` find the best configuration? Ten races of 3 minutes against an isolated sweep of all their arms.

    .venv/bin/python -m benchmarks.tune FOLDER > benchmarks/tune.json        (root, about 75 minutes)

A word after the folder is the number of races, another one that of the sweep's blocks. FOLDER keeps what was measured, and
what is there is not measured again. Both are on the lab with 4 pairs, in the form that `tune` chooses. The sweep measures
each arm that took part in a race, once in each block in random order, for 2 s after 1 s of traffic.

`shortfall_percent` is how far the recommended arm is below the best one of the sweep. The best of many noisy arms looks
better than it is. So the best is chosen in one half of the blocks and judged in the other, and the mean of both halves is
kept; `of_best_looking` is without that precaution. `covers`: the 95 % interval of the confirmed ratio contains the sweep's
estimate; `agrees`: it overlaps the sweep's interval. Where the baseline is kept, the ratio is that of the arm that the
confirmation judged; where that is the baseline too, both are 1.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from analysis.load import load
from analysis.metrics import BITRATE
from analysis.statistics import difference, exponential
from benchmarks import ROOT, machine, show
from benchmarks.sweep import run

RACES, BLOCKS, MINUTES, PAIRS, SEED = 10, 10, 3, 4, 20261128
BASELINE = "baseline"
WITHIN = 5.0  # percent of the best

Logs = NDArray[np.float64]


def main(asked: Sequence[str]) -> None:
    """Measure what the folder does not have yet, and print the figures."""
    folder = Path(asked[0])
    races, blocks = [int(word) for word in asked[1:]] + [RACES, BLOCKS][len(asked) - 1 :]
    found = [_race(folder / f"race-{number}", SEED + number) for number in range(races)]
    arms = raced([folder / f"race-{number}" for number in range(races)])
    logs = _sweep(folder, arms, found[0]["lab"]["form"], blocks)
    rows = [judged(one, logs) for one in found]
    show(
        {
            "machine": machine(),
            "pairs": PAIRS,
            "minutes": MINUTES,
            "lab": found[0]["lab"],
            "arms": len(arms) + 1,
            "blocks": blocks,
            "within_5_percent": sum(row["shortfall_percent"] <= WITHIN for row in rows),
            "covers": sum(row["covers"] for row in rows),
            "agrees": sum(row["agrees"] for row in rows),
            "races": rows,
            "sweep": {name: interval(logs, name) for name in arms},
        }
    )


def _race(out: Path, seed: int) -> dict[str, Any]:
    """The answer of one race, as `tune --json` prints it."""
    answer = out.with_suffix(".json")
    if not answer.exists():
        words = ("--minutes", str(MINUTES), "--replicas", str(PAIRS), "--seed", str(seed))
        command = (
            "./steerlab",
            "tune",
            *words,
            "--out",
            str(out),
            "--engine",
            "embedded",
            "--json",
        )
        made = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        answer.write_text(made.stdout)
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def raced(races: Sequence[Path]) -> dict[str, Any]:
    """All arms of these races but the baseline, as a file of configurations has them."""
    return {
        name: document
        for race in races
        for name, document in yaml.safe_load((race / "arms.yaml").read_text()).items()
    }


def _sweep(folder: Path, arms: Mapping[str, Any], form: str, blocks: int) -> dict[str, Logs]:
    """The logarithm of the total bitrate of each arm, by block."""
    out, own = folder / "sweep", folder / "arms.yaml"
    if out.exists():
        run(out, "--resume")
    else:
        own.write_text(yaml.safe_dump(dict(arms), sort_keys=False))
        run(
            out, "--method", "isolated", "--omit", "1", "--duration", "2", "--own", str(own),
            "--configurations", ",".join((BASELINE, *arms)), "--replicas", str(PAIRS), "--runs", str(blocks),
            "--seed", str(SEED), "--traffic", "stream:congestion=cubic", "-c", f"lab.form={form}",
        )  # fmt: skip
    found = {name: np.full(blocks, np.nan) for name in (BASELINE, *arms)}
    for one in load(out).records:
        value = BITRATE.value(one)
        if one.valid and value and one.block is not None:
            found[one.configuration][one.block] = math.log(value)
    return found


def judged(answer: Mapping[str, Any], logs: Mapping[str, Logs]) -> dict[str, Any]:
    """One race beside the sweep."""
    name, ratio = answer["recommended"]["configuration"], answer["confirmation"]["ratio"]
    chosen = answer["confirmation"]["configuration"] or BASELINE
    estimate, low, high = interval(logs, chosen) if chosen != BASELINE else (1.0, 1.0, 1.0)
    own = (ratio["low"], ratio["high"]) if ratio else (1.0, 1.0)
    return {
        "recommended": name,
        "judged": chosen,
        "ratio": ratio,
        "ratio_of_sweep": interval(logs, chosen) if chosen != BASELINE else None,
        "set": len(answer["set"]),
        "arms": answer["race"]["arms"],
        "episodes": answer["race"]["episodes"],
        "seconds": answer["seconds"],
        "shortfall_percent": shortfall(logs, name),
        "of_best_looking": _percent(logs, name, _best(logs, slice(None)), slice(None)),
        "covers": own[0] <= estimate <= own[1],
        "agrees": own[0] <= high and low <= own[1],
    }


def shortfall(logs: Mapping[str, Logs], name: str) -> float:
    """Percent that an arm is below the best, which other blocks choose."""
    halves = [slice(0, None, 2), slice(1, None, 2)]
    turns = zip(halves, reversed(halves), strict=True)
    return round(sum(_percent(logs, name, _best(logs, a), b) for a, b in turns) / 2, 2)


def _best(logs: Mapping[str, Logs], blocks: slice) -> str:
    return max(logs, key=lambda name: float(np.nanmean((logs[name] - logs[BASELINE])[blocks])))


def _percent(logs: Mapping[str, Logs], name: str, best: str, blocks: slice) -> float:
    gap = float(np.nanmean((logs[best] - logs[name])[blocks]))
    return round(100 * -math.expm1(-gap), 2)


def interval(logs: Mapping[str, Logs], name: str) -> list[float]:
    """The sweep's ratio of an arm to the baseline with its 95 % interval."""
    both = ~np.isnan(logs[name] - logs[BASELINE])
    found = exponential(
        difference(logs[BASELINE][both], logs[name][both], paired=True, check=False)
    )
    return [round(one or math.nan, 3) for one in (found.estimate, found.low, found.high)]


if __name__ == "__main__":
    main(sys.argv[1:])
