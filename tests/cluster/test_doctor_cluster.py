"""`doctor --target kubernetes`: what a cluster is and lacks, and that looking leaves nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import images
import pytest
from lab_project import Answer, Project
from rig import certificates
from rig.cluster import ALLOWED, Cluster

from benchmarks.nodes import COUNT, LABEL, crowd
from infra.kubernetes.access import connect


@pytest.fixture
def looked(project: Project, cluster: Cluster) -> Any:
    def look(*changes: str, code: int = 0, json: bool = True) -> Answer:
        config = [
            word
            for change in (f"kubernetes.kubeconfig={cluster.kubeconfig}", images.KEY, *changes)
            for word in ("-c", change)
        ]
        form = ["--json"] if json else []
        return project.run("doctor", "--target", "kubernetes", *config, *form, code=code)

    return look


def namespaces(cluster: Cluster) -> str:
    """Those that are there when what is being deleted is gone."""
    for _ in range(60):
        said = cluster.kubectl("get", "namespaces", "--no-headers")
        if "Terminating" not in said:
            return said
        time.sleep(0.5)
    raise AssertionError(said)


def test_a_cluster_where_a_stack_can_stand(looked: Any, cluster: Cluster) -> None:
    found = looked().json
    assert found["missing"] == []
    server, client = found["nodes"]
    assert server["name"] == "worker1"
    assert client["name"] == "worker2"
    facts = "\n".join(server["facts"])
    assert "overlay vxlan.calico: MTU 1450, 1 rx queues" in facts
    assert "nic eth1: MTU 1500" in facts
    assert "image steerlab/steering:1 is available" in facts
    assert any("generic-receive-offload is off on eth1" in one for one in server["cautions"])
    assert not any("congestion" in one for one in client["cautions"])
    allowed = ALLOWED.read_text()
    ALLOWED.write_text("reno")
    try:
        words = looked(json=False).out
    finally:
        ALLOWED.write_text(allowed)
    assert "ready for a stack" in words
    assert "tcp_allowed_congestion_control (reno)" in words
    assert "doctor" not in namespaces(cluster)


def test_a_thousand_other_nodes_change_nothing(looked: Any, cluster: Cluster) -> None:
    api = connect(str(cluster.kubeconfig), "")
    with crowd(api, COUNT):
        assert len(cluster.kubectl("get", "nodes", "-l", LABEL, "-o", "name").split()) == COUNT
        found = looked().json
        assert found["missing"] == []
        assert [node["name"] for node in found["nodes"]] == ["worker1", "worker2"]
        (said,) = looked("kubernetes.clientSelector=iperf=none", code=3).json["missing"]
        assert len(said) < 300
    left = cluster.kubectl("get", "nodes", "-o", "name").split()
    assert left == ["node/worker1", "node/worker2", "node/worker3"]


def test_a_node_that_offers_no_sysctl_lacks_it_for_rfs_alone(looked: Any) -> None:
    on_third = "kubernetes.serverSelector=kubernetes.io/hostname=worker3"
    said = looked(on_third, code=3).json["missing"]
    (missing,) = said
    assert missing.startswith("worker3: ")
    assert "rps_sock_flow_entries" in missing
    assert looked(on_third, "configuration=rps").json["missing"] == []


def test_an_image_that_cannot_be_pulled_is_named(looked: Any, cluster: Cluster) -> None:
    absent = json.dumps({"iperf3": "steerlab/iperf3:1", "steering": "registry.invalid/absent:1"})
    (said,) = looked(f"kubernetes.images={absent}", code=3).json["missing"]
    assert said.startswith("worker1: Deployment agent-worker1 with image registry.invalid/absent:1")
    assert "ErrImage" in said or "ImagePullBackOff" in said
    assert "docker/build" in said
    assert "doctor" not in namespaces(cluster)


def test_labels_and_rights_that_are_missing_are_named(looked: Any, tmp_path: Path) -> None:
    (said,) = looked("kubernetes.clientSelector=iperf=none", code=3).json["missing"]
    assert "no node has the label iperf=none" in said
    certificates.certificate("viewer", "/CN=viewer")
    kubeconfig = tmp_path / "viewer.conf"
    kubeconfig.write_text(certificates.kubeconfig("viewer"))
    missing = looked(f"kubernetes.kubeconfig={kubeconfig}", code=3).json["missing"]
    assert "the right to create pods/exec, in all namespaces" in missing
    assert "the right to patch deployments.apps, in all namespaces" in missing
    fewer = looked(f"kubernetes.kubeconfig={kubeconfig}", "kubernetes.nodeAccess=ssh", code=3).json[
        "missing"
    ]
    assert not any("jobs" in one for one in fewer)


def test_an_api_server_that_is_not_there_is_said(looked: Any, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "nowhere.conf"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "x", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "current-context": "x",
            }
        )
    )
    (said,) = looked(f"kubernetes.kubeconfig={kubeconfig}", code=3).json["missing"]
    assert "the API server does not answer" in said
