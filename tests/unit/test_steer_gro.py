"""The knob gro: a feature of a device, steered, switched, shown and planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from imitation import EthtoolFile
from steer_tree import Tree, plan, steer
from switched_tree import PLANS, document, episode, populate

from experiments.host import calls, nodes
from experiments.targets.lab import doctor
from infra import configurations, steering
from infra.errors import InvalidInput
from infra.steering import Device

POD = "/run/netns/x-pod"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path, cpus="0-3")
    tree.device("eth1", queues=2, mask="1", flows=64, gro="off")
    tree.namespace(POD, cookie=7)
    tree.device("eth0", POD, gro="on")
    return tree


def wanted(word: object, device: str = "eth1", namespace: str | None = None) -> dict:
    role = "pod" if namespace else "nic"
    rule = {"role": role, "devices": [device], "namespace": namespace, "set": {"gro": word}}
    return plan(rule)


def held(tree: Tree, device: str = "eth1", namespace: str = "") -> str:
    net = tree.root / namespace.lstrip("/") / "sys/class/net"
    return (net / device / "gro").read_text().strip()


@pytest.mark.parametrize("word", ["on", True])
def test_it_is_steered_alone_and_comes_back(tree: Tree, word: object) -> None:
    before = tree.values()
    answer = tree.apply(wanted(word))
    assert (answer["changed"], held(tree)) == (1, "on")
    ((device, value),) = ((row["device"], row["gro"]) for row in answer["devices"])
    assert (device, value) == ("eth1", "on")
    assert tree.apply(wanted("on"))["changed"] == 0
    assert tree.verify()["drift"] == []
    (entry,) = tree.saved()["entries"]
    assert (entry["knob"], entry["before"], entry["queue"]) == ("gro", "off", "")
    tree.write("sys/class/net/eth1/gro", "off")
    (drift,) = tree.verify()["drift"]
    assert (drift["kind"], drift["device"]) == ("value", "eth1")
    tree.write("sys/class/net/eth1/gro", "on")
    assert tree.restore()["restored"] == 1
    assert tree.values() == before


def test_what_was_requested_comes_back(tree: Tree) -> None:
    tree.write("sys/class/net/eth1/gro", "off [requested on]")
    before = tree.values()
    assert tree.apply(wanted("off"))["changed"] == 1
    assert (held(tree), tree.verify()["drift"]) == ("off", [])
    assert tree.restore()["restored"] == 1
    assert tree.values() == before


def test_a_request_that_became_active_is_as_before(tree: Tree) -> None:
    """What was asked for is the same; whether it is active depends on other features."""
    tree.write("sys/class/net/eth1/gro", "off [requested on]")
    tree.apply(wanted("off"))
    tree.write("sys/class/net/eth1/gro", "on")
    answer = tree.restore()
    assert (answer["restored"], answer["left"], answer["failed"]) == (0, [], [])


def test_a_fixed_feature_is_refused_before_any_write(tree: Tree) -> None:
    tree.write("sys/class/net/eth1/gro", "off [fixed]")
    assert tree.apply(wanted("off"))["changed"] == 0
    with pytest.raises(steer.SteerError, match="cannot be on: the device has it fixed") as refused:
        tree.apply(wanted("on"))
    assert refused.value.status == steer.CANNOT
    assert held(tree) == "off [fixed]"


def test_a_request_that_the_kernel_does_not_follow_is_taken_back(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = EthtoolFile.write

    def unheeded(self: EthtoolFile, line: bytes) -> None:
        on = line.strip() == b"on"
        write(self, b"off [requested on]\n" if on else line)

    monkeypatch.setattr(EthtoolFile, "write", unheeded)
    with pytest.raises(steer.SteerError, match="steering is as before"):
        tree.apply(wanted("on"))
    assert held(tree) == "off"
    assert not tree.snapshot().exists()


def test_it_is_switched_off_in_the_namespace_of_its_device(tree: Tree) -> None:
    tree.apply(wanted("off", "eth0", POD))
    assert (held(tree, "eth0", POD), held(tree)) == ("off", "off")
    assert tree.restore()["restored"] == 1
    assert held(tree, "eth0", POD) == "on"


def test_a_renamed_device_keeps_its_old_value(tree: Tree) -> None:
    tree.apply(wanted("on"))
    net = tree.root / "sys/class/net"
    (net / "eth1").rename(net / "lan0")
    tree.device("eth1", gro="on")
    assert tree.restore()["restored"] == 1
    assert (held(tree, "lan0"), held(tree)) == ("off", "on")


def test_a_kernel_without_it_is_refused_before_any_write(tree: Tree) -> None:
    (tree.root / "sys/class/net/eth1/gro").unlink()
    with pytest.raises(steer.SteerError, match="eth1 in this namespace: this kernel has no gro"):
        tree.apply(wanted("on"))
    assert not tree.snapshot().exists()


@pytest.mark.parametrize("word", ["", "On", 1, 0, ["on"], "off [requested on]"])
def test_a_word_that_does_not_fit_is_named(tree: Tree, word: object) -> None:
    with pytest.raises(steer.SteerError, match=r"rules\[0\]\.set\.gro is") as refused:
        tree.apply(wanted(word))
    assert refused.value.status == steer.BAD_PLAN


def test_show_and_doctor_have_it(tree: Tree) -> None:
    with tree.machine() as machine:
        shown = steer.show(machine, [POD])
    calls._Answer.model_validate(shown)
    assert nodes._tables(shown, ("device", "namespace"))[-3:] == [
        "DEVICE  NAMESPACE         SETTINGS",
        "eth1    -                 gro off",
        "eth0    /run/netns/x-pod  gro on",
    ]
    assert "gro on 1 of 2" in doctor.in_use(shown)


def test_it_is_switched_under_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steer.os, "sched_setscheduler", lambda *_: None)
    tree = populate(Tree(tmp_path, sock_flow_entries=4096))
    tree.write("sys/class/net/eth1/gro", "off")
    before, baseline = tree.values(), PLANS["baseline"]
    rule = {"role": "nic", "devices": ["eth1"], "set": {"rps_cpus": "1", "rps_flow_cnt": 0}}
    merging = {**rule, "set": {**rule["set"], "gro": "on"}}
    plans = {"baseline": baseline, "gro": {**baseline, "rules": [merging, *baseline["rules"][1:]]}}
    done = episode(tree, document("baseline", "gro", "baseline", plans=plans))
    assert [window["writes"] for window in done["windows"]] == [5, 1, 1]
    assert [window["spoiled"] for window in done["windows"]] == [[]] * 3
    (device,) = done["plans"]["gro"]["devices"]
    assert (device["gro"], done["plans"]["baseline"]["devices"]) == ("on", [])
    assert tree.values() == before


@pytest.mark.parametrize(("word", "value"), [("on", "on"), ("off", "off"), ("'on'", "on"),
                                             ("true", "on"), ("no", "off")])  # fmt: skip
def test_it_is_planned_where_a_configuration_names_it(
    tmp_path: Path, word: str, value: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"x: {{nic: {{gro: {word}}}}}")
    read = configurations.load(file)["x"]
    devices = [Device("nic", ("eth1",)), Device("overlay", ("vxlan.calico",))]
    document = steering.plan(read, owner="me", devices=devices, cores=[0, 1], queue_core=0)
    nic, overlay = document["rules"]
    assert nic["set"] == {"rps_cpus": "none", "rps_flow_cnt": 0, "gro": value}
    assert "set" not in overlay
    assert steer.parse_plan(document).rules[0].set == nic["set"]
    assert read.definition != configurations.load()["baseline"].definition


def test_a_configuration_with_another_word_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("x: {nic: {gro: 1}}")
    with pytest.raises(InvalidInput, match=r"x\.nic\.gro.*on or off"):
        configurations.load(file)
