"""Traffic `udp` on the lab: it changes servers and measurement alone, and has all its metrics."""

from __future__ import annotations

import pytest
from lab_project import Project

from analysis.schema import Record
from benchmarks.udp import whole
from infra import config
from infra.lab import measurement

STACK = "rps-2"
UDP = ("traffic=udp:rate=50M", "runs=1")


def test_udp_is_measured_for_real(project: Project) -> None:
    project.up(STACK, "duration=2", "omit=1", "runs=0")
    changes = project.preview(STACK, *UDP).changes
    assert changes.keys() == {"iperf-server-1", "iperf-server-2", "measurement"}
    words = [word for setting in UDP for word in ("-c", setting)]
    project.start("up", "-s", STACK, *words, "--engine", project.engine).communicate(timeout=300)
    records = project.records(f"results/{STACK}")
    assert records
    for record in records:
        assert set(record["causes"]) <= {"foreign-load"}, record["reasons"]  # a busy machine
        assert record["traffic"] == "udp:rate=50M"
        assert record["metrics"].keys() == {"bitrate_mbps", "loss_percent", "out_of_order"}
        for pair in record["pairs"]:
            assert 40 < pair["values"]["bitrate_mbps"] < 55
            assert 0 <= pair["values"]["loss_percent"] < 20
            assert pair["values"]["out_of_order"] >= 0


def test_drops_above_capacity_account_for_the_loss(project: Project) -> None:
    """What is sent and not delivered was dropped by full sockets or backlogs, as the record has it."""
    settings = ("traffic=udp:rate=0", "runs=1", "duration=4", "omit=1")
    words = [word for setting in settings for word in ("-c", setting)]
    project.start("up", "-s", "baseline-2", *words).communicate(timeout=120)
    paths = (project.folder / "results/baseline-2").glob("run-*.json")
    record = Record.model_validate_json(max(paths).read_text())
    (row,) = record.datagrams
    assert row.sent
    backlog = sum(one.dropped + one.flow_limit for one in record.softnet)
    lost = row.sent - row.delivered
    assert lost > 0.01 * row.sent, "no loss: the rate is not above capacity"
    assert lost == pytest.approx(row.socket_drops + row.other_errors + backlog, abs=0.01 * row.sent)


def test_counters_agree_with_iperf3(project: Project) -> None:
    """Over all traffic: on a busy machine the measured windows of both differ."""
    values = {"traffic": "udp:rate=0", "runs": "0", "duration": "4"}
    project.up("baseline-2", *(f"{key}={value}" for key, value in values.items()))
    counted, iperf3 = whole(measurement.of(config.state("baseline-2", values)))
    for name, count in counted.items():
        assert count == pytest.approx(iperf3[name], abs=0.01 * iperf3["sent"]), name
    assert counted["lost"] > 0.01 * counted["sent"], "no loss: the rate is not above capacity"
