"""Nodes that are steered over OpenSSH: the same as with Jobs, without any privileged pod."""

from __future__ import annotations

import json
from pathlib import Path

import images
import pytest
from lab_project import Answer, Project
from rig import ssh
from rig.cluster import Cluster

STACK = "rfs-2"
TABLE = "/proc/sys/net/core/rps_sock_flow_entries"

Access = dict[str, str | int]


@pytest.fixture(scope="module")
def access(cluster: Cluster) -> Access:
    return ssh.serve(cluster.nodes["worker1"])


def up(project: Project, cluster: Cluster, access: Access, code: int = 0) -> Answer:
    return project.up(
        STACK, "target=kubernetes", images.KEY, f"kubernetes.kubeconfig={cluster.kubeconfig}", "kubernetes.nodeAccess=ssh",
        f"kubernetes.ssh={json.dumps(access)}", "duration=1", "omit=0", code=code,
    )  # fmt: skip


def test_a_state_over_ssh(project: Project, cluster: Cluster, access: Access) -> None:
    before = cluster.nodes["worker1"].exec("cat", TABLE)
    answer = up(project, cluster, access)
    names = {step["name"] for step in answer.json["changes"]}
    assert {"steer-worker1", "measurement"} <= names
    assert not any("agent" in name or "guard" in name for name in names)
    record = project.last(STACK)
    assert len(record["cores"]) >= 2
    assert cluster.nodes["worker1"].exec("cat", TABLE).strip() == "32768"
    state = (project.folder / f".pulumi/stacks/steerlab/{STACK}.json").read_text()
    assert Path(str(access["identityFile"])).read_text().splitlines()[1] not in state

    again = up(project, cluster, access).json
    assert again["changes"] == []
    project.destroy(STACK)
    assert cluster.nodes["worker1"].exec("cat", TABLE) == before


def test_a_wrong_host_key_ends_with_3_and_touches_nothing(
    project: Project, cluster: Cluster, access: Access, tmp_path: Path
) -> None:
    other = tmp_path / "known"
    key = Path(str(access["identityFile"]) + ".pub").read_text().split()[1]
    address = cluster.nodes["worker1"].layout.address
    other.write_text(f"[{address}]:{access['port']} ssh-ed25519 {key}\n")
    wrong = {**access, "knownHostsFile": str(other)}
    said = up(project, cluster, wrong, code=3).err
    assert "Host key verification failed" in said
    assert "steerlab" not in cluster.kubectl("get", "namespaces")


def test_an_unreachable_node_ends_with_3(
    project: Project, cluster: Cluster, access: Access
) -> None:
    said = up(project, cluster, {**access, "port": 2}, code=3).err
    assert "ssh to" in said
