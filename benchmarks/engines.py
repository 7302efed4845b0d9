"""The embedded engine beside the Pulumi CLI: the lab at 16 pairs, and growth from 1 to 128 pairs.

    .venv/bin/python -m benchmarks.engines > benchmarks/engines.json        (root, some minutes)

Seconds, medians. `in_process` is the engine alone, `command` the whole command line. The CLI is
measured where it is on PATH, each of its figures between two of the embedded engine's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import ROOT, machine, show
from experiments.engines import Engine, StackRef, stacks
from experiments.engines.embedded import Embedded
from experiments.host import lock

REPEATS, PAIRS, GROWTH = 5, 16, (1, 4, 16, 64, 128)
TARGETS = {"from_nothing": 3.0, "configuration": 0.5, "no_op": 0.3, "destroy": 1.5}

Seconds = dict[str, list[float]]


def main() -> None:
    """Measure and print the figures."""
    engines: dict[str, Callable[[Path], Seconds]] = {
        "embedded_in_process": lambda home: _in_process(Embedded(), home, PAIRS),
        "embedded_command": _command,
    }
    if shutil.which("pulumi"):
        from experiments.engines.pulumi_cli import PulumiCli

        engines["pulumi_in_process"] = lambda home: _in_process(PulumiCli(), home, PAIRS)
    measured: dict[str, Seconds] = {name: {} for name in engines}
    growth: dict[int, Seconds] = {pairs: {} for pairs in GROWTH}
    with lock.machine("benchmark of the engines"):
        for _ in range(REPEATS):
            for name, measure in engines.items():
                _add(measured[name], _tried(measure))
        for _ in range(3):
            for pairs in GROWTH:
                _add(growth[pairs], _tried(partial(_in_process, Embedded(), pairs=pairs)))
    show(_figures(measured, growth))


def _figures(measured: dict[str, Seconds], growth: dict[int, Seconds]) -> dict[str, Any]:
    medians = {name: _medians(seconds) for name, seconds in measured.items()}
    ours = medians["embedded_in_process"]
    theirs = medians.get("pulumi_in_process")
    return {
        "figure": f"{PAIRS} pairs of the lab, runs 0; median seconds of {REPEATS}",
        "machine": machine(),
        "seconds": medians,
        "targets_in_process": TARGETS,
        "command_adds": {step: round(medians["embedded_command"][step] - ours[step], 3) for step in ours},
        "pulumi_to_embedded": theirs and {step: round(theirs[step] / ours[step], 1) for step in ours},
        "growth_in_process": {pairs: _medians(seconds) for pairs, seconds in growth.items()},
    }  # fmt: skip


def _medians(seconds: Seconds) -> dict[str, float]:
    return {step: round(statistics.median(values), 3) for step, values in seconds.items()}


def _add(sums: Seconds, seconds: Seconds) -> None:
    for step, values in seconds.items():
        sums.setdefault(step, []).extend(values)


def _tried(measure: Callable[[Path], Seconds]) -> Seconds:
    with TemporaryDirectory(prefix="steerlab-") as folder:
        return measure(Path(folder))


def _in_process(engine: Engine, home: Path, pairs: int) -> Seconds:
    def stack(configuration: str) -> StackRef:
        values = {"configuration": configuration, "replicas": str(pairs), "runs": "0"}
        return stacks.own(home, "benchmark", values)[0]

    return _steps(
        lambda configuration: engine.up(stack(configuration)),
        lambda: engine.destroy(stack("rfs")),
    )


def _command(home: Path) -> Seconds:
    """The same by the command line, in a project of its own."""
    for name in ("agent", "infra", "experiments", "analysis", "docker"):
        (home / name).symlink_to(ROOT / name)
    for name in ("__main__.py", "Pulumi.yaml", "steerlab", "requirements.txt"):
        shutil.copy2(ROOT / name, home / name)
    # a link to the package would make its parent the project
    (home / "experiments").unlink()
    shutil.copytree(ROOT / "experiments", home / "experiments")
    name = f"rfs-{PAIRS}"

    def run(*words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "experiments", *words, "-s", name, "--engine", "embedded"],
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(home)},
            check=True,
            capture_output=True,
        )

    return _steps(
        lambda configuration: run("up", "-c", "runs=0", "-c", f"configuration={configuration}"),
        lambda: run("destroy"),
    )


def _steps(up: Callable[[str], object], destroy: Callable[[], object]) -> Seconds:
    seconds: Seconds = {}
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(destroy)
        for step, configuration in (
            ("from_nothing", "rfs"),
            ("no_op", "rfs"),
            ("configuration", "rps"),
        ):
            seconds[step] = [_timed(partial(up, configuration))]
        seconds["destroy"] = [_timed(destroy)]
    return seconds


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
