"""A sweep by switchback on the lab: its records, and the machine after it, however it ended."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from lab_project import RESUME, RUN, SWITCHBACK, TABLE, Project, Standing


def test_each_window_is_a_record_and_is_concluded(project: Project) -> None:
    before = Standing.now()
    done = project.run(*SWITCHBACK, "--events", "events.jsonl", "--json")
    assert Standing.now() == before
    found = project.valid()
    assert [record["order"] for record in found] == list(range(9))
    assert Counter((r["block"], r["configuration"]) for r in found) == Counter(
        (block, name) for block in range(3) for name in ("baseline", "rps", "rfs-plus")
    )
    for record in found:
        assert record["method"] == "switchback"
        assert record["congestion"] == "cubic"
        assert record["window"] == pytest.approx(0.4, abs=0.03)
        assert all(pair["values"]["bitrate_mbps"] > 1 for pair in record["pairs"])
        assert len(record["pairs"]) == 2
        parts = record["goodput"][-8:]  # of 0.05 s each, after those of settling
        total = sum(pair["values"]["bitrate_mbps"] for pair in record["pairs"])
        bits = sum(part["mbps"] * part["seconds"] for part in parts)
        assert bits / sum(part["seconds"] for part in parts) == pytest.approx(total, rel=0.02)
        assert record["goodput"][0]["at"] + record["omit"] == pytest.approx(
            parts[0]["at"], abs=0.03
        )
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


def test_the_congestion_control_of_the_traffic_is_recorded(project: Project) -> None:
    project.run(*SWITCHBACK, "--runs", "1", "--traffic", "stream:congestion=reno")
    assert [record["congestion"] for record in project.valid()] == ["reno"] * 3


def test_a_sweep_killed_in_an_episode_and_forgotten_is_restored_by_its_lease(
    project: Project,
) -> None:
    before = TABLE.read_text()
    process = project.start(*SWITCHBACK, "-c", "lease=15s")
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
    assert project.orders() == Counter(range(9))
