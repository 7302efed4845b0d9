"""Knobs by name: each is planned, snapshotted, verified and restored, alone or with others."""

from __future__ import annotations

from pathlib import Path

import pytest
from steer_tree import Tree, plan, steer

OWNER = "rfs-plus-4/server"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path, cpus="0-3")
    tree.device("eth1", queues=2, transmit=2, mask="1", flows=64)
    return tree


def setting(**values: object) -> dict:
    return plan({"role": "nic", "devices": ["eth1"], "set": values})


def held(tree: Tree, queue: str, knob: str) -> str:
    return (tree.root / f"sys/class/net/eth1/queues/{queue}/{knob}").read_text().strip()


def test_a_knob_is_steered_alone_and_comes_back(tree: Tree) -> None:
    before = {str(file): file.read_text() for file in tree.root.rglob("queues/*/*")}
    answer = tree.apply(setting(xps_cpus="all"))
    assert (answer["changed"], answer["drift"]) == (2, [])
    assert [held(tree, f"tx-{n}", "xps_cpus") for n in (0, 1)] == ["f", "f"]
    assert [held(tree, f"rx-{n}", "rps_cpus") for n in (0, 1)] == ["1", "1"]
    assert {row["queue"] for row in answer["queues"]} == {"tx-0", "tx-1"}
    assert {entry["knob"] for entry in tree.saved()["entries"]} == {"xps_cpus"}
    assert tree.verify()["drift"] == []
    (tree.root / "sys/class/net/eth1/queues/tx-1/xps_cpus").write_text("3\n")
    (drift,) = tree.verify()["drift"]
    assert (drift["kind"], drift["queue"]) == ("value", "tx-1")
    (tree.root / "sys/class/net/eth1/queues/tx-1/xps_cpus").write_text("f\n")
    assert tree.restore()["restored"] == 2
    assert {str(file): file.read_text() for file in tree.root.rglob("queues/*/*")} == before


def test_what_the_next_plan_does_not_name_goes_back(tree: Tree) -> None:
    tree.apply(setting(rps_cpus="c", rps_flow_cnt=128, xps_cpus="2"))
    tree.apply(setting(rps_flow_cnt=256))
    assert [held(tree, "rx-0", knob) for knob in ("rps_cpus", "rps_flow_cnt")] == ["1", "256"]
    assert held(tree, "tx-0", "xps_cpus") == "1"


def test_old_keys_and_new_ones_mean_the_same(tree: Tree) -> None:
    old = {"role": "nic", "devices": ["eth1"], "cpus": "c", "flows": 128}
    tree.apply(plan(old))
    assert tree.apply(setting(rps_cpus="c", rps_flow_cnt=128))["changed"] == 0
    assert tree.verify(document=plan(old))["drift"] == []


def test_one_transmit_queue_has_no_xps(tree: Tree) -> None:
    tree.device("eth2", transmit=1)
    with pytest.raises(steer.SteerError, match="eth2: XPS needs more") as refused:
        tree.apply(plan({"role": "nic", "devices": ["eth2"], "set": {"xps_cpus": "all"}}))
    assert refused.value.status == steer.CANNOT


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "set is {}"),
        ({"rps_cpus": 3}, "set.rps_cpus is 3"),
        ({"xps_cpus": "some"}, "set.xps_cpus is"),
        ({"xps_cpus": "10"}, r"set.xps_cpus is \"10\": CPU 4"),
        ({"rps_flow_cnt": -1}, "set.rps_flow_cnt is -1"),
        ({"rps_sock_flow_entries": 1}, "set.rps_sock_flow_entries is unknown"),
        ({"mtu": 9000}, "set.mtu is unknown"),
    ],
)
def test_a_word_that_does_not_fit_is_named(tree: Tree, values: dict, named: str) -> None:
    with pytest.raises(steer.SteerError, match=r"rules\[0\]\." + named) as refused:
        tree.apply(setting(**values))
    assert refused.value.status == steer.BAD_PLAN
    assert not tree.snapshot().exists()
