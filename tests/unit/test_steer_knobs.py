"""Knobs by name: each is planned, snapshotted, verified and restored, alone or with others."""

from __future__ import annotations

from pathlib import Path

import pytest
from steer_tree import Tree, plan, steer

OWNER = "rfs-plus-4/server"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path, cpus="0-3")
    tree.device("eth1", queues=2, transmit=2, mask="1", flows=64, hardware=True)
    return tree


def setting(**values: object) -> dict:
    return plan({"role": "nic", "devices": ["eth1"], "set": values})


def held(tree: Tree, queue: str, knob: str) -> str:
    return (tree.root / f"sys/class/net/eth1/queues/{queue}/{knob}").read_text().strip()


def test_a_knob_is_steered_alone_and_comes_back(tree: Tree) -> None:
    before = tree.values()
    answer = tree.apply(setting(rps_flow_cnt=128))
    assert (answer["changed"], answer["drift"]) == (2, [])
    assert [held(tree, f"rx-{n}", "rps_flow_cnt") for n in (0, 1)] == ["128", "128"]
    assert [held(tree, f"rx-{n}", "rps_cpus") for n in (0, 1)] == ["1", "1"]
    assert {entry["knob"] for entry in tree.saved()["entries"]} == {"rps_flow_cnt"}
    assert tree.verify()["drift"] == []
    (tree.queue("eth1", 1) / "rps_flow_cnt").write_text("32\n")
    (drift,) = tree.verify()["drift"]
    assert (drift["kind"], drift["queue"]) == ("value", "rx-1")
    (tree.queue("eth1", 1) / "rps_flow_cnt").write_text("128\n")
    assert tree.restore()["restored"] == 2
    assert tree.values() == before


def test_what_the_next_plan_does_not_name_goes_back(tree: Tree) -> None:
    tree.apply(setting(rps_cpus="c", rps_flow_cnt=128))
    tree.apply(setting(rps_flow_cnt=256))
    assert [held(tree, "rx-0", knob) for knob in ("rps_cpus", "rps_flow_cnt")] == ["1", "256"]


def test_old_keys_and_new_ones_mean_the_same(tree: Tree) -> None:
    old = {"role": "nic", "devices": ["eth1"], "cpus": "c", "flows": 128}
    tree.apply(plan(old))
    assert tree.apply(setting(rps_cpus="c", rps_flow_cnt=128))["changed"] == 0
    assert tree.verify(document=plan(old))["drift"] == []


POD = "/run/netns/x-pod"


@pytest.fixture
def later(tree: Tree) -> dict[str, Path]:
    """A node with a knob of a device, of a namespace and of the machine: the file of each value."""
    tree.namespace(POD, cookie=7)
    tree.device("eth0", POD)
    return {
        "device": tree.write("sys/class/net/eth1/gro_flush_timeout", 0),
        "pod": tree.write(f"{POD}/sys/class/net/eth0/gro_flush_timeout", 10),
        "node": tree.write("proc/sys/net/core/rps_default_mask", "0"),
        "inside": tree.write(f"{POD}/proc/sys/net/core/rps_default_mask", "1"),
        "machine": tree.write("proc/sys/net/core/netdev_budget", 300),
    }


MORE = plan(
    {
        "role": "nic",
        "devices": ["eth1"],
        "set": {"gro_flush_timeout": 20000, "rps_default_mask": "all"},
    },
    {
        "role": "pod",
        "namespace": POD,
        "devices": ["eth0"],
        "set": {"rps_default_mask": "2", "rps_cpus": "c"},
    },
    machine={"netdev_budget": 600, "rps_sock_flow_entries": 64},
)


def texts(files: dict[str, Path]) -> dict[str, str]:
    return {name: file.read_text().strip() for name, file in files.items()}


def test_a_knob_of_any_scope_is_one_entry(tree: Tree, later: dict[str, Path]) -> None:
    before, values = texts(later), tree.values()
    answer = tree.apply(MORE)
    assert texts(later) == {
        "device": "20000",
        "pod": "10",
        "node": "f",
        "inside": "2",
        "machine": "600",
    }
    assert (answer["machine"], answer["sock_flow_entries"]) == (
        {"netdev_budget": 600, "rps_sock_flow_entries": 64},
        64,
    )
    (device,) = answer["devices"]
    assert (device["role"], device["device"], device["gro_flush_timeout"]) == ("nic", "eth1", 20000)
    assert [(r["namespace"], r["rps_default_mask"]) for r in answer["namespaces"]] == [
        (None, "f"),
        (POD, "2"),
    ]
    assert tree.apply(MORE)["changed"] == 0
    assert tree.verify()["drift"] == []
    for file in later.values():
        file.write_text("3\n")
    drift = {(one["namespace"], one["device"], one["queue"]) for one in tree.verify()["drift"]}
    assert drift == {(None, "eth1", None), (None, None, None), (POD, None, None)}
    later["pod"].write_text("10\n")
    tree.apply(MORE)
    assert tree.restore()["failed"] == []
    assert (texts(later), tree.values()) == (before, values)


@pytest.mark.usefixtures("later")
def test_show_has_every_knob(tree: Tree) -> None:
    tree.apply(MORE)
    with tree.machine() as machine:
        shown = steer.show(machine, [POD])
    (held,) = shown["snapshots"]
    assert shown["machine"] == {"netdev_budget": 600, "rps_sock_flow_entries": 64}
    assert [(row["device"], row["gro_flush_timeout"]) for row in shown["devices"]] == [
        ("eth1", 20000),
        ("eth0", 10),
    ]
    assert [row["rps_default_mask"] for row in shown["namespaces"]] == ["f", "2"]
    queues = [row["queue"] for row in shown["queues"] if row["device"] == "eth1"]
    assert queues[:2] == ["rx-0", "rx-1"]
    assert held["values"] == {
        "gro_flush_timeout": 1,
        "rps_default_mask": 2,
        "rps_cpus": 1,
        "netdev_budget": 1,
        "rps_sock_flow_entries": 1,
    }


def test_two_owners_may_hold_knobs_of_one_machine_but_not_one_value(
    tree: Tree, later: dict[str, Path]
) -> None:
    tree.apply(MORE)
    other = plan(machine={"netdev_budget": 900}, owner="other")
    with pytest.raises(steer.SteerError, match="netdev_budget is steered by owner rfs-plus-4"):
        tree.apply(other)
    tree.restore()
    tree.apply(plan(machine={"rps_sock_flow_entries": 8}))
    tree.apply(other)
    assert texts(later)["machine"] == "900"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("device", "eth1 in this namespace: this kernel has no gro_flush_timeout"),
        ("inside", f"{POD}: this kernel has no rps_default_mask"),
        ("machine", "netdev_budget, which does not exist"),
    ],
)
def test_a_kernel_without_a_knob_is_refused_before_any_write(
    tree: Tree, later: dict[str, Path], missing: str, words: str
) -> None:
    later.pop(missing).unlink()
    before = texts(later)
    with pytest.raises(steer.SteerError, match=words) as refused:
        tree.apply(MORE)
    assert refused.value.status == steer.CANNOT
    assert texts(later) == before
    assert not tree.snapshot().exists()


def test_a_guard_refuses_before_any_write(
    tree: Tree, later: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    never = steer.KNOBS["gro_flush_timeout"]._replace(guard=lambda facts: f"not on {facts.kind()}")
    monkeypatch.setitem(steer.KNOBS, never.name, never)
    tree.write("sys/class/net/eth1/uevent", "DEVTYPE=vxlan")
    before = texts(later)
    with pytest.raises(steer.SteerError, match="eth1: not on vxlan"):
        tree.apply(MORE)
    assert texts(later) == before
    with tree.machine() as machine:
        assert steer.show(machine, [])["devices"] == []


def test_a_recreated_device_does_not_get_the_old_one_s_value(
    tree: Tree, later: dict[str, Path]
) -> None:
    tree.apply(MORE)
    tree.write("sys/class/net/eth1/ifindex", 99)
    (gone,) = tree.restore()["gone"]
    assert gone.startswith("eth1 in this namespace: ")
    assert texts(later)["device"] == "20000"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "set is {}"),
        ({"rps_cpus": 3}, "set.rps_cpus is 3"),
        ({"rps_cpus": "some"}, "set.rps_cpus is"),
        ({"rps_cpus": "10"}, r"set.rps_cpus is \"10\": CPU 4"),
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
