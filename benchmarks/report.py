"""Records to table, plots and report: 700 synthetic runs of 16 pairs on 8 cores, each time cold.

.venv/bin/python -m benchmarks.report > benchmarks/report.json
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import ROOT, machine, show
from benchmarks.synthetic import sweep

REPEATS = 5
RATIOS = {
    "baseline": 1.0, "rps": 1.1, "rfs": 1.2, "rps-plus": 1.2, "rfs-plus": 1.3, "rps-7": 1.05,
    "pipeline": 1.3,
}  # fmt: skip
TARGETS = {"seconds": 5.0, "megabytes": 400}


def main() -> None:
    """Write the records once, report on them in fresh processes, print the figures."""
    with TemporaryDirectory(prefix="steerlab-") as folder:
        directory = Path(folder)
        records = sweep(RATIOS, replicas=(16,), blocks=100, cores=8)
        (directory / "records").mkdir()
        for record in records:
            path = directory / "records" / f"run-{record.order:05d}.json"
            path.write_text(record.model_dump_json(indent=1))
        timings = [_report(directory) for _ in range(REPEATS)]
    show(
        {
            "figure": f"{len(records)} runs of 16 pairs, 8 cores; {REPEATS} cold processes",
            "machine": machine(),
            "seconds": round(statistics.median(seconds for seconds, _ in timings), 2),
            "fastest": round(min(seconds for seconds, _ in timings), 2),
            "megabytes": round(max(megabytes for _, megabytes in timings)),
            "targets": TARGETS,
        }
    )


def _report(directory: Path) -> tuple[float, float]:
    """Wall time (s) and the largest resident size (MB) of one report."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", "report", directory],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"report ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
