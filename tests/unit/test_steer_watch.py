"""`watch`: the lease's watchdog where none can be forked; and pods that are named by their uid."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from steer_tree import Tree, eventually, plan, rule, steer

OWNER = "rps-4/worker1"
POD = "0a1b2c3d-0000-4000-8000-0123456789ab"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path, sock_flow_entries=4096)
    tree.device("eth1", queues=2, mask="2", flows=64)
    return tree


@pytest.fixture
def watch(tree: Tree) -> Iterator[subprocess.Popen[str]]:
    """A watch that has said that it stands."""
    words = tree.command("watch", "--owner", OWNER)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        eventually(lambda: steer.standing_watch(tree.machine().store, OWNER))
        yield process
        process.kill()


def leased(seconds: int | None) -> dict:
    rules = rule("nic", "eth1", cpus="all", flows=32768)
    return plan(rules, owner=OWNER, sock_flow_entries=32768, lease_seconds=seconds)


def test_a_lease_is_the_watch_s_and_not_a_fork_s(tree: Tree, watch: subprocess.Popen[str]) -> None:
    before = tree.values()
    for _ in range(2):  # a second apply does not end it
        assert tree.run("apply", plan=leased(600)).returncode == 0
        assert tree.saved(OWNER)["lease"]["pid"] == watch.pid
    assert tree.values() != before
    assert watch.poll() is None
    assert tree.run("restore", "--owner", OWNER).returncode == 0
    assert tree.values() == before
    assert watch.poll() is None


def test_a_lapsed_lease_is_restored_and_the_watch_goes_on(
    tree: Tree, watch: subprocess.Popen[str]
) -> None:
    before = tree.values()
    tree.run("apply", plan=leased(1))
    assert tree.values() != before
    eventually(lambda: tree.values() == before)
    assert watch.poll() is None


@pytest.mark.parametrize("seconds", [None, 600])
def test_its_end_restores(tree: Tree, watch: subprocess.Popen[str], seconds: int | None) -> None:
    before = tree.values()
    tree.run("apply", plan=leased(seconds))
    watch.send_signal(signal.SIGTERM)
    said, _ = watch.communicate(timeout=15)
    assert watch.returncode == 0
    assert json.loads(said)["owner"] == OWNER
    assert tree.values() == before
    assert list((tree.root / "run/steerlab").glob("*.watch")) == []


def test_a_new_watch_takes_over_from_a_killed_one(tree: Tree, watch: subprocess.Popen[str]) -> None:
    tree.run("apply", plan=leased(600))
    watch.kill()
    watch.wait()
    assert "verify --renew" in tree.run("verify", plan=leased(600)).stdout
    words = tree.command("watch", "--owner", OWNER)
    with subprocess.Popen(words, stdout=subprocess.PIPE) as second:
        eventually(lambda: tree.saved(OWNER)["lease"]["pid"] == second.pid)
        second.terminate()


@pytest.mark.usefixtures("watch")
def test_an_owner_has_one_watch(tree: Tree) -> None:
    done = tree.run("watch", "--owner", OWNER)
    assert done.returncode == 3
    assert "already" in done.stderr


@pytest.mark.parametrize(
    "cgroup",
    [
        f"4:memory:/kubepods/burstable/pod{POD}/abc",
        f"0::/../kubepods-besteffort-pod{POD.replace('-', '_')}.slice/cri-containerd-abc.scope",
    ],
)
def test_a_pod_is_found_by_its_uid(tree: Tree, cgroup: str) -> None:
    tree.namespace("/proc/77/ns/net", cookie=9)
    tree.write("proc/77/cgroup", cgroup)
    tree.device("eth0", "/proc/77/ns/net")
    wanted = plan(rule("pod", "eth0", cpus="3", namespace=f"pod:{POD}", pod="server-1"))
    done = tree.run("apply", plan=wanted)
    assert done.returncode == 0, done.stderr
    (queue,) = json.loads(done.stdout)["queues"]
    assert (queue["namespace"], queue["pod"], queue["rps_cpus"]) == (f"pod:{POD}", "server-1", "3")
    # another process of the pod will do
    (tree.root / "proc/77/cgroup").unlink()
    (tree.root / "proc/77").rename(tree.root / "proc/78")
    tree.write("proc/78/cgroup", cgroup)
    assert tree.run("verify", plan=wanted).returncode == 0
    assert tree.run("restore", "--owner", wanted["owner"]).returncode == 0


def test_a_pod_that_is_not_here_is_named(tree: Tree) -> None:
    done = tree.run("apply", plan=plan(rule("pod", "eth0", namespace=f"pod:{POD}")))
    assert (done.returncode, f"no namespace pod:{POD}" in done.stderr) == (3, True)
    done = tree.run("apply", plan=plan(rule("pod", "eth0", namespace="pod:*")))
    assert (done.returncode, "the uid of a pod" in done.stderr) == (2, True)
