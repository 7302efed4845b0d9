"""Traffic `udp` on the lab: it changes servers and measurement alone, and has all its metrics."""

from __future__ import annotations

import json

from lab_project import Project

STACK = "rps-2"
UDP = ("traffic=udp:rate=50M", "runs=1")


def test_udp_is_measured_for_real(project: Project) -> None:
    project.up(STACK, "duration=2", "omit=1", "runs=0")
    changes = project.preview(STACK, *UDP).changes
    assert changes.keys() == {"iperf-server-1", "iperf-server-2", "measurement"}
    words = [word for setting in UDP for word in ("-c", setting)]
    project.start("up", "-s", STACK, *words, "--engine", project.engine).communicate(timeout=300)
    paths = (project.folder / "results" / STACK).glob("run-*.json")
    records = [json.loads(path.read_text()) for path in paths]
    assert records
    for record in records:
        assert set(record["causes"]) <= {"foreign-load"}, record["reasons"]  # a busy machine
        assert record["traffic"] == "udp:rate=50M"
        assert record["metrics"].keys() == {"bitrate_mbps", "loss_percent", "out_of_order"}
        for pair in record["pairs"]:
            assert 40 < pair["values"]["bitrate_mbps"] < 55
            assert 0 <= pair["values"]["loss_percent"] < 20
            assert pair["values"]["out_of_order"] >= 0
