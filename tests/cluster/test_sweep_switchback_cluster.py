"""A sweep by switchback on a real cluster: its records, and its nodes, however an episode ends."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import images
import pytest
from asked import where
from lab_project import RESUME, Project
from rig import ssh
from rig.cluster import ALLOWED, Cluster
from steer_tree import eventually
from test_stack import values

from experiments.run import episodes
from experiments.targets.contract import EpisodeLost, WindowResult
from experiments.targets.kubernetes import target
from experiments.validity import Cause
from infra import config
from infra.kubernetes.measurement import ClusterMeasurement
from infra.traffic.contract import Values

TABLE = "/proc/sys/net/core/rps_sock_flow_entries"
# Seconds in which a sweep on a cluster reaches an episode.
STARTING = 60


def sweep(cluster: Cluster, *more: str) -> tuple[str, ...]:
    return (
        "sweep", "--method", "switchback", "--target", "kubernetes", "-c", images.KEY,
        "-c", f"kubernetes.kubeconfig={cluster.kubeconfig}", "--configurations", "baseline,rps,rfs-plus",
        "--seed", "7", "--engine", "embedded", "--out", "out", *more,
    )  # fmt: skip


def in_window(cluster: Cluster) -> bool:
    """Whether an episode is in its window of rfs-plus."""
    return cluster.nodes["worker1"].exec("cat", TABLE).strip() == "32768"


def test_a_sweep_that_is_killed_and_loses_a_pod_ends_complete(
    project: Project, cluster: Cluster
) -> None:
    before = values(cluster)
    process = project.start(*sweep(cluster, "--replicas", "1,2", "--runs", "2"))
    eventually(lambda: in_window(cluster), STARTING)
    process.kill()
    process.communicate()
    # the agent restores when the connection of its driver is lost, long before the lease ends
    eventually(lambda: values(cluster) == before, 10)

    process = project.start(*RESUME, "--events", "events.jsonl")
    eventually(lambda: sum(project.orders().values()) >= 3, STARTING)
    eventually(lambda: in_window(cluster), STARTING)
    (namespace,) = (
        name
        for name in cluster.kubectl("get", "namespaces", "-o", "name").split()
        if "steerlab-sweep" in name and not name.endswith("-steering")
    )
    cluster.kubectl(
        "delete", "pod", "-n", namespace.removeprefix("namespace/"), "-l", "steerlab/role=server,steerlab/pair=1",
        "--grace-period=0", "--force",
    )  # fmt: skip
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    spoiled = [record for record in project.records() if not record["valid"]]
    assert spoiled
    assert {cause for record in spoiled for cause in record["causes"]} & {"topology", "traffic"}
    if project.orders() != Counter(range(12)):  # the new pod was not steered yet
        project.run(*RESUME)
    assert project.orders() == Counter(range(12))
    for record in project.valid():
        assert (record["method"], record["congestion"]) == ("switchback", "cubic")
        assert record["window"] == pytest.approx(0.4, abs=0.03)
        assert {core["node"] for core in record["cores"]} == {"worker1"}
        flows = {queue["rps_flow_cnt"] for queue in record["steering_before"]["queues"]}
        assert flows == ({32768} if record["configuration"] == "rfs-plus" else {0})
        masks = {q["rps_cpus"] for q in record["steering_before"]["queues"] if q["role"] == "nic"}
        assert (masks != {"0"}) == (record["configuration"] == "rps")
    assert "switchback" in (project.folder / "out/report.md").read_text()
    assert "steerlab" not in cluster.kubectl("get", "namespaces")
    assert values(cluster) == before


def test_an_agent_that_is_deleted_in_an_episode_restores_its_node(
    project: Project, cluster: Cluster
) -> None:
    """The episode lasts longer than the kubelet waits for the end of a pod."""
    stack, before = "baseline-1", values(cluster)
    project.up(stack, *where(cluster), "runs=0")
    steered = values(cluster)
    with ThreadPoolExecutor() as pool:
        episode = pool.submit(switched, cluster, stack, 100)
        eventually(lambda: values(cluster) != steered, STARTING)
        cluster.kubectl(
            "delete", "pod", "-n", f"steerlab-{stack}-steering", "-l", "steerlab/role=agent", "--wait=false"
        )  # fmt: skip
        eventually(lambda: values(cluster) == before, 20)
        with pytest.raises(EpisodeLost, match="interrupted by SIGTERM"):
            episode.result()


def test_an_episode_over_ssh(project: Project, cluster: Cluster) -> None:
    access = {
        "kubernetes.nodeAccess": "ssh",
        "kubernetes.ssh": json.dumps(ssh.serve(cluster.nodes["worker1"])),
    }
    stack = "baseline-1"
    project.up(stack, *where(cluster), *map("=".join, access.items()), "runs=0")
    steered = values(cluster)
    for window in switched(cluster, stack, 0.4, access):
        causes = {reason.cause for reason in window.traffic.reasons}
        assert causes <= {Cause.WINDOW}  # a busy machine may be late
        (pair,) = window.traffic.results
        assert isinstance(pair.outcome, Values)
        assert pair.outcome.numbers["bitrate_mbps"] > 1
    assert values(cluster) == steered

    # a client that ends at once has the last word, whatever the agent says
    allowed = ALLOWED.read_text()
    ALLOWED.write_text("reno")
    try:
        spoiled = switched(cluster, stack, 0.4, {**access, "traffic": "stream:congestion=cubic"})
    finally:
        ALLOWED.write_text(allowed)
    for window in spoiled:
        assert any("TCP_CONGESTION" in reason.text for reason in window.traffic.reasons)


def switched(
    cluster: Cluster, stack: str, seconds: float, more: Mapping[str, str] = {}
) -> Sequence[WindowResult]:
    """The windows of rfs-plus and baseline, of so many seconds each, on a stack that is up."""
    whats = [
        measured(cluster, stack, {**more, "configuration": name})
        for name in ("rfs-plus", "baseline")
    ]
    timing = episodes.Timing(seconds, 0.2)

    def schedule(plans: Mapping[str, Any], receivers: Sequence[int | str]) -> dict[str, Any]:
        return episodes.schedule(plans, receivers, timing)

    return target.backend(whats[1]).switch(1, whats, schedule, timing.traffic(2))


def measured(cluster: Cluster, stack: str, more: Mapping[str, str]) -> ClusterMeasurement:
    """The measurement of a stack, with settings of its own."""
    key, value = images.KEY.split("=", 1)
    given = {"target": "kubernetes", "kubernetes.kubeconfig": str(cluster.kubeconfig), key: value}
    state = config.state(stack, {**given, **more})
    return target.measurement(state, target.nodes(state))
