"""`observe` of the agent: counters and settings of the devices of a plan, on an imitated node."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from steer_tree import Tree, plan, rule, steer
from switched_tree import counting

from agent import observe, sockdiag

PODS = {name: f"/run/netns/cni-{name}" for name in ("a", "b")}


def node(tree: Tree) -> Tree:
    """A NIC, an overlay and two pods with counters."""
    tree.device("eth1", queues=2, gro="off")
    tree.device("vxlan.calico", gro="on", kind="vxlan")
    for number, place in enumerate(PODS.values()):
        tree.namespace(place, cookie=number + 5)
        tree.device("eth0", place)
        tree.write(f"{place}/sys/class/connections", "1 100\n2 100")
        counted(tree, "eth0", 1000, place)
    for device in ("eth1", "vxlan.calico"):
        counted(tree, device, 1000)
    counting(tree)
    return tree


def counted(tree: Tree, device: str, size: int, place: str = "") -> None:
    folder = f"{place}/sys/class/net/{device}/statistics"
    for name, value in (("rx_bytes", size), ("rx_packets", size // 100), ("rx_dropped", 0)):
        tree.write(f"{folder}/{name}", value)


PLAN = plan(
    rule("nic", "eth1"),
    rule("overlay", "vxlan.calico"),
    rule("pod", "eth0", namespace="/run/netns/cni-*", optional=True),
    owner="nodes",
)


@pytest.fixture
def tree(tmp_path: Any) -> Tree:
    return node(Tree(tmp_path))


def observed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, passes: Callable[[], None], document: Any = PLAN
) -> dict[str, Any]:
    """The answer where this happens in each half of the window."""
    monkeypatch.setattr(observe, "time", SimpleNamespace(sleep=lambda _: passes()))
    with tree.machine() as machine:
        answer: dict[str, Any] = steer.observe(machine, steer.parse_plan(document), 2)
    return answer


def test_devices_connections_and_settings_of_a_window(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter((1, 2))

    def passes() -> None:
        step = next(steps)
        counted(tree, "eth1", 1000 + 500 * step)
        counted(tree, "eth0", 1000 + 300 * step, PODS["b"])
        tree.write(f"{PODS['b']}/sys/class/connections", f"1 {100 * step}\n2 100\n3 {7 * step}")

    before = tree.values()
    found = observed(tree, monkeypatch, passes)
    assert tree.values() == before
    by_device = {(one["namespace"], one["device"]): one for one in found["traffic"]}
    assert by_device[None, "eth1"]["rx_bytes"] == 1000
    assert by_device[None, "eth1"]["rx_packets"] == 10
    assert by_device[PODS["b"], "eth0"]["rx_bytes"] == 600
    assert by_device[PODS["a"], "eth0"]["rx_bytes"] == 0
    # of the second half alone, the busiest pod first
    assert found["flows"][0] == {"namespace": PODS["b"], "received": [100, 7]}
    assert [one["queue"] for one in found["queues"] if one["role"] == "nic"] == ["rx-0", "rx-1"]
    assert [(one["role"], one["gro"]) for one in found["devices"]] == [
        ("nic", "off"),
        ("overlay", "on"),
    ]
    assert len(found["edges"]) == 2
    assert found["plan"] == PLAN
    assert found["machine"] == {"rps_sock_flow_entries": 0}


def test_connections_of_the_node_count_where_it_has_no_pod(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write("sys/class/connections", "7 10")
    alone = plan(rule("nic", "eth1"), owner="nodes")
    steps = iter((20, 50))
    found = observed(
        tree,
        monkeypatch,
        lambda: tree.write("sys/class/connections", f"7 {next(steps)}") and None,
        alone,
    )
    assert found["flows"] == [{"namespace": None, "received": [30]}]


def test_the_command_takes_the_plan_that_was_applied_last(tree: Tree) -> None:
    done = tree.run("observe", "--saved", "--owner", "nodes", "--seconds", "0")
    assert done.returncode == 3
    assert "owner nodes steers nothing here" in done.stderr
    tree.apply(PLAN)
    done = tree.run("observe", "--saved", "--owner", "nodes", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    assert done.answer["plan"] == PLAN
    assert tree.run("observe").returncode == 2


def test_bytes_of_connections_are_read_from_the_kernel_s_answer() -> None:
    info = bytes(128) + struct.pack("=Q", 4711) + bytes(64)
    attributes = struct.pack("=HHI", 8, 1, 5) + struct.pack("=HH", 4 + len(info), 2) + info
    body = struct.pack("=BBBB48sIIIII", 2, 1, 0, 0, b"x" * 48, 0, 0, 0, 0, 9) + attributes
    message = struct.pack("=IHHII", 16 + len(body), 20, 2, 0, 0) + body
    assert sockdiag.bytes_of(message * 2) == {b"x" * 48: 4711}
    # a kernel before 4.1 has no such field, and an answer may be cut off anywhere
    assert all(not sockdiag.bytes_of(message[:end]) for end in range(len(message) - 70))
