"""A long sweep watched from outside: memory, file descriptors, namespaces, processes, disk.

    .venv/bin/python -m benchmarks.soak OUT --method isolated \\
      --configurations baseline,rps,rfs,rps-plus,rfs-plus --replicas 1,4 --runs 30 \\
      --duration 1 --omit 0 --seed 1 > benchmarks/soak.json   (root)

Each finished run gives a sample of the sweep's process and of the machine. Growth is the
difference of the medians of the last and the second tenth of the samples, when all is warm.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import ROOT, show


def main(out: Path, words: list[str]) -> None:
    """Run the sweep into `out`, print the figures."""
    out.parent.mkdir(parents=True, exist_ok=True)
    told = out.with_suffix(".events")
    told.unlink(missing_ok=True)
    before = _machine()
    since = time.monotonic()
    command = [str(ROOT / "steerlab"), "sweep", "--out", str(out), "--events", str(told), *words]
    samples: list[dict[str, float]] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.2)
            if told.exists() and _count(told) > len(samples):
                samples.append(_sample(process.pid, out))
    left = _machine()
    last = json.loads(told.read_text().splitlines()[-1])
    show(
        {
            "kernel": platform.release(),
            "runs": len(samples),
            "ended": last["why"],
            "exit": process.returncode,
            "minutes": round((time.monotonic() - since) / 60, 1),
            "growth": {name: _growth([one[name] for one in samples]) for name in samples[0]},
            "memory_mb_by_tenth": _tenths([one["memory_mb"] for one in samples]),
            "left_behind": {
                name: left[name] - before[name] for name in before if left[name] != before[name]
            },
        }
    )


def _count(told: Path) -> int:
    return told.read_text().count('"event": "recorded"')


def _sample(pid: int, out: Path) -> dict[str, float]:
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    records = list((out / "records").iterdir())
    all_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "memory_mb": int(resident.split()[1]) / 1024,
        "file_descriptors": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208
        "disk_beside_records_kb": (all_bytes - sum(path.stat().st_size for path in records)) / 1024,
        **_machine(),
    }


def _machine() -> dict[str, float]:
    names = Path("/run/netns")
    return {
        "namespaces": len(list(names.iterdir())) if names.is_dir() else 0,
        "processes": sum(map(_is_program, Path("/proc").glob("[0-9]*"))),
        "mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
        "files_in_run": len(list(Path("/run/steerlab").rglob("*"))),
    }


def _is_program(process: Path) -> bool:
    """Not a thread of the kernel's, of which there are now more, now fewer."""
    try:
        return bool((process / "cmdline").read_bytes())
    except OSError:
        return False


def _tenths(values: list[float]) -> list[float]:
    tenth = max(1, len(values) // 10)
    return [
        round(statistics.median(values[at : at + tenth]), 1) for at in range(0, len(values), tenth)
    ]


def _growth(values: list[float]) -> dict[str, float]:
    tenth = max(1, len(values) // 10)
    first = statistics.median(values[tenth : 2 * tenth] or values)
    last = statistics.median(values[-tenth:])
    return {"early": round(first, 1), "late": round(last, 1), "growth": round(last - first, 1)}


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
