"""Traffic `udp` on the lab: it changes servers and measurement alone, and has all its metrics."""

from __future__ import annotations

import json

from lab_project import Project

STACK = "rps-2"
UDP = "traffic=udp:rate=50M"


def test_udp_is_measured_for_real(project: Project) -> None:
    project.up(STACK, "duration=2", "omit=1", "runs=0")
    changed = project.up(STACK, UDP, "runs=1").changes
    assert changed.keys() == {"iperf-server-1", "iperf-server-2", "measurement"}
    results = (project.folder / "results" / STACK).glob("run-*.json")
    records = [json.loads(path.read_text()) for path in results]
    (record,) = [one for one in records if one["valid"]]
    assert record["traffic"] == "udp:rate=50M"
    assert record["metrics"].keys() == {"bitrate_mbps", "loss_percent", "out_of_order"}
    for pair in record["pairs"]:
        assert 40 < pair["values"]["bitrate_mbps"] < 55
        assert 0 <= pair["values"]["loss_percent"] < 20
        assert pair["values"]["out_of_order"] >= 0
