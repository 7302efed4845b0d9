"""Restoring the nodes of a cluster: by a Job, and nodes that are not Ready or not there any more."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster, serving

from experiments.targets.kubernetes import agents
from infra.errors import PrerequisiteMissing
from infra.kubernetes.finalizer import Finalizer
from infra.kubernetes.names import Names
from infra.settings import PodOptions, Ssh

STEERING = "steerlab-rfs-2-steering"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[FakeCluster, Finalizer]]:
    """A cluster, and one of its nodes."""
    with serving(tmp_path) as (cluster, kubeconfig):
        values: dict[str, Any] = {
            "stack": "rfs-2", "node": "s1", "hostname": "host-s1", "address": "192.0.2.1", "boot_id": "b",
            "kubeconfig": str(kubeconfig), "context": "", "image": "registry.example/agent:1", "ssh": None,
        }  # fmt: skip
        yield cluster, Finalizer(**values)


World = tuple[FakeCluster, Finalizer]


@pytest.mark.parametrize("there", [True, False])
def test_a_job_restores_a_node_and_leaves_nothing(world: World, there: bool) -> None:
    cluster, guard = world
    if there:
        cluster.add_namespace(STEERING)
    before = cluster.named("namespaces")
    assert agents.restore(guard)["restored"] == 3
    assert not cluster.named("jobs")
    assert cluster.named("namespaces") == before


def test_a_job_restores_a_node_also_without_the_secret_of_its_image(world: World) -> None:
    """The namespace may still have the copy, and the node the image."""
    cluster, guard = world
    cluster.add_namespace(STEERING)
    pods = PodOptions(image_pull_secrets=("default/gone",))
    assert agents.restore(guard.model_copy(update={"pods": pods}))["restored"] == 3


@pytest.mark.parametrize("answers", [True, False])
def test_the_agent_restores_its_node_without_a_job(
    world: World, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    cluster, guard = world
    cluster.add_namespace(STEERING)
    labels = {**Names(guard.stack).labels("agent"), "steerlab/node": "s1"}
    cluster.objects[f"/api/v1/namespaces/{STEERING}/pods/agent-s1"] = {
        "metadata": {"name": "agent-s1", "namespace": STEERING, "labels": labels},
        "status": {"phase": "Running"},
    }
    if answers:
        monkeypatch.setattr(agents, "verb", lambda _, *words: {"restored": 7, "words": words})
    answer = agents.restore(guard)
    assert answer["restored"] == (7 if answers else 3)  # of the Job
    assert bool(cluster.writes) is not answers
    if answers:
        assert answer["words"] == ("restore", "--owner", "rfs-2/s1")


def test_a_node_that_left_the_cluster_is_no_failure(world: World) -> None:
    cluster, guard = world
    del cluster.objects["/api/v1/nodes/s1"]
    before = copy.deepcopy(cluster.objects)
    answer = agents.restore(guard)
    assert answer["restored"] == 0
    assert "s1" in answer["warnings"][0]
    assert cluster.objects == before
    assert not cluster.writes


@pytest.mark.parametrize("ready", ["Unknown", "False"])
def test_a_node_that_is_not_ready_is_named_at_once(world: World, ready: str) -> None:
    cluster, guard = world
    cluster.add_node("s1", "server", ready=ready)
    with pytest.raises(PrerequisiteMissing, match="kubectl delete node s1"):
        agents.restore(guard)
    assert not cluster.writes


@pytest.mark.parametrize("there", [True, False])
def test_over_ssh_a_node_is_tried_first(
    world: World, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def unreachable(*_: object) -> None:
        raise PrerequisiteMissing("ssh to 192.0.2.1: No route to host")

    cluster, guard = world
    monkeypatch.setattr(agents, "verb", unreachable)
    over = guard.model_copy(update={"ssh": Ssh()})
    if there:
        with pytest.raises(PrerequisiteMissing, match="No route"):
            agents.restore(over)
    else:
        del cluster.objects["/api/v1/nodes/s1"]
        assert "s1" in agents.restore(over)["warnings"][0]
