"""One stack on a real cluster, from nothing to nothing: pods, steering, records, repair."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from asked import where
from lab_project import Answer, Project
from rig.cluster import Cluster
from rig.layout import API

STACK = "rfs-plus-4"
STEERING = f"steerlab-{STACK}-steering"


def operations(answer: Answer) -> dict[str, str]:
    """What happened to each resource that is something of the cluster or of its nodes."""
    own = ("kubernetes:", "command:")
    return {
        step["name"]: step["operation"]
        for step in answer.json["changes"]
        if step["urn"].split("::")[2].rpartition("$")[2].startswith(own)
    }


def values(cluster: Cluster) -> dict[str, str]:
    """Every value of steering that worker1 shows, of its own devices and the machine."""
    script = "grep -H . /sys/class/net/*/queues/rx-*/rps_* /proc/sys/net/core/rps_sock_flow_entries"
    rows = cluster.nodes["worker1"].exec("sh", "-c", script).splitlines()
    pairs = (row.partition(":") for row in rows)
    return {name: value for name, _, value in pairs if "/cali" not in name and "/lo/" not in name}


def received(cluster: Cluster) -> int:
    path = "/sys/class/net/vxlan.calico/statistics/rx_bytes"
    return int(cluster.nodes["worker1"].exec("cat", path))


@pytest.mark.parametrize("engine", ["embedded", pytest.param("pulumi", marks=pytest.mark.cli)])
def test_a_state_from_nothing_to_nothing(project: Project, cluster: Cluster, engine: str) -> None:
    project = dataclasses.replace(project, engine=engine)

    def up(*changes: str) -> dict[str, str]:
        return operations(project.up(STACK, *changes))

    before = values(cluster)
    overlay_before = received(cluster)
    first = up(*where(cluster), "duration=2")
    roles = ("server", "client", "service")
    pairs = {f"iperf-{role}-{i}" for role in roles for i in (1, 2, 3, 4)}
    rooms = {f"steerlab-{STACK}", STEERING, "steering"}
    on_node = {"agent-worker1", "guard-worker1", "steer-worker1"}
    assert first == dict.fromkeys(
        pairs | rooms | on_node | {"claim", "measurement", "ownership"}, "create"
    )

    record = project.last(STACK)
    rates = [pair["values"]["bitrate_mbps"] for pair in record["pairs"]]
    assert len(rates) == 4
    assert all(rates)
    # all of it came through the overlay
    assert received(cluster) - overlay_before > sum(rates) * 1e6 / 8 * 2
    steered = {
        (q["role"], q["device"], q["rps_flow_cnt"]) for q in record["steering_before"]["queues"]
    }
    assert {
        ("nic", "eth1", 32768),
        ("overlay", "vxlan.calico", 32768),
        ("pod", "eth0", 32768),
    } <= steered
    assert {core["node"] for core in record["cores"]} == {"worker1"}
    shown = project.run("outputs", "-s", STACK, "--json").json
    assert shown["cluster"] == {"context": "rig", "server": API}
    assert shown["nodes"] == {"server": ["worker1"], "client": ["worker2"]}
    assert shown["namespaces"] == [f"steerlab-{STACK}", STEERING]
    assert f"-s {STACK} -c kubernetes.kubeconfig={cluster.kubeconfig}" in shown["restore"]
    left = datetime.fromisoformat(shown["lease_end"]) - datetime.now(UTC)
    assert timedelta(hours=1) < left <= timedelta(hours=2)
    now = values(cluster)
    assert now["/proc/sys/net/core/rps_sock_flow_entries"] == "32768"
    assert now["/sys/class/net/eth1/queues/rx-0/rps_flow_cnt"] == "32768"

    assert up() == {}

    more = up("replicas=8")
    new = {f"iperf-{role}-{i}" for role in roles for i in (5, 6, 7, 8)}
    again = dict.fromkeys(("steer-worker1", "measurement"), "replace")
    assert more == dict.fromkeys(new, "create") | again

    assert up("configuration=rps") == again
    assert values(cluster)["/proc/sys/net/core/rps_sock_flow_entries"] == "0"

    project.destroy(STACK)
    assert values(cluster) == before
    assert STACK not in cluster.kubectl("get", "namespaces")


@pytest.fixture
def standing(project: Project, cluster: Cluster) -> Project:
    project.up(STACK, *where(cluster), "runs=0")
    return project


def test_what_is_deleted_by_hand_is_found_and_made_anew(
    standing: Project, cluster: Cluster
) -> None:
    cluster.kubectl("delete", "pod", "-n", f"steerlab-{STACK}", "-l", "steerlab/pair=2")
    assert operations(standing.up(STACK)) == {"steer-worker1": "replace"}
    cluster.kubectl("delete", "job", "-n", STEERING, "steer-worker1")
    assert operations(standing.up(STACK)) == {"steer-worker1": "replace"}
    cluster.nodes["worker1"].exec("sh", "-c", "echo 1 > /sys/class/net/eth1/queues/rx-0/rps_cpus")
    assert operations(standing.up(STACK)) == {"steer-worker1": "replace"}
    assert operations(standing.up(STACK)) == {}


def test_a_deleted_namespace_leaves_no_node_steered(project: Project, cluster: Cluster) -> None:
    before = values(cluster)
    project.up(STACK, *where(cluster), "runs=0")
    assert values(cluster) != before
    cluster.kubectl("delete", "namespace", STEERING)
    assert values(cluster) == before
    project.destroy(STACK)
    assert "steerlab" not in cluster.kubectl("get", "namespaces")


@pytest.mark.usefixtures("standing")
def test_measured_pods_pass_the_restricted_level(cluster: Cluster) -> None:
    level = "pod-security.kubernetes.io/enforce=restricted"
    said = cluster.kubectl(
        "label", "--dry-run=server", "--overwrite", "namespace", f"steerlab-{STACK}", level
    )
    assert "Warning" not in said
    token = cluster.kubectl("get", "pods", "-n", f"steerlab-{STACK}", "-o", "json")
    for pod in json.loads(token)["items"]:
        assert not any(
            "serviceaccount" in str(m) for m in pod["spec"]["containers"][0]["volumeMounts"]
        )
