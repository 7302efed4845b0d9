"""Clusters without a tunnel, with one that packets do not pass, and with other names: the right devices, the right path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asked import doctor, where
from lab_project import Project
from rig import network
from rig.cluster import Cluster
from rig.layout import STATE

STACK = "rps-plus-2"
RATE = 0.5  # of the bytes that the clients sent, at least


@pytest.fixture(params=[False, True], ids=["no tunnel", "beside the tunnel"])
def direct(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[bool]:
    """Pods of other nodes are reached through eth1; whether `vxlan.calico` still exists."""
    layouts = [node.layout for node in cluster.nodes.values()]
    network.route_without_tunnel(layouts, keep=request.param)
    try:
        yield request.param
    finally:
        network.route_by_tunnel(layouts)


def received(record: dict[str, Any], role: str) -> int:
    return sum(row["bytes"] for row in record["received"] if row["role"] == role)


def sent(record: dict[str, Any]) -> float:
    """Bytes of the measured window."""
    rates = [pair["values"]["bitrate_mbps"] for pair in record["pairs"]]
    return sum(rates) * 1e6 / 8 * record["duration"]


def test_a_cluster_whose_packets_pass_no_tunnel(
    project: Project, cluster: Cluster, direct: bool
) -> None:
    found = doctor(project, cluster)
    assert found["missing"] == []
    server = found["nodes"][0]["facts"]
    assert any(fact.startswith("nic eth1") for fact in server)
    assert any(fact.startswith("overlay none") for fact in server)
    project.up(STACK, *where(cluster, "duration=2"))
    record = project.last(STACK)
    assert (record["valid"], record["path"], record["reasons"]) == (True, "direct", [])
    roles = {(queue["role"], queue["device"]) for queue in record["steering_before"]["queues"]}
    assert ("nic", "eth1") in roles
    assert not any(role == "overlay" for role, _ in roles)
    assert received(record, "nic") > RATE * sent(record)
    if direct:
        mask = "cat /sys/class/net/vxlan.calico/queues/rx-0/rps_cpus"
        assert not cluster.nodes["worker1"].exec("sh", "-c", mask).strip("0,\n")
        # a tunnel that is steered in vain is named
        project.up(STACK, "kubernetes.overlayDevice=vxlan.calico")
        record = project.last(STACK)
        assert (record["valid"], record["path"]) == (True, "direct")
        assert any("overlay vxlan.calico of node worker1" in words for words in record["warnings"])
    project.destroy(STACK)


@pytest.fixture
def names(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """New pods get other names for their host ends."""
    del cluster
    file = Path(STATE, "prefix")
    file.write_text(request.param)
    try:
        yield request.param
    finally:
        file.unlink()


@pytest.mark.parametrize("names", ["ovn-"], indirect=True, ids=["like OVN's"])
@pytest.mark.usefixtures("names")
def test_counters_prove_the_overlay(project: Project, cluster: Cluster) -> None:
    project.up(STACK, *where(cluster, "duration=2"))
    record = project.last(STACK)
    assert (record["valid"], record["path"]) == (True, "overlay")
    assert not any("do not pass" in words for words in record["warnings"])
    for role in ("nic", "overlay", "pod"):
        assert received(record, role) > RATE * sent(record)
    assert all(name.startswith("ovn-") for name in host_ends(record))
    project.destroy(STACK)


def host_ends(record: dict[str, Any]) -> set[str]:
    queues = record["steering_before"]["queues"]
    found = {queue["device"] for queue in queues if queue["role"] == "veth"}
    assert len(found) == 2  # of the servers of two pairs, and of no other pod
    return found


@pytest.mark.parametrize("names", [""], indirect=True, ids=["hashes"])
@pytest.mark.usefixtures("names")
def test_host_ends_of_any_name_and_no_other_pods(project: Project, cluster: Cluster) -> None:
    project.up(STACK, *where(cluster, "duration=2", "runs=0"))
    plain = "kubectl-stranger"
    cluster.kubectl(
        "run", plain, "--image=steerlab/iperf3:1", "--image-pull-policy=IfNotPresent",
        '--overrides={"spec": {"nodeName": "worker1"}}', "--command", "--", "sleep", "600",
    )  # fmt: skip
    try:
        cluster.kubectl("wait", "--for=condition=Ready", f"pod/{plain}", "--timeout=60s")
        project.run("measure", "-s", STACK)
        record = project.last(STACK)
        assert (record["valid"], record["reasons"]) == (True, [])
        assert not any(name.startswith("cali") for name in host_ends(record))
    finally:
        cluster.kubectl("delete", "pod", plain, "--grace-period=0", "--force")
    project.destroy(STACK)


def test_a_device_that_the_nodes_do_not_have_is_refused_before_anything(
    project: Project, cluster: Cluster
) -> None:
    for key, role in (("nic", "nic"), ("overlayDevice", "overlay")):
        (said,) = doctor(project, cluster, f"kubernetes.{key}=none7", code=3)["missing"]
        assert said.startswith("worker1: ")
        assert f"no {role} device" in said
        assert "none7" in said
