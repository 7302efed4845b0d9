"""Clusters that refuse or limit pods and traffic: named in one sentence before a sweep, or measured as they are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from asked import doctor, where
from lab_project import Project
from rig import runtime
from rig.cluster import Cluster

STACK = "rps-plus-1"
SPACE = f"steerlab-{STACK}"
TOLERATION = {"key": "dedicated", "value": "net", "effect": "NoSchedule"}


@pytest.fixture
def tainted(cluster: Cluster) -> Iterator[None]:
    cluster.kubectl("taint", "node", "worker1", "dedicated=net:NoSchedule")
    try:
        yield
    finally:
        cluster.kubectl("taint", "node", "worker1", "dedicated-")


@pytest.mark.usefixtures("tainted")
def test_a_tainted_node_needs_a_toleration(project: Project, cluster: Cluster) -> None:
    said = project.up(STACK, *where(cluster, "duration=2"), code=3).err
    assert "node worker1 has the taint dedicated=net:NoSchedule" in said
    assert SPACE not in cluster.kubectl("get", "namespaces")
    (missing,) = doctor(project, cluster, code=3)["missing"]
    setting = missing.split("-c '")[1].partition("',")[0]
    assert json.loads(setting.partition("=")[2]) == [TOLERATION]
    project.up(STACK, *where(cluster, "duration=2", "runs=0", setting))
    project.destroy(STACK)


def test_a_cordoned_node_is_named(project: Project, cluster: Cluster) -> None:
    cluster.kubectl("cordon", "worker2")
    try:
        (missing,) = doctor(project, cluster, code=3)["missing"]
    finally:
        cluster.kubectl("uncordon", "worker2")
    assert missing == "clientSelector: node worker2 is cordoned: kubectl uncordon worker2"


LIMITS = {
    "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"},
    "spec": {"limits": [{"type": "Container", "default": {"cpu": "500m"}}]},
}  # fmt: skip
QUOTA = {
    "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": {"pods": "2"}},
}  # fmt: skip


def test_the_limit_and_the_quota_of_a_namespace(project: Project, cluster: Cluster) -> None:
    """Pods with a default limit are measured with it in the record; refused ones are named at once."""
    project.up(STACK, *where(cluster, "duration=2", "runs=0"))
    cluster.kubectl("apply", "-n", SPACE, "-f", "-", text=json.dumps(LIMITS))
    cluster.kubectl("delete", "pod", "-n", SPACE, "--all")
    project.up(STACK, "runs=1")
    record = project.last(STACK)
    assert (record["pod_cpu_limit"], record["valid"]) == ("500m", True)
    # containerd mounts /sys read-only in pods without privileges; their devices are steered from the node
    mounts = cluster.kubectl(
        "exec", "-n", SPACE, "deploy/iperf-server-1", "--", "cat", "/proc/mounts"
    )
    (sys,) = [line.split()[3] for line in mounts.splitlines() if line.split()[1] == "/sys"]
    assert "ro" in sys.split(",")
    queues = record["steering_before"]["queues"]
    assert all(row["rps_cpus"] for row in queues if row["role"] == "pod" and "rps_cpus" in row)
    assert any(row["role"] == "pod" for row in queues)

    cluster.kubectl("apply", "-n", SPACE, "-f", "-", text=json.dumps(QUOTA))
    said = project.up(STACK, "replicas=2", code=1).err
    assert "exceeded quota" in said
    assert "ResourceQuota" in said
    project.destroy(STACK)


POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: demands-a-team}
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {matchLabels: {app.kubernetes.io/name: steerlab}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  validations: [{expression: "has(object.metadata.labels) && 'team' in object.metadata.labels", message: pods need a team}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: demands-a-team}
spec: {policyName: demands-a-team, validationActions: [Deny]}
"""


@pytest.fixture
def policy(cluster: Cluster) -> Iterator[None]:
    """A policy for pods, once it is in force."""
    space = '{"metadata": {"name": "try", "labels": {"app.kubernetes.io/name": "steerlab"}}, "kind": "Namespace", "apiVersion": "v1"}'
    try:
        cluster.kubectl("apply", "-f", "-", text=space)
        cluster.kubectl("apply", "-f", "-", text=POLICY)
        for _ in range(100):
            try:
                cluster.kubectl("run", "-n", "try", "x", "--image=x", "--dry-run=server")
            except Exception as error:
                if "pods need a team" in str(error):
                    break
            time.sleep(0.2)
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", text=POLICY)
        cluster.kubectl("delete", "namespace", "try", "--ignore-not-found")


@pytest.mark.usefixtures("policy")
def test_a_policy_that_refuses_pods(project: Project, cluster: Cluster) -> None:
    missing = doctor(project, cluster, code=3)["missing"]
    assert {one.partition(": ")[0] for one in missing} == {"worker1", "worker2"}
    assert all("pods need a team" in one for one in missing)
    doctor(project, cluster, 'kubernetes.pods={"labels": {"team": "net"}}', code=0)


def test_traffic_that_a_policy_drops_is_named(project: Project, cluster: Cluster) -> None:
    """As a default-deny policy, which the CNI of the test cluster does not know, drops it."""
    rule = ("FORWARD", "-p", "tcp", "--dport", "5201", "-j", "DROP")
    node, iptables = cluster.nodes["worker1"], str(runtime.BIN / "iptables")
    node.exec(iptables, "-I", *rule)
    try:
        (missing,) = doctor(project, cluster, code=3)["missing"]
    finally:
        node.exec(iptables, "-D", *rule)
    assert missing.startswith("worker2: no traffic to pods of node worker1, port 5201")
    assert "network policies" in missing


def test_a_program_for_another_architecture_is_named(
    project: Project, cluster: Cluster, tmp_path: Path
) -> None:
    tag, foreign = "steerlab/foreign:1", b"\x7fELF of another machine"
    archive = tmp_path / "foreign.tar"
    archive.write_bytes(
        runtime.archive({"usr/bin/iperf3": foreign, "usr/bin/sh": foreign}, tag, ["iperf3"])
    )
    cluster.load(archive)
    given = f"kubernetes.images={json.dumps({**images.IMAGES, 'iperf3': tag})}"
    missing = doctor(project, cluster, given, code=3)["missing"]
    assert {one.partition(": ")[0] for one in missing} == {"worker1", "worker2"}
    assert all("exec format error" in one and "architecture" in one for one in missing)
