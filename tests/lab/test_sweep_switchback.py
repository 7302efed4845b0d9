"""A sweep by switchback on the lab: its records, and the machine after it, however it ended."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lab_project import RUN, TABLE, Project, Standing

MATRIX = (
    "sweep", "--method", "switchback", "--configurations", "baseline,rps,rfs-plus",
    "--replicas", "2", "--runs", "3", "--seed", "7", "--engine", "embedded", "--out", "out",
)  # fmt: skip
RESUME = ("sweep", "--resume", "--engine", "embedded", "--out", "out")


def records(project: Project) -> list[dict[str, Any]]:
    paths = sorted((project.folder / "out/records").glob("run-*.json"))
    return [json.loads(path.read_text()) for path in paths]


def orders(project: Project) -> Counter[int]:
    return Counter(record["order"] for record in records(project) if record["valid"])


def test_each_window_is_a_record_and_is_concluded(project: Project) -> None:
    before = Standing.now()
    done = project.run(*MATRIX, "--events", "events.jsonl", "--json")
    assert Standing.now() == before
    found = records(project)
    assert [record["order"] for record in found] == list(range(9))
    assert Counter((r["block"], r["configuration"]) for r in found) == Counter(
        (block, name) for block in range(3) for name in ("baseline", "rps", "rfs-plus")
    )
    for record in found:
        assert record["valid"], record["reasons"]
        assert record["method"] == "switchback"
        assert record["congestion"] == "cubic"
        assert record["window"] == pytest.approx(0.4, abs=0.03)
        assert all(pair["values"]["bitrate_mbps"] > 1 for pair in record["pairs"])
        assert len(record["pairs"]) == 2
        parts = record["goodput"][-8:]  # of 0.05 s each, after those of settling
        total = sum(pair["values"]["bitrate_mbps"] for pair in record["pairs"])
        bits = sum(part["mbps"] * part["seconds"] for part in parts)
        assert bits / sum(part["seconds"] for part in parts) == pytest.approx(total, rel=0.02)
        assert record["goodput"][0]["at"] + 0.2 == pytest.approx(parts[0]["at"], abs=0.03)
        queues = record["steering_before"]["queues"]
        masks = {queue["rps_cpus"] for queue in queues if queue["role"] == "overlay"}
        assert (masks != {"0"}) == (record["configuration"] == "rps")
        flows = {queue["rps_flow_cnt"] for queue in queues}
        assert flows == ({32768} if record["configuration"] == "rfs-plus" else {0})
        assert record["cores"]
        assert record["softnet"]
    assert done.json["verdict"]
    report = (project.folder / "out/report.md").read_text()
    assert "switchback" in report
    assert (project.folder / "out/plots/within-episodes.svg").exists()
    assert len(done.json["switchback"]["movements"]) == 2
    events = [json.loads(line) for line in (project.folder / "events.jsonl").open()]
    assert Counter(event["event"] for event in events)["recorded"] == 9
    assert events[-1]["why"] == "complete"


def test_the_congestion_control_of_the_system_is_recorded(project: Project) -> None:
    project.run(*MATRIX, "--runs", "1", "--traffic", "stream")
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    assert [record["congestion"] for record in records(project)] == [control] * 3


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
def test_a_sweep_killed_in_episodes_ends_complete(project: Project, kills: int) -> None:
    before = Standing.now()
    for _ in project.killed(MATRIX, RESUME, kills, 2.0, 6.0):
        assert set(orders(project).values()) <= {1}
    project.run(*RESUME)
    assert orders(project) == Counter(range(9))
    assert Standing.now() == before


def test_a_sweep_killed_in_an_episode_and_forgotten_is_restored_by_its_lease(
    project: Project,
) -> None:
    before = TABLE.read_text()
    process = project.start(*MATRIX, "-c", "lease=15s")
    end = time.monotonic() + 60
    while TABLE.read_text().strip() != "32768":  # in a window of rfs-plus
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.communicate()
    while list(RUN.rglob("*.snapshot")) and time.monotonic() < end + 40:
        time.sleep(0.2)
    assert not list(RUN.rglob("*.snapshot"))
    assert TABLE.read_text() == before
    project.run(*RESUME)
    assert orders(project) == Counter(range(9))
