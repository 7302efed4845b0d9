"""Nodes of a cluster: found by label in few and small requests, refused with the remedy, paired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

import pytest
from fake_cluster import FakeCluster, serving
from test_cluster_graph import node, state

from experiments.targets.kubernetes import facts
from experiments.targets.kubernetes.sessions import NodeAgent
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.kubernetes import measurement
from infra.kubernetes.access import connect
from infra.kubernetes.nodes import INSTANCE_TYPE, PAGE, Nodes, every, find, paired
from infra.settings import Kubernetes

SELECTORS = ("iperf=server", "iperf=client")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[FakeCluster, str]]:
    """With one node of each side."""
    with serving(tmp_path) as (made, kubeconfig):
        yield made, str(kubeconfig)


def names(nodes: tuple[object, ...]) -> list[str]:
    return [getattr(one, "name", "") for one in nodes]


def test_nodes_are_found_in_few_requests_among_any_number(
    cluster: tuple[FakeCluster, str],
) -> None:
    made, kubeconfig = cluster
    for number in range(1000):
        made.add_node(f"n{number:04}", "none")
    made.add_node("s0", "server")
    api = connect(kubeconfig, "")
    made.reads.clear()
    found = find(api, Kubernetes())
    assert (names(found.servers), names(found.clients)) == (["s0", "s1"], ["c1"])
    queries = [parse_qs(urlsplit(target).query) for target in made.reads]
    assert [query["labelSelector"] for query in queries] == [[one] for one in SELECTORS]
    assert all(query["limit"] == [str(PAGE)] for query in queries)
    assert names(tuple(every(api, "kubernetes.io/hostname in (host-n0007,host-s1)"))) == [
        "s1",
        "n0007",
    ]


def test_a_long_list_comes_in_pages(cluster: tuple[FakeCluster, str]) -> None:
    made, kubeconfig = cluster
    for number in range(2 * PAGE):
        made.add_node(f"n{number:04}", "server")
    made.reads.clear()
    found = find(connect(kubeconfig, ""), Kubernetes())
    assert len(found.servers) == 2 * PAGE + 1
    assert len(made.reads) == 3 + 1


def test_a_label_that_no_node_has_is_refused_with_some_of_the_nodes(
    cluster: tuple[FakeCluster, str],
) -> None:
    made, kubeconfig = cluster
    for number in range(1000):
        made.add_node(f"n{number:04}", "none")
    made.reads.clear()
    with pytest.raises(
        PrerequisiteMissing, match="clientSelector: no node has the label a=b"
    ) as said:
        find(connect(kubeconfig, ""), Kubernetes.model_validate({"clientSelector": "a=b"}))
    assert "n0000" in str(said.value)
    assert len(str(said.value)) < 200
    assert len(made.reads) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ready": "False"}, "node s1 is not Ready: kubectl describe node s1"),
        ({"address": "fd00::7"}, "first address of node s1 is fd00::7"),
    ],
)
def test_a_node_that_cannot_be_used_is_refused(
    cluster: tuple[FakeCluster, str], change: dict[str, str], said: str
) -> None:
    made, kubeconfig = cluster
    made.add_node("s1", "server", **change)
    with pytest.raises(PrerequisiteMissing, match=said):
        find(connect(kubeconfig, ""), Kubernetes())


@pytest.mark.parametrize("servers", [1, 2, 3])
@pytest.mark.parametrize("clients", [1, 2, 3, 4])
def test_a_mesh_has_every_server_node_with_every_client_node(servers: int, clients: int) -> None:
    of = Nodes(
        tuple(node(f"s{i}") for i in range(servers)), tuple(node(f"c{i}") for i in range(clients))
    )
    couples = servers * clients
    mesh = paired(of, "mesh", couples)
    used = Counter(
        (mesh.server_of(i).name, mesh.client_of(i).name) for i in range(1, 2 * couples + 1)
    )
    assert len(used) == couples
    assert set(used.values()) == {2}
    if couples > 1:
        with pytest.raises(InvalidInput, match=f"at least {couples}"):
            paired(of, "mesh", couples - 1)
    round_robin = paired(of, "round-robin", 1)
    at = range(1, 7)
    assert [round_robin.server_of(i).name for i in at] == [f"s{(i - 1) % servers}" for i in at]
    assert [round_robin.client_of(i).name for i in at] == [f"c{(i - 1) % clients}" for i in at]


FILES = {
    "/proc/cpuinfo": "processor : 0\nmodel name : EPYC\n",
    "/sys/class/net/ens5/device/uevent": "DRIVER=ena\nPCI_ID=1D0F:EC20\n",
    "/sys/class/net/ens5/speed": "25000\n",
}


class Agent:
    """Reads these files on each node."""

    def look(self, request: dict[str, list[str]]) -> dict[str, dict[str, str]]:
        wanted = {f"/{path}" for path in request["files"]}
        return {
            "files": {path: text for path, text in FILES.items() if path in wanted},
            "commands": {"uname -m": "x86_64\n"},
        }


def test_a_record_describes_nodes_as_far_as_they_are_known(
    cluster: tuple[FakeCluster, str],
) -> None:
    made, kubeconfig = cluster
    made.objects["/api/v1/nodes/s1"]["metadata"]["labels"][INSTANCE_TYPE] = "m7g.large"
    what = measurement.of(state(), Nodes((node("s1"),), (node("c1"), node("gone"))))
    devices = ("ens5", "vxlan.calico")
    server, client, gone = facts.of_nodes(
        connect(kubeconfig, ""), what, lambda _: cast("NodeAgent", Agent()), {}, devices
    )
    assert server.model_dump() == {
        "name": "s1", "side": "server", "kernel": "x", "cpu": "EPYC", "cores": 4, "nic": "ena 25000 Mbit/s",
        "instance_type": "m7g.large",
    }  # fmt: skip
    # without an agent or a pod, the API tells the rest
    assert (client.kernel, client.cores, client.cpu, client.nic) == ("x", 4, None, None)
    assert (gone.name, gone.kernel, gone.cores) == ("gone", None, None)


@pytest.mark.parametrize(
    ("files", "known"),
    [
        ({"a/device/uevent": "DRIVER=virtio_net", "a/speed": "-1"}, "virtio_net"),
        ({"a/device/uevent": "DRIVER=e", "b/device/uevent": "DRIVER=d"}, "d, e"),
        ({"veth/speed": "10000"}, None),
    ],
)
def test_a_nic_is_known_by_driver_and_speed(files: dict[str, str], known: str | None) -> None:
    assert facts.nics({f"/sys/class/net/{path}": text for path, text in files.items()}) == known
