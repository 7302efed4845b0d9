"""Rollouts on a real cluster: a worse plan ends at the canary, a good one reaches all, kill -9 in between."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import images
import pytest
from lab_project import Project
from rig.cluster import Cluster
from rig.node import Node

WORKERS = ("worker1", "worker2", "worker3")
QUEUE = "/sys/class/net/eth1/queues/rx-0/rps_cpus"
BUDGET = "/proc/sys/net/core/netdev_budget"
HOME = "/var/lib/steerlab"
# each softirq receives one packet, and counts as one that ran out of budget
CHOKED = "choked: {machine: {netdev_budget: 1}}\n"
FLOOD = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    end.sendto(bytes(1000), (sys.argv[1], 9999))
"""


@pytest.fixture(autouse=True)
def nodes(cluster: Cluster, project: Project) -> Iterator[dict[str, Node]]:
    """The workers, labelled; the rollout is restored in any case."""
    cluster.kubectl("label", "node", *WORKERS, "pool=edge")
    yield {name: cluster.nodes[name] for name in WORKERS}
    project.run("nodes", "restore", *reach(cluster))
    cluster.kubectl("label", "node", *WORKERS, "pool-")
    assert "steerlab-rollout" not in cluster.kubectl("get", "namespaces")


def reach(cluster: Cluster) -> tuple[str, ...]:
    return ("--selector", "pool=edge", "--kubeconfig", str(cluster.kubeconfig), "--json")


def rollout(cluster: Cluster, configuration: str, *more: str) -> tuple[str, ...]:
    image = images.IMAGES["steering"]
    words = ("nodes", "rollout", configuration, "--image", image, "--batch", "2")
    return (*words, *reach(cluster), *more)


def masks(nodes: dict[str, Node]) -> dict[str, int]:
    return {name: int(node.exec("cat", QUEUE).replace(",", ""), 16) for name, node in nodes.items()}


def logged(project: Project) -> list[dict[str, Any]]:
    file = project.folder / "results/audit.jsonl"
    return [json.loads(line) for line in file.open()] if file.exists() else []


def new_lines(project: Project, earlier: dict[str, int]) -> list[dict[str, Any]]:
    """The lines since each node's log had so many."""
    return [line for line in logged(project) if line["n"] > earlier[line["node"]]]


def log_of(node: Node) -> list[dict[str, Any]]:
    lines = node.exec("sh", "-c", f"cat {HOME}/audit.jsonl || true").splitlines()
    return [json.loads(line) for line in lines if line]


def test_a_worse_plan_is_restored_on_the_canary_and_touches_no_other_node(
    project: Project, cluster: Cluster, nodes: dict[str, Node]
) -> None:
    (project.folder / "own.yaml").write_text(CHOKED)
    two = ("--selector", "kubernetes.io/hostname in (worker1,worker2)")
    before, budget = masks(nodes), nodes["worker1"].exec("cat", BUDGET)
    flood = nodes["worker2"].popen(
        "/usr/bin/python3", "-c", FLOOD, nodes["worker1"].layout.address,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        words = rollout(cluster, "choked", "--own", "own.yaml", "--gate", "--seconds", "4", *two)
        answer = project.run(*words, code=1).json
    finally:
        flood.kill()
        flood.wait()
    assert answer["kept"] == []
    assert answer["untouched"] == ["worker2"]
    assert "run out of budget" in answer["failed"]["worker1"]
    assert (masks(nodes), nodes["worker1"].exec("cat", BUDGET)) == (before, budget)
    writes = [line for line in logged(project) if "knob" in line]
    assert {line["node"] for line in writes} == {"worker1"}
    assert ("netdev_budget", budget.strip(), "1") in {
        (line["knob"], line["old"], line["new"]) for line in writes
    }
    assert log_of(nodes["worker1"]) == logged(project)


def test_a_good_plan_reaches_all_nodes_also_after_a_kill(
    project: Project, cluster: Cluster, nodes: dict[str, Node]
) -> None:
    before = masks(nodes)
    earlier = {name: len(log_of(node)) for name, node in nodes.items()}
    killed = project.start(*rollout(cluster, "rps", "--gate", "--seconds", "5"))
    end = time.monotonic() + 90
    while not new_lines(project, earlier):
        assert killed.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    killed.kill()
    killed.wait()
    assert [node for node, mask in masks(nodes).items() if mask] == ["worker1"]
    plan = project.run(*rollout(cluster, "rps", "--plan")).json
    assert plan["trials"] == ["worker1"]
    assert any(row["knob"] == "rps_cpus" for row in plan["changes"]["worker2"])
    assert [node for node, mask in masks(nodes).items() if mask] == ["worker1"]

    answer = project.run(*rollout(cluster, "rps")).json
    assert sorted(answer["kept"]) == [*WORKERS]
    assert all(masks(nodes).values())
    new = new_lines(project, earlier)
    steps = [(line["node"], line["step"]) for line in new if "step" in line]
    assert steps[:4] == [("worker1", step) for step in ("try", "undo", "try", "keep")]
    tries = [index for index, (_, step) in enumerate(steps) if step == "try"]
    assert max(tries) < steps.index(("worker2", "keep"))  # a batch of both others
    events = cluster.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")
    assert "SteeringKept" in events

    assert project.run(*rollout(cluster, "rps")).json["has"] == [*WORKERS]
    restored = project.run("nodes", "restore", *reach(cluster)).json
    assert (sorted(restored["restored"]), restored["failed"]) == ([*WORKERS], {})
    assert masks(nodes) == before
    lines = logged(project)
    for name, node in nodes.items():
        assert log_of(node)[-1] == [line for line in lines if line["node"] == name][-1]
        of_node = [line for line in lines if line["node"] == name]
        writes = [(line["knob"], line["where"]) for line in of_node if "knob" in line]
        assert ("rps_cpus", "eth1 rx-0 in this namespace") in writes
