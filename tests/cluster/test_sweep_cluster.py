"""A small sweep on a real cluster: every run valid, report written, nothing left."""

from __future__ import annotations

import images
from lab_project import Project
from rig.cluster import Cluster


def test_a_sweep_measures_reports_and_puts_back(project: Project, cluster: Cluster) -> None:
    table = ("cat", "/proc/sys/net/core/rps_sock_flow_entries")
    before = cluster.nodes["worker1"].exec(*table)
    project.run(
        "sweep", "--target", "kubernetes", "-c", images.KEY, "-c", f"kubernetes.kubeconfig={cluster.kubeconfig}",
        "--configurations", "baseline,rps,rfs-plus", "--replicas", "1,2", "--runs", "2",
        "--duration", "1", "--omit", "0", "--seed", "7", "--out", "results/mine",
        "--engine", "embedded",
    )  # fmt: skip
    folder = project.folder / "results/mine"
    records = project.valid("results/mine/records")
    assert len(records) == 12
    assert {record["target"] for record in records} == {"kubernetes"}
    assert (folder / "report.html").stat().st_size > 10_000
    assert "steerlab" not in cluster.kubectl("get", "namespaces")
    assert cluster.nodes["worker1"].exec(*table) == before
