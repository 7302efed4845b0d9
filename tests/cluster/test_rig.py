"""The test cluster is what it says: nodes, overlay, the machine's sysctl."""

from __future__ import annotations

import pytest
from rig.cluster import Cluster
from rig.command import RigError

TABLE = "/proc/sys/net/core/rps_sock_flow_entries"


def test_nodes_are_ready_with_their_labels(cluster: Cluster) -> None:
    said = cluster.kubectl("get", "nodes", "--show-labels", "--no-headers")
    rows = {row.split()[0]: row for row in said.splitlines()}
    assert rows.keys() == {"worker1", "worker2", "worker3"}
    assert all(" Ready " in row for row in rows.values())
    assert "iperf=server" in rows["worker1"]
    assert "iperf=client" in rows["worker2"]


def test_a_node_has_an_overlay_a_wire_and_the_machine_s_table(cluster: Cluster) -> None:
    node = cluster.nodes["worker1"]
    said = node.exec("ip", "-d", "link", "show", "vxlan.calico")
    assert "id 4096" in said
    assert "mtu 1450" in said
    assert node.exec("cat", TABLE).strip().isdigit()
    with pytest.raises(RigError):
        cluster.nodes["worker3"].exec("cat", TABLE)


def test_an_api_server_that_is_away_comes_back(cluster: Cluster) -> None:
    with cluster.api_away():
        pass
    assert cluster.kubectl("get", "--raw", "/readyz").startswith("ok")
