"""Several server nodes on a real cluster: a mesh of pairs, their names in the record, unlike nodes apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asked import doctor, where
from lab_project import Project
from rig.cluster import Cluster

STACK = "rps-2"
TYPE = "node.kubernetes.io/instance-type"


@pytest.fixture
def servers(cluster: Cluster) -> Iterator[list[str]]:
    cluster.kubectl("label", "node", "worker3", "iperf=server")
    try:
        yield ["worker1", "worker3"]
    finally:
        for name in ("worker1", "worker3"):
            cluster.kubectl("label", "node", name, f"{TYPE}-")
        cluster.kubectl("label", "node", "worker3", "iperf-")


def test_like_nodes_are_one_figure_and_unlike_ones_are_not(
    project: Project, cluster: Cluster, servers: list[str]
) -> None:
    mesh = "kubernetes.pairing=mesh"
    outputs = project.up(STACK, *where(cluster), mesh, "duration=2").json["outputs"]
    assert outputs["nodes"] == {"server": servers, "client": ["worker2"]}
    record = project.last(STACK)
    assert (record["valid"], record["reasons"]) == (True, [])
    couples = [(pair["server_node"], pair["client_node"]) for pair in record["pairs"]]
    assert couples == [(server, "worker2") for server in servers]
    of = {node["name"]: node for node in record["machine"]["nodes"]}
    assert {name: node["side"] for name, node in of.items()} == {
        "worker1": "server", "worker2": "client", "worker3": "server",
    }  # fmt: skip
    # the client's node has no agent: its pod shows the CPU
    assert of["worker2"]["cpu"] == of["worker1"]["cpu"] == record["machine"]["cpu"]
    assert of["worker2"]["kernel"] == record["machine"]["kernel"]
    own = outputs["bitrate_by_node"]
    assert sorted(own) == servers
    assert sum(own.values()) / 2 == pytest.approx(outputs["bitrate_mbps"], rel=1e-3)
    assert not outputs.get("unlike_nodes")

    for name, kind in zip(servers, ("small", "large"), strict=True):
        cluster.kubectl("label", "node", name, f"{TYPE}={kind}")
    again = project.run("measure", "-s", STACK, "--json").json
    words = "instance type of the server nodes: large (worker3), small (worker1)"
    assert again["unlike_nodes"] == [words]
    assert again["bitrate_mbps"] is None
    assert sorted(again["bitrate_by_node"]) == servers
    found = doctor(project, cluster, "configuration=rps")
    assert any(words in caution for caution in found["nodes"][0]["cautions"])
    project.destroy(STACK)


def test_a_mesh_with_too_few_pairs_is_refused_before_anything(
    project: Project, cluster: Cluster, servers: list[str]
) -> None:
    del servers
    said = project.up("rps-1", *where(cluster), "kubernetes.pairing=mesh", code=2).err
    assert "at least 2" in said
    assert "steerlab-rps-1" not in cluster.kubectl("get", "namespaces")
