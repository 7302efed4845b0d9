"""Knobs of a device that depend on each other and on the device: guards, and the order of writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from imitation import EthtoolFile
from steer_tree import Tree, plan, steer
from switched_tree import document, episode, populate

KINDS = {"virtio_net": "eth1", "veth": "cali1", "vxlan": "vxlan.calico", "geneve": "geneve_sys"}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A NIC, a veth, a VXLAN and a Geneve device, with GRO except on the veth."""
    tree = Tree(tmp_path, cpus="0-3")
    tree.write("proc/sys/kernel/osrelease", "6.18.44")
    tree.device("eth1", queues=2, transmit=2, hardware=True, gro="on")
    tree.device("cali1", gro="off")
    tree.device("vxlan.calico", gro="on", kind="vxlan")
    tree.device("geneve_sys", gro="on", kind="geneve")
    for kind, device in KINDS.items():
        part = f"sys/class/net/{device}"
        tree.write(f"{part}/driver", kind)
        for name in ("threaded", "napi_defer_hard_irqs", "gro_flush_timeout"):
            tree.write(f"{part}/{name}", 0)
        for name in ("rx-gro-list", "lro", "tso", "tx-checksum-ip-generic"):
            tree.write(f"{part}/{name}", "off")
    return tree


def rules(device: str, **values: Any) -> dict[str, Any]:
    named = {
        name.replace("_", "-") if name == "rx_gro_list" else name: v for name, v in values.items()
    }
    return plan({"role": "nic", "devices": [device], "set": named})


def held(tree: Tree, device: str, knob: str) -> str:
    return (tree.root / "sys/class/net" / device / knob).read_text().strip()


# --- guards ---


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("vxlan", {"threaded": "on"}, "vxlan.calico: threaded .* kind vxlan"),
        ("vxlan", {"threaded": "on", "gro": "on"}, "kind vxlan"),
        ("geneve", {"threaded": "on"}, "kind geneve"),
        ("veth", {"threaded": "on"}, "threaded needs NAPI"),
        ("veth", {"napi_defer_hard_irqs": 2}, "napi_defer_hard_irqs needs NAPI"),
        ("veth", {"gro_flush_timeout": 20000}, "gro_flush_timeout needs NAPI"),
        ("vxlan", {"gro_flush_timeout": 20000, "gro": "off"}, "gro_flush_timeout needs NAPI"),
        ("veth", {"rx_gro_list": "on"}, "rx-gro-list has no effect without GRO"),
        ("virtio_net", {"rx_gro_list": "on", "gro": "off"}, "rx-gro-list has no effect"),
        ("virtio_net", {"lro": "on"}, "lro may be switched off only"),
    ],
)
def test_a_guard_refuses_before_any_write(
    tree: Tree, kind: str, values: dict[str, Any], words: str
) -> None:
    before = tree.values()
    with pytest.raises(steer.SteerError, match=words) as refused:
        tree.apply(rules(KINDS[kind], **values))
    assert refused.value.status == steer.CANNOT
    assert (tree.values(), tree.snapshot().exists()) == (before, False)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("virtio_net", {"threaded": "on", "gro": "off"}),
        ("virtio_net", {"gro_flush_timeout": 20000, "napi_defer_hard_irqs": 2, "gro": "off"}),
        ("veth", {"threaded": "on", "gro": "on"}),
        ("veth", {"threaded": "off", "gro_flush_timeout": 0, "rx_gro_list": "off", "lro": "off"}),
        ("vxlan", {"threaded": "off", "gro_flush_timeout": 20000}),
        ("vxlan", {"rx_gro_list": "on"}),
    ],
)
def test_a_guard_lets_pass_and_all_comes_back(
    tree: Tree, kind: str, values: dict[str, Any]
) -> None:
    before = tree.values()
    tree.apply(rules(KINDS[kind], **values))
    assert tree.verify()["drift"] == []
    assert tree.restore()["failed"] == []
    assert tree.values() == before


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("vxlan", {"gro": "off"}, {"rx_gro_list": "on"}),
        ("vxlan", {"gro": "off"}, {"gro_flush_timeout": 20000}),
        ("virtio_net", {"gro": "off"}, {"rx_gro_list": "on"}),
    ],
)
def test_a_guard_counts_what_the_previous_plan_gives_back(
    tree: Tree, kind: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    before = tree.values()
    tree.apply(rules(KINDS[kind], **first))
    tree.apply(rules(KINDS[kind], **second))
    assert held(tree, KINDS[kind], "gro") == "on"
    assert tree.verify()["drift"] == []
    assert tree.restore()["failed"] == []
    assert tree.values() == before


def test_a_guard_does_not_count_what_the_previous_plan_takes_back(tree: Tree) -> None:
    tree.apply(rules("cali1", gro="on", threaded="on"))
    with pytest.raises(steer.SteerError, match="threaded needs NAPI"):
        tree.apply(rules("cali1", threaded="on"))
    assert held(tree, "cali1", "gro") == "on"


def test_chains_of_packets_need_a_kernel_that_survives_them(tree: Tree) -> None:
    tree.write("proc/sys/kernel/osrelease", "6.12.90-amd64")
    with pytest.raises(steer.SteerError, match=r"rx-gro-list: Linux before 6\.16"):
        tree.apply(rules("eth1", rx_gro_list="on"))


def test_what_a_guard_refuses_is_shown_nevertheless(tree: Tree) -> None:
    tree.write("sys/class/net/vxlan.calico/threaded", 1)
    with tree.machine() as machine:
        rows = {row["device"]: row for row in steer.show(machine, [])["devices"]}
    assert rows["vxlan.calico"]["threaded"] == "1"
    assert tree.apply(rules("vxlan.calico", threaded="off"))["changed"] == 1


# --- the order of writes ---


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The knobs that are written, in order, each with its value."""
    order: list[tuple[str, str]] = []
    put = steer.Setting.put

    def noted(setting: Any, wanted: str, unusable: int, back: bool = False) -> None:
        order.append((setting.knob.name, wanted))
        put(setting, wanted, unusable, back)

    monkeypatch.setattr(steer.Setting, "put", noted)
    return order


def test_what_others_need_is_switched_on_first_and_off_last(
    tree: Tree, written: list[tuple[str, str]]
) -> None:
    on = {"threaded": "on", "rx_gro_list": "on", "gro": "on"}
    tree.apply(rules("cali1", **on))
    assert written[0] == ("gro", "on")
    written.clear()
    tree.apply(rules("cali1", **dict.fromkeys(on, "off")))
    assert written[-1] == ("gro", "off")
    tree.apply(rules("cali1", **on))
    written.clear()
    tree.restore()
    assert written[-1] == ("gro", "off")
    assert len(written) == 3


def test_a_roll_back_has_that_order_too(
    tree: Tree, written: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree.values()

    def broken(file: EthtoolFile, line: bytes) -> None:
        file.path.write_bytes(b"off" if file.path.name == "rx-gro-list" else line)

    monkeypatch.setattr(EthtoolFile, "write", broken)
    with pytest.raises(steer.SteerError, match="steering is as before"):
        tree.apply(rules("cali1", threaded="on", gro="on", rx_gro_list="on"))
    assert written[-1] == ("gro", "off")
    assert tree.values() == before


def test_a_feature_that_goes_off_with_another_fails_and_is_rolled_back(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tso", "tx-checksum-ip-generic"):
        tree.write(f"sys/class/net/eth1/{name}", "on")
    write = EthtoolFile.write

    def dependent(file: EthtoolFile, line: bytes) -> None:
        write(file, line)
        tso, sums = (file.path.parent / name for name in ("tso", "tx-checksum-ip-generic"))
        if tso.read_text().strip() != "off":
            tso.write_text("on" if sums.read_text().strip() == "on" else "off [requested on]")

    monkeypatch.setattr(EthtoolFile, "write", dependent)
    before = tree.values()
    both = {"tx-checksum-ip-generic": "off", "tso": "on"}
    with pytest.raises(steer.SteerError, match="another setting prevents it"):
        tree.apply(rules("eth1", **both))
    assert tree.values() == before
    tree.apply(rules("eth1", **{**both, "tso": "off"}))
    tree.apply(rules("eth1", **{"tx-checksum-ip-generic": "off"}))
    assert held(tree, "eth1", "tso") == "off [requested on]"
    assert tree.restore()["failed"] == []
    assert tree.values() == before


def test_windows_of_an_episode_have_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer.os, "sched_setscheduler", lambda *_: None)
    tree = populate(Tree(tmp_path))
    for name, text in (("gro", "off"), ("threaded", "0"), ("driver", "veth")):
        tree.write(f"sys/class/net/eth1/{name}", text)
    before = tree.values()
    threads = (tree.root / "sys/class/net/eth1/threaded").read_text
    seen = []
    write = EthtoolFile.write

    def noted(file: EthtoolFile, line: bytes) -> None:
        seen.append((line.strip().decode(), threads().strip()))
        write(file, line)

    monkeypatch.setattr(EthtoolFile, "write", noted)
    plans = {
        "none": rules("eth1", rps_cpus="none"),
        "threads": rules("eth1", gro="on", threaded="on"),
    }
    done = episode(tree, document("threads", "none", "threads", plans=plans))
    assert [window["spoiled"] for window in done["windows"]] == [[]] * 3
    assert seen == [("on", "0"), ("off", "0"), ("on", "0"), ("off", "0")]
    assert tree.values() == before
