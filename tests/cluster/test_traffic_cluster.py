"""Traffic `rr` and `mixed` on a real cluster: over Service and pod address, with both protocols."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import images
import pytest
from lab_project import Project
from rig.cluster import Cluster

STACK = "rfs-plus-2"
LATENCY = {"p50_us", "p99_us", "p999_us", "requests_per_second"}


def check(pair: dict[str, Any]) -> None:
    values = pair["values"]
    assert values.keys() == LATENCY
    assert 1 < values["p50_us"] <= values["p99_us"]
    assert values["requests_per_second"] > 0
    assert dict(pair["latency"])[0.5] == values["p50_us"]
    assert (pair["server_node"], pair["client_node"]) == ("worker1", "worker2")


@pytest.fixture
def measured(project: Project, cluster: Cluster) -> Any:
    where = ("target=kubernetes", images.KEY, f"kubernetes.kubeconfig={cluster.kubeconfig}")

    def up(*settings: str) -> dict[str, Any]:
        project.up(STACK, *where, "duration=2", "omit=1", "runs=1", *settings)
        return project.last(STACK)

    return up


@pytest.mark.parametrize(("via", "protocol"), [("service", "udp"), ("pod", "tcp")])
def test_requests_and_requests_beside_streams(
    measured: Any, project: Project, cluster: Cluster, via: str, protocol: str
) -> None:
    record = measured(f"kubernetes.via={via}", f"traffic=rr:protocol={protocol}")
    assert len(record["pairs"]) == 2
    for pair in record["pairs"]:
        check(pair)

    record = measured(f"kubernetes.via={via}", "traffic=mixed:rate=50M")
    assert [pair["kind"] for pair in record["pairs"]] == ["stream", "stream", "rr"]
    assert (record["replicas"], record["idle_pairs"]) == (2, 0)
    check(record["pairs"][2])
    assert 30 < record["pairs"][0]["values"]["bitrate_mbps"] < 60
    assert record["machine"]["versions"].keys() == {"iperf3", "sockperf"}
    steered = {queue["pod"] for queue in record["steering_before"]["queues"] if queue["pod"]}
    assert any(pod.startswith("iperf-server-3-") for pod in steered)

    listed = json.loads(cluster.kubectl("get", "pods", "-n", f"steerlab-{STACK}", "-o", "json"))
    restarts = [
        one["restartCount"] for pod in listed["items"] for one in pod["status"]["containerStatuses"]
    ]
    assert restarts == [0] * 6
    # nothing that the kubelet connects to the server of the requests, which would wait in its queue
    probes = [
        container.get("readinessProbe")
        for pod in listed["items"]
        for container in pod["spec"]["containers"]
        if container["name"] == "rr"
    ]
    assert probes == [None] * 2
    project.destroy(STACK)
    assert STACK not in cluster.kubectl("get", "namespaces")


def test_the_windows_of_an_episode_have_the_latency_in_them(
    project: Project, cluster: Cluster
) -> None:
    project.run(
        "sweep", "--method", "switchback", "--target", "kubernetes", "-c", images.KEY,
        "-c", f"kubernetes.kubeconfig={cluster.kubeconfig}", "--traffic", "mixed:rate=50M",
        "--configurations", "baseline,rps,rfs-plus", "--replicas", "1,2", "--runs", "1", "--seed", "7",
        "--out", "out", "--engine", "embedded",
    )  # fmt: skip
    assert project.orders() == Counter(range(6))
    for record in project.valid():
        assert (record["method"], record["congestion"]) == ("switchback", "cubic")
        assert [pair["index"] for pair in record["pairs"]] == [*range(1, record["replicas"] + 1), 3]
        check(record["pairs"][-1])


@pytest.mark.long  # the lab tries it in each run of the tests
def test_the_pair_beside_the_streams_runs_at_each_count_of_a_sweep(
    project: Project, cluster: Cluster
) -> None:
    project.run(
        "sweep", "--target", "kubernetes", "-c", images.KEY, "-c", f"kubernetes.kubeconfig={cluster.kubeconfig}",
        "--traffic", "mixed:rate=50M", "--configurations", "baseline,rps", "--replicas", "1,2", "--runs", "1",
        "--duration", "2", "--omit", "1", "--seed", "7", "--out", "out", "--engine", "embedded",
    )  # fmt: skip
    records = project.valid()
    assert len(records) == 4
    for record in records:
        assert [pair["index"] for pair in record["pairs"]] == [*range(1, record["replicas"] + 1), 3]
        check(record["pairs"][-1])
