"""An episode under real connections: values of each window, goodput, and a node as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab_project import RUN, Project
from steer_tree import steer

from benchmarks import switching
from infra import config
from infra.config import StackSettings

PAIRS = 4
RATE = 150e6  # bits a second of each pair, which every configuration carries
STACK = f"baseline-{PAIRS}"
OWNER = f"{STACK}/server"
SNAPSHOT = RUN / f"{STACK}%2Fserver.snapshot"


@pytest.fixture
def lab(project: Project) -> Iterator[StackSettings]:
    project.up(STACK, "runs=0")
    values = {"configuration": "baseline", "replicas": str(PAIRS), "runs": "0"}
    yield config.state(STACK, values)


def steered() -> dict[str, tuple[str, str]]:
    """Of each value of the snapshot: what it was before, and what it is."""
    entries = steer.Snapshot.from_text(SNAPSHOT.read_text()).entries
    with steer.Machine() as machine:
        survey = steer.Survey(machine, (), entries)
        read = steer.Setting.read
        return {str(entry): (entry.before, survey.located(entry, read)) for entry in entries}


def test_an_episode_of_six_configurations(lab: StackSettings) -> None:
    before, saved = steered(), SNAPSHOT.read_text()
    schedule = switching.document(lab, switching.NAMES, switching.servers(lab))
    traffic = switching.traffic(lab, 6, "-b", str(int(RATE)))
    with switching.agent(schedule) as process, traffic as clients:
        answer = switching.answered(process)
        results = [json.loads(client.communicate(timeout=60)[0]) for client in clients]
    assert process.returncode == 0
    assert answer["fifo"] is True
    assert answer["left"] == answer["warnings"] == []
    # a machine that does something else too may be late
    reasons = [reason for window in answer["windows"] for reason in window["spoiled"]]
    assert [reason for reason in reasons if reason["kind"] != "late"] == []
    assert {window["plan"] for window in answer["windows"]} == {*switching.NAMES}
    tables = {name: plan["sock_flow_entries"] for name, plan in answer["plans"].items()}
    assert tables == {name: 32768 * name.startswith("rfs") for name in switching.NAMES}
    assert answer["plans"]["rps-plus"]["queues"][-1]["rps_cpus"] != "0"
    assert answer["plans"]["rps"]["queues"][-1]["rps_cpus"] in ("0", "00000000")
    for index, result in enumerate(results):
        rows = [window["received"][index] for window in answer["windows"]]
        rate = sum(row["bytes"] for row in rows) / sum(row["seconds"] for row in rows) * 8
        assert rate == pytest.approx(result["end"]["sum_received"]["bits_per_second"], rel=0.01)
    assert steered() == before
    assert SNAPSHOT.read_text() == saved
