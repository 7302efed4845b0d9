"""Which core does the work and what steering buys: a sweep at one replica count, as JSON.

    .venv/bin/python -m benchmarks.mechanism > benchmarks/mechanism.json    (root, about 4 minutes)

Ratios are medians over blocks of steered to baseline within the same block.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analysis.load import load
from analysis.metrics import BITRATE
from analysis.schema import Record
from benchmarks import ROOT, show

PAIRS, BLOCKS, DURATION, OMIT = 4, 10, 3, 1
STEERED = ("rps", "rfs", "rps-plus", "rfs-plus", "pipeline")


def main() -> None:
    """Sweep into a folder that goes away, print the figures."""
    with TemporaryDirectory(prefix="steerlab-") as folder:
        out = Path(folder) / "sweep"
        subprocess.run(
            [
                ROOT / "steerlab", "sweep", "--method", "isolated", "--out", out,
                "--configurations", ",".join(("baseline", *STEERED)),
                "--replicas", str(PAIRS), "--runs", str(BLOCKS),
                "--duration", str(DURATION), "--omit", str(OMIT),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        records = [record for record in load(out).records if record.valid]
    show(figures(records))


def figures(records: Iterable[Record]) -> dict[str, Any]:
    """Per configuration: bitrate, paired ratio, softirq and remote wake-ups of each core."""
    of: dict[str, dict[int | None, Record]] = {}
    for record in records:
        of.setdefault(record.configuration, {})[record.block] = record
    first = next(iter(of["baseline"].values()))
    machine = first.machine
    return {
        "figure": f"{PAIRS} pairs, {DURATION} s after {OMIT} s, {BLOCKS} blocks; medians",
        "machine": {
            "kernel": machine.kernel,
            "cpu": machine.cpu,
            "cores": machine.cores,
            "server_cores": machine.server_cores,
            "client_cores": machine.client_cores,
            "irq_core": machine.irq_core,
        } if machine else None,
        "configurations": {
            name: {
                "runs": len(blocks),
                "mbps_a_pair": _median(blocks.values(), _rate),
                "ratio": _ratio(blocks, of["baseline"]),
                "softirq_percent": _by_core(blocks.values(), "cores", "soft"),
                "idle_percent": _by_core(blocks.values(), "cores", "idle"),
                "received_rps": _by_core(blocks.values(), "softnet", "received_rps"),
            }
            for name, blocks in of.items()
        },
    }  # fmt: skip


def _rate(record: Record) -> float:
    return BITRATE.value(record) or 0.0


def _median(records: Iterable[Record], value: Callable[[Record], float]) -> float:
    return round(statistics.median(map(value, records)), 1)


def _ratio(ours: dict[int | None, Record], base: dict[int | None, Record]) -> dict[str, Any]:
    ratios = sorted(_rate(ours[block]) / _rate(base[block]) for block in ours.keys() & base.keys())
    return {
        "median": round(statistics.median(ratios), 3),
        "least": round(ratios[0], 3),
        "most": round(ratios[-1], 3),
    }


def _by_core(records: Iterable[Record], rows: str, field: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for record in records:
        for row in getattr(record, rows):
            values.setdefault(row.core, []).append(getattr(row, field) or 0)
    return {core: round(statistics.median(seen), 1) for core, seen in sorted(values.items())}


if __name__ == "__main__":
    main()
