"""The edge reads of /proc held against mpstat, over the same window and under real softirq load."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from lab_project import Project

from analysis.schema import Core
from experiments.host import procstat
from experiments.host.procstat import CounterSample

SECONDS = 4
# mpstat's name -> ours
FIELDS = {"usr": "usr", "nice": "nice", "sys": "sys", "iowait": "iowait", "irq": "irq",
          "soft": "soft", "steal": "steal", "idle": "idle"}  # fmt: skip


def test_the_percentages_are_those_of_mpstat(project: Project) -> None:
    project.up("baseline-2", "runs=0")
    clients = [
        subprocess.Popen(
            ["ip", "netns", "exec", f"steerlab-baseline-2-iperf-client-{pair}",
             "iperf3", "-c", f"10.244.0.{pair}", "-t", str(SECONDS + 3)],
            stdout=subprocess.DEVNULL,
        )
        for pair in (1, 2)
    ]  # fmt: skip
    try:
        time.sleep(1)
        mpstat = subprocess.Popen(
            ["mpstat", "-P", "ALL", "-o", "JSON", str(SECONDS), "1"], stdout=subprocess.PIPE
        )
        before = CounterSample.read()
        printed, _ = mpstat.communicate(timeout=30)
        after = CounterSample.read()
    finally:
        for client in clients:
            client.wait(timeout=30)
    ours = {core.core: core for core in procstat.cores(before, after, "lab")}
    host = json.loads(printed)["sysstat"]["hosts"][0]
    theirs = {row["cpu"]: row for row in host["statistics"][0]["cpu-load"] if row["cpu"] != "all"}
    assert {str(core) for core in ours} == theirs.keys()
    for core, row in theirs.items():
        for name, field in FIELDS.items():
            # the windows start and end some milliseconds apart
            assert getattr(ours[int(core)], field) == pytest.approx(row[name], abs=3), (core, name)
    assert max(soft(core) for core in ours.values()) > 20, "no softirq load: nothing was compared"


def test_a_nice_busy_loop_is_measured_and_named(project: Project) -> None:
    loop = subprocess.Popen(["nice", "-n", "19", "sh", "-c", "while :; do :; done"])
    try:
        # idle by its quota, so that the loop has the cores; other tests may run beside this one
        project.start("up", "-s", "baseline-1", "-c", "podCpuLimit=100m").communicate(timeout=120)
    finally:
        loop.kill()
        loop.wait()
    records = (project.folder / "results/baseline-1").glob("*[0-9].json")
    record = json.loads(max(records).read_text())
    assert record["foreign_cpu"] > 0.5
    words = record["warnings"] if record["valid"] else record["reasons"]
    assert any("other programs used" in text for text in words)
    assert record["congestion"]


def soft(core: Core) -> float:
    return core.soft or 0.0
