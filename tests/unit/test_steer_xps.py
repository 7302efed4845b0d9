"""The knob xps_cpus: steered, refused, shown and planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from steer_tree import Tree, plan, steer

from experiments.host import nodes
from infra import configurations, steering
from infra.steering import Device


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path, cpus="0-3")
    tree.device("eth1", queues=2, transmit=2, mask="1", flows=64)
    tree.device("eth2", transmit=1)
    return tree


def wanted(device: str, word: str) -> dict:
    return plan({"role": "nic", "devices": [device], "set": {"xps_cpus": word}})


def test_it_is_steered_alone_and_comes_back(tree: Tree) -> None:
    before = tree.values()
    answer = tree.apply(wanted("eth1", "all"))
    assert answer["changed"] == 2
    assert [(row["queue"], row["xps_cpus"]) for row in answer["queues"]] == [
        ("tx-0", "f"),
        ("tx-1", "f"),
    ]
    assert {entry["knob"] for entry in tree.saved()["entries"]} == {"xps_cpus"}
    assert tree.verify()["drift"] == []
    assert tree.restore()["restored"] == 2
    assert tree.values() == before


def test_one_transmit_queue_has_none(tree: Tree) -> None:
    with pytest.raises(steer.SteerError, match="eth2: XPS needs more") as refused:
        tree.apply(wanted("eth2", "all"))
    assert refused.value.status == steer.CANNOT


def test_show_has_transmit_queues() -> None:
    rows = [
        {"namespace": None, "device": "eth1", "queue": f"{kind}-{n}", **values}
        for kind, values in (
            ("rx", {"rps_cpus": "1", "rps_flow_cnt": 0}),
            ("tx", {"xps_cpus": "3"}),
        )
        for n in (0, 1)
    ]
    answer = {"queues": rows, "devices": [], "namespaces": [], "machine": {}}
    assert nodes._tables(answer, ("device", "namespace")) == [
        "DEVICE  NAMESPACE  QUEUES  RPS_CPUS  RPS_FLOW_CNT",
        "eth1    -          rx 0-1  1         0",
        "",
        "DEVICE  NAMESPACE  QUEUES  XPS_CPUS",
        "eth1    -          tx 0-1  3",
    ]


def test_it_is_planned_where_a_configuration_names_it(tmp_path: Path) -> None:
    def own(text: str) -> Path:
        file = tmp_path / "own.yaml"
        file.write_text(text)
        return file

    read = configurations.load(own("x: {nic: {xps_cpus: last}, overlay: {cpus: all}}"))["x"]
    devices = [Device("nic", ("eth1",)), Device("overlay", ("vxlan.calico",))]
    document = steering.plan(read, owner="me", devices=devices, cores=[0, 1], queue_core=0)
    nic, overlay = document["rules"]
    assert nic["set"] == {"rps_cpus": "none", "rps_flow_cnt": 0, "xps_cpus": "last"}
    assert "set" not in overlay
    assert steer.parse_plan(document).rules[0].set == nic["set"]
    assert read.needs_cpus == 2
    assert read.definition != configurations.load(own("x: {overlay: {cpus: all}}"))["x"].definition
