"""`up`, `preview` and `destroy` of the lab, by either engine: what changes, and what is left alone."""

from __future__ import annotations

import json

import pytest
from lab_project import TABLE, Project

STACK = "rfs-plus-4"
ONLY_CONVERGE = "runs=0"
QUICK = ("duration=2", "omit=0")

PAIRS_5_TO_8 = {
    name: "create" for pair in range(5, 9) for name in (f"pods-{pair}", f"iperf-server-{pair}")
}


def test_a_state_is_converged_once_and_measured_once(either: Project) -> None:
    first = either.up(STACK, *QUICK)
    assert set(first.changes.values()) == {"create"}
    assert first.json["outputs"]["bitrate_mbps"] > 0
    assert first.json["outputs"]["configuration"] == "rfs-plus"
    made = (either.folder / "results" / STACK).glob("*[0-9].json")
    reasons = [json.loads(record.read_text())["reasons"] for record in made]
    assert reasons.count([]) == 1, reasons  # a busy machine may spoil the first attempt

    assert either.preview(STACK).changes == {}
    again = either.up(STACK)
    assert again.changes == {}
    assert again.json["outputs"] == first.json["outputs"]


def test_more_replicas_add_pairs_and_leave_the_others_alone(either: Project) -> None:
    either.up(STACK, ONLY_CONVERGE)
    expected = {**PAIRS_5_TO_8, "steer-server": "update"}
    assert either.preview(STACK, "replicas=8").changes == expected
    assert either.up(STACK, "replicas=8").changes == expected
    back = {**dict.fromkeys(PAIRS_5_TO_8, "delete"), "steer-server": "update"}
    assert either.preview(STACK, "replicas=4").changes == back
    assert either.up(STACK, "replicas=4").changes == back
    # the devices of the pods that went are no drift
    assert either.up(STACK).changes == {}
    either.run("measure", "-s", STACK)


def test_another_configuration_touches_steering_and_measurement_only(either: Project) -> None:
    either.up(STACK, *QUICK)
    expected = {"steer-server": "update", "measurement": "replace"}
    assert either.preview(STACK, "configuration=rps").changes == expected
    changed = either.up(STACK, "configuration=rps")
    assert changed.changes == expected
    assert changed.json["outputs"]["configuration"] == "rps"
    assert TABLE.read_text().strip() == "0"


def test_measure_refuses_what_was_not_converged(project: Project) -> None:
    """An edited file, an interrupted `up -c`, an edited configurations file."""
    (project.folder / "own.yaml").write_text("mine:\n  nic: {cpus: all}\n")
    project.up(STACK, ONLY_CONVERGE, "configurations=own.yaml", "configuration=mine")
    project.run("measure", "-s", STACK)
    records = set((project.folder / "results" / STACK).iterdir())

    (project.folder / "own.yaml").write_text("mine:\n  nic: {cpus: first}\n")
    assert "update steer-server" in project.run("measure", "-s", STACK, code=3).err
    (project.folder / "own.yaml").write_text("mine:\n  nic: {cpus: all}\n")

    path = project.folder / f"Pulumi.{STACK}.yaml"
    text = path.read_text()
    path.write_text(text.replace("configuration: mine", "configuration: rfs"))
    assert "update steer-server" in project.run("measure", "-s", STACK, code=3).err
    path.write_text(text + "  steerlab:replicas: '2'\n")
    assert "delete iperf-server-3" in project.run("measure", "-s", STACK, code=3).err
    assert set((project.folder / "results" / STACK).iterdir()) == records

    path.write_text(text)
    project.run("measure", "-s", STACK)


def test_destroy_puts_back_what_the_machine_had(either: Project) -> None:
    found = TABLE.read_text().strip()
    TABLE.write_text("4096")
    try:
        either.up(STACK, ONLY_CONVERGE)
        assert TABLE.read_text().strip() == "32768"
        gone = either.destroy(STACK)
        assert set(gone.changes.values()) == {"delete"}
        assert TABLE.read_text().strip() == "4096"
        assert either.destroy(STACK).changes == {}
    finally:
        TABLE.write_text(found)


def test_destroy_tells_what_somebody_else_has_written(either: Project) -> None:
    found = TABLE.read_text().strip()
    TABLE.write_text("4096")
    try:
        either.up(STACK, ONLY_CONVERGE)
        TABLE.write_text("1024")
        gone = either.destroy(STACK)
        assert "rps_sock_flow_entries" in gone.err
        assert TABLE.read_text().strip() == "1024"
    finally:
        TABLE.write_text(found)


@pytest.mark.parametrize(
    ("setting", "stays"),
    [
        ("path=host", "wire-veth"),
        ("podCpuLimit=200m", "overlay-vxlan"),
        ("steerNodes=both", "pods-1"),
    ],
)
def test_every_arm_converges_and_measures(project: Project, setting: str, stays: str) -> None:
    project.up("rps-2", *QUICK)
    changed = project.up("rps-2", setting)
    assert stays not in changed.changes
    assert changed.changes["measurement"] == "replace"
    assert changed.json["outputs"]["bitrate_mbps"] > 0


def test_a_quota_throttles_the_pods(project: Project) -> None:
    free = project.up("baseline-1", *QUICK).json["outputs"]["bitrate_mbps"]
    # what else runs on this machine has the cores that the quota leaves, and may make a run invalid
    words = ("up", "-s", "baseline-1", "-c", "podCpuLimit=100m", "--engine", "embedded")
    project.start(*words).communicate(timeout=120)
    newest = max((project.folder / "results/baseline-1").glob("*[0-9].json"))
    pair = json.loads(newest.read_text())["pairs"][0]
    assert pair["throttled_periods"] > 0
    assert pair["values"]["bitrate_mbps"] < free / 2
