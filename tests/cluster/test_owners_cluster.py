"""Whose a stack is on a real cluster: one name for two users, removal without a state, a node that is gone."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import images
import pytest
from lab_project import Answer, Project, copy
from rig import components
from rig.cluster import Cluster
from rig.command import RigError, wait_until
from test_stack import values

STACK = "rfs-2"
ROOMS = (f"steerlab-{STACK}", f"steerlab-{STACK}-steering")
QUEUE = "/sys/class/net/eth1/queues/rx-0/rps_cpus"


@pytest.fixture
def colleague(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project in the folder of another user of the cluster."""
    assert cluster.kubeconfig.exists()
    project = Project(copy(tmp_path_factory.mktemp("colleague") / "project"))
    yield project
    project.run("destroy", "-s", STACK, "--engine", "embedded", code=0)


def up(project: Project, cluster: Cluster, *changes: str, code: int = 0) -> Answer:
    where = ("target=kubernetes", images.KEY, f"kubernetes.kubeconfig={cluster.kubeconfig}")
    return project.up(STACK, *where, "runs=0", *changes, code=code)


def of_stack(cluster: Cluster) -> list[str]:
    """What users decide of each object of the stack; the rest changes by itself."""
    kinds = "deployments,services,jobs,serviceaccounts,pods"
    found = []
    for room in ROOMS:
        found += json.loads(cluster.kubectl("get", kinds, "-n", room, "-o", "json"))["items"]
        found.append(json.loads(cluster.kubectl("get", "namespace", room, "-o", "json")))
    parts = ("uid", "name", "labels", "deletionTimestamp")
    return sorted(
        json.dumps([one["kind"], [one["metadata"].get(part) for part in parts], one.get("spec")])
        for one in found
    )


def test_a_second_user_of_a_name_touches_nothing(
    project: Project, cluster: Cluster, colleague: Project
) -> None:
    up(project, cluster)
    objects, steering = of_stack(cluster), values(cluster)
    said = up(colleague, cluster, code=3).err
    for words in (ROOMS[0], str(project.folder), "@", f"destroy --cluster -s {STACK}"):
        assert words in said
    assert (of_stack(cluster), values(cluster)) == (objects, steering)
    colleague.destroy(STACK)
    assert (of_stack(cluster), values(cluster)) == (objects, steering)
    assert up(project, cluster).json["changes"] == []
    project.destroy(STACK)


def test_a_stack_is_removed_from_elsewhere_without_its_state(
    project: Project, cluster: Cluster, colleague: Project
) -> None:
    before = values(cluster)
    cluster.kubectl("create", "namespace", "steerlab-mine")
    up(project, cluster)
    where = ("-c", f"kubernetes.kubeconfig={cluster.kubeconfig}")
    said = colleague.run("destroy", "--cluster", *where, code=2).err
    assert str(project.folder) in said
    assert "mine" not in said
    words = ("destroy", "--cluster", "-s", STACK, *where)
    assert "--force" in colleague.run(*words, code=2).err
    assert values(cluster) != before
    answer = colleague.run(*words, "--force", "--json").json
    assert answer["nodes"] == ["worker1"]
    assert answer["restored"] > 0
    assert values(cluster) == before
    rooms = cluster.kubectl("get", "namespaces")
    assert STACK not in rooms
    assert "steerlab-mine" in rooms
    cluster.kubectl("delete", "namespace", "steerlab-mine")

    # another stack of that name is not the one of the old state
    up(colleague, cluster)
    objects = of_stack(cluster)
    told = project.run("destroy", "-s", STACK, "--engine", "embedded", code=1).err
    assert str(colleague.folder) in told
    assert of_stack(cluster) == objects
    colleague.destroy(STACK)
    project.destroy(STACK)


def test_a_namespace_that_others_made_stays(project: Project, cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", ROOMS[0])
    assert "was not created by steerlab" in up(project, cluster, code=3).err
    project.destroy(STACK)
    assert ROOMS[0] in cluster.kubectl("get", "namespaces")
    cluster.kubectl("delete", "namespace", ROOMS[0])


@pytest.fixture
def third(cluster: Cluster) -> Iterator[str]:
    """A node that a test may remove; it comes back."""
    yield "kubernetes.serverSelector=kubernetes.io/hostname=worker3"
    try:
        cluster.nodes["worker3"].signal("kubelet", 0)
    except RigError:
        come_back(cluster)


def come_back(cluster: Cluster) -> None:
    components.start_kubelet(cluster.nodes["worker3"], cluster.binaries)
    wait_until("node worker3", lambda: "worker3" in cluster.kubectl("get", "nodes"), 60)
    cluster.kubectl("wait", "--for=condition=Ready", "node/worker3", "--timeout=90s")


def test_a_node_that_was_removed_does_not_hold_up_destroy(
    project: Project, cluster: Cluster, third: str
) -> None:
    up(project, cluster, third, "configuration=rps")
    node = cluster.nodes["worker3"]
    node.signal("kubelet", signal.SIGKILL)
    cluster.kubectl("delete", "node", "worker3")
    said = project.destroy(STACK).err
    assert "node worker3 was not restored" in said
    assert STACK not in cluster.kubectl("get", "namespaces")

    # its machine ran on here, and a stack takes up what the last one of its name left
    come_back(cluster)
    up(project, cluster, third, "configuration=rps")
    assert int(node.exec("cat", QUEUE).replace(",", ""), 16) > 0
    project.destroy(STACK)
    assert int(node.exec("cat", QUEUE).replace(",", ""), 16) == 0
