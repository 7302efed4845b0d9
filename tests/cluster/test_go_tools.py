"""Readers of our files that are Go programs: benchstat of exports, actionlint of the workflow."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from pathlib import Path

import pytest
from rig import binaries

from analysis.export import EXPORTS
from analysis.summary import summarise
from benchmarks.synthetic import mixed

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "tests/cluster/go_tools"


def tool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A program of the module, which is built once and kept by Go."""
    return subprocess.run(
        [str(binaries.go()), "tool", "-C", str(MODULE), *map(str, words)],
        env={**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )


def compared(*words: str | Path) -> list[list[str]]:
    """Rows of benchstat's tables; it names a line that it cannot read on stderr."""
    done = tool("benchstat", "-format=csv", *words)
    assert done.returncode == 0, done.stderr
    assert "syntax" not in done.stderr and "error" not in done.stderr, done.stderr
    return list(csv.reader(io.StringIO(done.stdout)))


def test_actionlint_accepts_the_workflow() -> None:
    done = tool("actionlint", "-no-color", *(ROOT / ".github/workflows").iterdir())
    assert done.returncode == 0, done.stdout + done.stderr


def test_benchstat_compares_configurations(tmp_path: Path) -> None:
    """Its medians are those of the runs; the baseline comes first, so it is the base."""
    records = mixed(
        {"rps-7": {"bitrate_mbps": 0.5}, "baseline": {}, "rfs": {"p99_us": 2.0}}, blocks=10, seed=1
    )
    summary = summarise(records)
    path = tmp_path / "runs.txt"
    path.write_text(EXPORTS["benchstat"].text(records, summary))
    rows = compared("-col=/configuration", path)
    valid = summary.runs[summary.runs["valid"]].groupby("configuration")
    for unit, metric in (("Mbit/s", "bitrate_mbps"), ("p99_us", "p99_us")):
        head = next(number for number, row in enumerate(rows) if unit in row)
        columns = {name: place for place, name in enumerate(rows[head - 1]) if name}
        values = next(row for row in rows[head:] if row[0].endswith("/pairs=4"))
        assert next(iter(columns)) == "baseline"
        for name, place in columns.items():
            expected = valid.get_group(name)[metric].median()
            assert float(values[place]) == pytest.approx(expected, rel=1e-5)
        worse = values[columns["rps-7" if unit == "Mbit/s" else "rfs"] + 2]
        assert float(worse.rstrip("%")) == pytest.approx(-50 if unit == "Mbit/s" else 100, abs=15)


def test_benchstat_compares_two_directories(tmp_path: Path) -> None:
    paths = []
    for name, factor in (("before", 1.0), ("after", 0.8)):
        records = mixed({"baseline": {}, "rfs": {"bitrate_mbps": factor}}, blocks=10, seed=2)
        paths.append(tmp_path / f"{name}.txt")
        paths[-1].write_text(EXPORTS["benchstat"].text(records, summarise(records)))
    rows = compared(*paths)
    head = next(number for number, row in enumerate(rows) if "Mbit/s" in row)
    (rfs,) = [row for row in rows[head : head + 3] if "configuration=rfs" in row[0]]
    assert "-20.0" in " ".join(rfs) or "-19.9" in " ".join(rfs)
