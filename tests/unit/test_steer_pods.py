"""Pods by their uid: only what a kubelet has made is one, and no guess is steered."""

from __future__ import annotations

from pathlib import Path

import pytest
from steer_tree import Tree, plan, rule, steer

UID = "12345678-1234-1234-1234-123456789abc"
SLICE = UID.replace("-", "_")
OTHER = "0a1b2c3d-0000-4000-8000-0123456789ab"
PLAN = plan(rule("pod", "eth0", cpus="all", namespace=f"pod:{UID}"))
ID = "a" * 64


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def process(tree: Tree, pid: int, cgroup: str, cookie: int) -> None:
    tree.namespace(f"/proc/{pid}/ns/net", cookie)
    tree.device("eth0", f"/proc/{pid}/ns/net")
    tree.write(f"proc/{pid}/cgroup", f"0::{cgroup}")


@pytest.mark.parametrize(
    "cgroup",
    [
        f"/kubepods/burstable/pod{UID}/{ID}",
        f"/kubepods/pod{UID}",
        f"/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/x.scope",
        f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
        f"kubelet-kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{ID}.scope",
        f"/kubelet/kubepods/besteffort/pod{UID}/{ID}",
        f"/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE}.slice/x",
        f"/system.slice/docker-{ID}.scope/kubelet/kubepods/pod{UID}/{ID}",
        f"/k3s/kubepods/pod{UID}/{ID}",
        f"/../../../kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/x.scope",
        f"/kubepods.slice/kubepods-pod{SLICE}.slice/crio-{ID}.scope",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/crio-{ID}.scope/container",
        f"/kubepods/besteffort/pod{UID}/crio-{ID}",
        f"/../../pod{UID}/{ID}",
        f"/../../../../kubepods.slice/kubepods-pod{SLICE}.slice/x",
    ],
)
def test_a_kubelets_pod_is_found(tree: Tree, cgroup: str) -> None:
    process(tree, 100, cgroup, cookie=1)
    assert len(tree.apply(PLAN)["queues"]) == 1


@pytest.mark.parametrize(
    "cgroup",
    [
        f"/user.slice/user-1000.slice/user@1000.service/app.slice/pod{UID}",
        f"/user.slice/user-1000.slice/user@1000.service/kubepods/pod{UID}/{ID}",
        f"/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-pod{SLICE}.slice",
        f"/../../user.slice/user-1000.slice/user@1000.service/pod{UID}",
        f"/kubepods/pod{OTHER}/{ID}/kubepods/pod{UID}/{ID}",
        f"/system.slice/some.service/kubepods/pod{UID}",
        f"/lxc.payload.x/kubepods/pod{UID}",
        f"/pod{UID}/{ID}",
    ],
)
def test_a_cgroup_that_anybody_made_is_no_pod(tree: Tree, cgroup: str) -> None:
    process(tree, 200, cgroup, cookie=7)
    with pytest.raises(steer.SteerError) as refusal:
        tree.apply(PLAN)
    assert refusal.value.status == steer.CANNOT
    process(tree, 100, f"/kubepods/pod{UID}/{ID}", cookie=1)
    tree.apply(PLAN)
    assert tree.queue("eth0", namespace="/proc/100/ns/net").joinpath("rps_cpus").read_text() == (
        "3\n"
    )


def test_processes_that_disagree_are_named_and_not_steered(tree: Tree) -> None:
    process(tree, 100, f"/kubepods/pod{UID}/{ID}", cookie=1)
    process(tree, 200, f"/kubepods/pod{UID}/b", cookie=2)
    stamps = tree.stamps()
    with pytest.raises(steer.SteerError, match=r"/proc/100/ns/net.*/proc/200/ns/net") as refusal:
        tree.apply(PLAN)
    assert refusal.value.status == steer.CANNOT
    assert tree.stamps() == stamps


def test_a_container_in_a_container_says_nothing_of_its_pod(tree: Tree) -> None:
    process(tree, 100, f"/kubepods/pod{UID}/{ID}/docker/b", cookie=2)
    process(tree, 200, f"/kubepods/pod{UID}/{ID}", cookie=1)
    tree.apply(PLAN)
    assert tree.queue("eth0", namespace="/proc/200/ns/net").joinpath("rps_cpus").read_text() == (
        "3\n"
    )


@pytest.mark.parametrize(
    ("pod", "scope"),
    [(f"kubepods.slice/kubepods-pod{SLICE}.slice", ".scope"), (f"kubepods/pod{UID}", "")],
)
def test_the_monitor_of_crio_is_none_of_a_pods_processes(tree: Tree, pod: str, scope: str) -> None:
    """With `conmon_cgroup = "pod"`, as on OpenShift; crun keeps the container in a cgroup of its own."""
    tree.namespace("/proc/self/ns/net", 5)
    process(tree, 100, f"/{pod}/crio-conmon-{ID}{scope}", cookie=5)
    process(tree, 200, f"/{pod}/crio-{ID}{scope}/container", cookie=1)
    process(tree, 300, f"/{pod}/crio-{ID}{scope}/container/nested", cookie=2)
    tree.apply(PLAN)
    assert tree.queue("eth0", namespace="/proc/200/ns/net").joinpath("rps_cpus").read_text() == (
        "3\n"
    )


@pytest.mark.parametrize("own", ["self", "1"])
def test_a_pod_of_the_nodes_own_namespace_is_none(tree: Tree, own: str) -> None:
    tree.namespace(f"/proc/{own}/ns/net", 5)
    process(tree, 100, f"/kubepods/pod{UID}/{ID}", cookie=5)
    with pytest.raises(steer.SteerError, match="of the node") as refusal:
        tree.apply(PLAN)
    assert refusal.value.status == steer.CANNOT


def test_what_was_steered_is_restored_where_processes_disagree(tree: Tree) -> None:
    process(tree, 100, f"/kubepods/pod{UID}/{ID}", cookie=1)
    before = tree.values()
    tree.apply(PLAN)
    process(tree, 200, f"/kubepods/pod{UID}/b", cookie=2)
    answer = tree.restore()
    assert (answer["failed"], answer["gone"]) == ([], [])
    assert {name: tree.values()[name] for name in before} == before
