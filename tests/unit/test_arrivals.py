"""What steered devices received, the path that it shows, and the devices that are named for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from steer_tree import Tree, plan, rule
from test_cluster_parts import IMAGES, NODES

from analysis import paths
from analysis.schema import QueueSteering, Received, Record, Steering
from experiments.host.arrived import arrived
from experiments.run import arrivals
from infra import config
from infra.kubernetes import measurement

MB = 1_000_000
WHAT = measurement.of(
    config.state("rps-1", {"target": "kubernetes", "images": IMAGES}, online=(0, 1)), NODES
)


def row(role: str, device: str, size: float, node: str = "s1", *, steered: bool = True) -> Received:
    return Received(
        node=node, role=role, device=device, steered=steered, packets=9, bytes=int(size * MB)
    )  # type: ignore[arg-type]


POD = row("pod", "eth0", 100)
NIC = row("nic", "ens5", 104)


@pytest.mark.parametrize(
    ("rows", "path", "named"),
    [
        ([NIC, row("overlay", "vxlan.calico", 105), POD], "overlay", []),
        ([NIC, POD], "direct", []),
        ([NIC, row("overlay", "vxlan.calico", 0.2), POD], "direct", ["vxlan.calico"]),
        ([row("nic", "ens6", 0), NIC, POD], "direct", ["ens6"]),
        ([NIC, row("overlay", "tunl0", 30), POD], "direct", ["tunl0"]),  # of a part of the pairs
        ([NIC, row("overlay", "tunl0", 70), POD], "overlay", ["tunl0"]),
        ([row("nic", "ens5", 0.3), row("veth", "a1", 0), POD], "direct", ["ens5"]),  # pairs on one node
    ],
)  # fmt: skip
def test_counters_show_the_path(rows: list[Received], path: str, named: list[str]) -> None:
    assert arrivals.path(WHAT, rows, None) == path
    words = arrivals.unused(rows)
    assert [
        next(name for name in named if name in one or "overlay" in one) for one in words
    ] == named
    assert all("s1" in one for one in words)


def test_each_node_is_judged_by_its_own_pods() -> None:
    client = [row("nic", "eth9", 0.001, "c1"), row("pod", "eth0", 2, "c1")]
    (words,) = arrivals.unused([NIC, POD, *client])
    assert "eth9 of node c1" in words
    assert (
        arrivals.unused([row("nic", "eth9", 0), row("overlay", "x", 0)]) == []
    )  # nothing measured


def test_a_tunnel_that_is_not_steered_is_the_path_nevertheless() -> None:
    rows = [NIC, POD, row("overlay", "vxlan.calico", 104, steered=False)]
    assert arrivals.path(WHAT, rows, None) == "overlay"
    (words,) = arrivals.unused(rows)
    assert "vxlan.calico, which is not steered" in words
    idle = row("overlay", "flannel.1", 0, steered=False)
    assert arrivals.path(WHAT, [NIC, POD, idle], None) == "direct"
    assert arrivals.unused([NIC, POD, idle]) == []


def steered(*roles: str) -> Steering:
    queues = [
        QueueSteering(node="s1", role=role, device="x", queue="rx-0", rps_cpus="0", rps_flow_cnt=0)  # type: ignore[arg-type]
        for role in roles
    ]  # fmt: skip
    return Steering(sock_flow_entries=0, queues=queues)


def test_without_counters_the_path_is_that_of_the_steered_devices() -> None:
    few = [row("nic", "x", 0.0136), row("overlay", "x", 0.0009), row("pod", "eth0", 0.0032)]
    assert arrivals.path(WHAT, few, steered("nic", "overlay")) == "overlay"  # probes and ARP
    assert arrivals.path(WHAT, few, steered("nic")) == "direct"
    assert arrivals.unused(few) == []
    assert arrivals.path(WHAT, [], steered("nic", "overlay")) == "overlay"
    assert arrivals.path(WHAT, [], steered("nic", "pod")) == "direct"
    assert arrivals.path(WHAT, [], None) == "overlay"
    without = WHAT.model_copy(update={"overlay_device": "none"})
    assert arrivals.path(without, [], steered("nic", "pod")) == "overlay"


def count(device: str, packets: int, size: int, namespace: str | None = None) -> dict[str, Any]:
    role = "pod" if namespace else "nic"
    names = {"role": role, "namespace": namespace, "pod": None, "steered": True}
    return {**names, "device": device, "rx_packets": packets, "rx_bytes": size}


def test_differences_are_of_devices_that_stood_at_both_ends() -> None:
    before = [count("eth0", 5, 500), count("eth0", 7, 700, "pod:1"), count("eth1", 9, 900)]
    after = [count("eth0", 9, 1500), count("eth0", 8, 750, "pod:1"), count("eth1", 0, 0)]
    after.append(count("eth2", 1, 1))
    found = arrived("s1", before, after)
    assert [(one.role, one.device, one.packets, one.bytes) for one in found] == [
        ("nic", "eth0", 4, 1000),
        ("pod", "eth0", 1, 50),
    ]
    answers = [("s1", {"device_counts": before}), ("s2", {})]
    assert arrivals.differences(answers, [("s1", {"device_counts": after}), ("s3", {})]) == found
    assert arrivals.differences([], answers) == []


def test_the_agent_reads_each_steered_device_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.device("eth0", queues=4, hardware=True)
    tree.device("bond0", on=("eth0",), kind="bond")
    for name, value in (("rx_packets", 12), ("rx_bytes", 3400), ("rx_dropped", 5)):
        tree.write(f"sys/class/net/eth0/statistics/{name}", value)
    document = plan(rule("nic", "bond0", cpus="3"))
    tree.apply(document)
    tree.device("tunl0", arphrd=768)
    tree.device("docker0", kind="bridge")
    counts = {"rx_packets": 12, "rx_bytes": 3400, "rx_dropped": 5}
    where = {"pod": None, "namespace": None}
    assert tree.verify()["device_counts"] == [
        {"role": "nic", "device": "eth0", "steered": True, **where, **counts},
        {
            "role": "overlay",
            "device": "tunl0",
            "steered": False,
            **where,
            **dict.fromkeys(counts, 0),
        },
    ]


def test_a_record_of_schema_1_has_no_counters_and_each_path_has_a_name() -> None:
    kinds = Record.model_json_schema()["properties"]["path"]["enum"]
    assert set(kinds) == set(paths.NAMES)
    assert paths.first(["host", "direct"]) == "direct"
    assert paths.first(["host", "overlay"]) == "overlay"
    assert paths.first([]) == "overlay"
