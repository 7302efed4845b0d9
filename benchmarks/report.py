"""Records with every metric to a report: 700 synthetic runs of 16 pairs on 8 cores, each time cold.

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

from analysis.schema import Datagrams, Record
from benchmarks import ROOT, machine, show
from benchmarks.synthetic import mixed, valued, write

REPEATS = 5
FACTORS = {
    "baseline": {}, "rps": {"bitrate_mbps": 1.1, "p99_us": 1.6}, "rfs": {"bitrate_mbps": 1.2},
    "rps-plus": {"bitrate_mbps": 1.2, "p99_us": 1.5}, "rfs-plus": {"bitrate_mbps": 1.3},
    "rps-7": {"bitrate_mbps": 1.05}, "pipeline": {"bitrate_mbps": 1.3, "cpu_s_per_gbit": 1.1},
}  # fmt: skip
LIMITS = ("p99_us=+10%", "cpu_s_per_gbit=+5%", "retransmits_per_gbit=+100")
TARGETS = {"seconds": 5.0, "megabytes": 400}


def main() -> None:
    """Write the records once, report on them in fresh processes, print the figures."""
    with TemporaryDirectory(prefix="steerlab-") as folder:
        records = [
            with_datagrams(record)
            for record in mixed(FACTORS, replicas=(16,), blocks=100, cores=8, base=4000)
        ]
        directory = write(records, Path(folder) / "results")
        timings = [_report(directory) for _ in range(REPEATS)]
    show(
        {
            "figure": f"{len(records)} runs of 16 pairs and one of request/response, 8 cores, every "
            f"metric, {len(LIMITS)} limits; {REPEATS} cold processes",
            "machine": machine(),
            "seconds": round(statistics.median(seconds for seconds, _ in timings), 2),
            "fastest": round(min(seconds for seconds, _ in timings), 2),
            "megabytes": round(max(megabytes for _, megabytes in timings)),
            "targets": TARGETS,
        }
    )


def with_datagrams(record: Record) -> Record:
    """The record with the metrics of UDP too: no traffic has all, but a report may."""
    turn = (record.order or 0) * 7919 % 101
    streams = [
        valued(pair, loss_percent=turn / 1000, out_of_order=turn) if pair.kind == "stream" else pair
        for pair in record.pairs
    ]
    counters = Datagrams(
        node="server", sent=10**6, delivered=10**6 - turn, socket_drops=turn, other_errors=0,
        device_drops=0,
    )  # fmt: skip
    return record.model_copy(update={"pairs": streams, "datagrams": [counters]})


def _report(directory: Path) -> tuple[float, float]:
    """Wall time (s) and the largest resident size (MB) of one report."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", "report", directory, "--limit", ",".join(LIMITS)],
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
