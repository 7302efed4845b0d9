"""More nodes than two, nodes that cannot, and pods with a limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import images
import pytest
from lab_project import Project
from rig.cluster import Cluster

TABLE = "/proc/sys/net/core/rps_sock_flow_entries"
QUEUE = "/sys/class/net/eth1/queues/rx-0"


def up(project: Project, cluster: Cluster, stack: str, *changes: str, code: int = 0) -> Any:
    where = ("target=kubernetes", images.KEY, f"kubernetes.kubeconfig={cluster.kubeconfig}")
    return project.up(stack, *where, *changes, code=code)


@pytest.fixture
def two_servers(cluster: Cluster) -> Iterator[str]:
    cluster.kubectl("label", "node", "worker1", "worker3", "bench=server")
    yield "kubernetes.serverSelector=bench=server"
    cluster.kubectl("label", "node", "worker1", "worker3", "bench-")


def test_limited_pods_are_spread_over_two_server_nodes_and_both_are_steered(
    project: Project, cluster: Cluster, two_servers: str
) -> None:
    up(project, cluster, "rfs-4", two_servers, "podCpuLimit=100m", "duration=2")
    found = project.last("rfs-4")
    assert len([pair for pair in found["pairs"] if pair["values"]["bitrate_mbps"]]) == 4
    assert any(pair["throttled_periods"] for pair in found["pairs"])
    listed = cluster.kubectl(
        "get", "pods", "-n", "steerlab-rfs-4", "-l", "steerlab/role=server", "-o",
        "jsonpath={.items[*].spec.nodeName}",
    )  # fmt: skip
    assert sorted(listed.split()) == ["worker1", "worker1", "worker3", "worker3"]
    for name in ("worker1", "worker3"):
        flows = cluster.nodes[name].exec("cat", f"{QUEUE}/rps_flow_cnt")
        assert flows.strip() == "32768", name
    # one kernel: the first node has its table, and its cores are counted once
    assert {core["node"] for core in found["cores"]} == {"worker1"}
    project.destroy("rfs-4")
    for name in ("worker1", "worker3"):
        assert cluster.nodes[name].exec("cat", f"{QUEUE}/rps_flow_cnt").strip() == "0"


def test_a_node_without_the_sysctl_takes_rps_and_refuses_rfs_with_3(
    project: Project, cluster: Cluster
) -> None:
    third = "kubernetes.serverSelector=kubernetes.io/hostname=worker3"
    said = up(project, cluster, "rfs-1", third, "runs=0", code=3).err
    assert "rps_sock_flow_entries" in said
    node = cluster.nodes["worker3"]
    assert node.exec("cat", f"{QUEUE}/rps_flow_cnt").strip() == "0"
    up(project, cluster, "rfs-1", "configuration=rps", "runs=0")
    assert int(node.exec("cat", f"{QUEUE}/rps_cpus").replace(",", ""), 16) > 0
    project.destroy("rfs-1")
    assert int(node.exec("cat", f"{QUEUE}/rps_cpus").replace(",", ""), 16) == 0
