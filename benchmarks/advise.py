"""How good is the first suggestion of `nodes advise`: on a loaded lab, against a sweep of the study's configurations.

    .venv/bin/python -m benchmarks.advise > benchmarks/advise.json     (root, about 12 minutes)

For each number of pairs: a lab of the form study with the baseline under full load, `nodes advise` during it, then a
switchback sweep. Numbers after it are those of the pairs. What is advised first is the baseline where the advice is
to leave it. The share of a core is that of the agent that reads, from its start to its end; `command_cpu_s` is that
of the whole command, most of which starts Python.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analysis.load import load
from analysis.summary import summarise
from benchmarks import ROOT, machine, show
from benchmarks.forms import CONFIGURATIONS
from benchmarks.sweep import run
from experiments.engines import stacks
from experiments.engines.embedded import Embedded
from experiments.host import lock
from experiments.targets.lab import clients
from infra.lab import measurement

PAIRS, EPISODES, SECONDS, AROUND, SEED = (1, 2, 4, 8, 16), 16, 20, 10, 20261128
MARGIN = 5.0  # percent below the best


def main(asked: Sequence[str]) -> None:
    """Measure and print the figures."""
    rows = [figures(pairs) for pairs in map(int, asked or PAIRS)]
    show(
        {
            "machine": machine(),
            "seconds": SECONDS,
            "episodes": EPISODES,
            "pairs": rows,
            "within_5_percent": sum(row["below_best_percent"] <= MARGIN for row in rows),
        }
    )


def figures(pairs: int) -> dict[str, Any]:
    """The advice at so many pairs, and how far its first suggestion is from the best."""
    advice = advised(pairs)
    ratios = measured(pairs)
    names = [one["name"] for one in advice["configurations"]]
    best = max(ratios, key=lambda name: ratios[name])
    first = names[0] if names else "baseline"
    return {
        "pairs": pairs,
        "advised": names,
        "why": advice["why"],
        "ratios": ratios,
        "best": best,
        "below_best_percent": round(100 * (1 - ratios.get(first, 0.0) / ratios[best]), 1),
        "evidence": advice["evidence"],
        "reader_cpu_percent": advice["reader_cpu_percent"],
        "command_cpu_s": advice["command_cpu_s"],
    }


def advised(pairs: int) -> dict[str, Any]:
    """What `nodes advise` says of a lab under load."""
    values = {
        "configuration": "baseline",
        "replicas": str(pairs),
        "runs": "0",
        "duration": str(SECONDS + AROUND),
        "omit": "1",
        "traffic": "stream:congestion=cubic",
    }
    found: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="steerlab-") as home, lock.machine("benchmark of advise"):
        stack, state = stacks.own(Path(home), f"advise-{pairs}", values)
        engine = Embedded()
        engine.up(stack)
        try:
            what = measurement.of(state)
            clients.run(what, what.pairs, lambda *_: found.append(_command()))
        finally:
            engine.destroy(stack)
    return found[0]


def _command() -> dict[str, Any]:
    before = _children()
    words = ["nodes", "advise", "--target", "lab", "--seconds", str(SECONDS), "--json"]
    done = subprocess.run([ROOT / "steerlab", *words], stdout=subprocess.PIPE, check=True)
    return {**json.loads(done.stdout), "command_cpu_s": round(_children() - before, 2)}


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measured(pairs: int) -> Mapping[str, float]:
    """The ratio of each configuration to the baseline, by switchback."""
    with TemporaryDirectory(prefix="steerlab-") as folder:
        out = Path(folder) / "sweep"
        run(
            out, "--method", "switchback", "--configurations", CONFIGURATIONS,
            "--replicas", str(pairs), "--runs", str(EPISODES), "--seed", str(SEED),
        )  # fmt: skip
        contrasts = summarise(load(out).records).contrasts
    return {"baseline": 1.0, **{one.b: round(one.effect.estimate or 0.0, 3) for one in contrasts}}


if __name__ == "__main__":
    main(sys.argv[1:])
