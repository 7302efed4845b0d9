"""A tuning on a real cluster: an answer, and nodes as before it, also after an interrupt."""

from __future__ import annotations

import signal

import images
from lab_project import Project
from rig.cluster import Cluster
from steer_tree import eventually
from test_stack import values

RESUME = ("tune", "--resume", "--engine", "embedded", "--out", "out", "--json")


def tune(cluster: Cluster, *more: str) -> tuple[str, ...]:
    return (
        "tune", "--target", "kubernetes", "-c", images.KEY, "-c", f"kubernetes.kubeconfig={cluster.kubeconfig}",
        "--configurations", "rps,rfs,rfs-plus", "--replicas", "2", "--minutes", "1", "--seed", "7",
        "--engine", "embedded", "--out", "out", *more,
    )  # fmt: skip


def test_an_interrupted_tuning_restores_the_nodes_and_ends_with_an_answer(
    project: Project, cluster: Cluster
) -> None:
    before = values(cluster)
    process = project.start(*tune(cluster))
    eventually(lambda: len([*project.folder.glob("out/race/records/*.json")]) >= 8, 120)
    process.send_signal(signal.SIGINT)
    out, complaint = process.communicate(timeout=90)
    assert process.returncode == 130, complaint
    assert out
    assert values(cluster) == before

    found = project.run(*RESUME).json
    assert values(cluster) == before
    arms = {"baseline", "rps", "rfs", "rfs-plus"}
    assert found["recommended"]["configuration"] in found["set"]
    assert set(found["set"]) <= arms
    assert found["race"]["episodes"] >= 3
    assert found["lab"] is None
    for line in found["apply"]:
        assert line.startswith("./steerlab ")
