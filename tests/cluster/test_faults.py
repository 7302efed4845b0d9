"""What goes wrong on a cluster: each has clear words and its exit code, and leaves no node steered."""

from __future__ import annotations

import json
import time
from pathlib import Path

import images
from lab_project import Project
from rig import certificates
from rig.cluster import Cluster

STACK = "rfs-2"
TABLE = "/proc/sys/net/core/rps_sock_flow_entries"


def words(cluster: Cluster, *more: str, stack: str = STACK) -> list[str]:
    changes = [
        "target=kubernetes",
        images.KEY,
        f"kubernetes.kubeconfig={cluster.kubeconfig}",
        "runs=0",
        *more,
    ]
    options = [word for change in changes for word in ("-c", change)]
    return ["up", "-s", stack, "--engine", "embedded", *options, "--json"]


def table(cluster: Cluster) -> str:
    return cluster.nodes["worker1"].exec("cat", TABLE).strip()


def test_a_missing_label_ends_with_3(project: Project, cluster: Cluster) -> None:
    said = project.run(*words(cluster, "kubernetes.serverSelector=iperf=none"), code=3).err
    assert "no node has the label iperf=none" in said
    assert "worker1, worker2" in said


def test_a_user_without_rights_ends_with_3(
    project: Project, cluster: Cluster, tmp_path: Path
) -> None:
    certificates.certificate("nobody", "/CN=nobody")
    kubeconfig = tmp_path / "nobody.conf"
    kubeconfig.write_text(certificates.kubeconfig("nobody"))
    said = project.run(*words(cluster, f"kubernetes.kubeconfig={kubeconfig}"), code=3).err
    assert "cannot list resource" in said
    assert "doctor --target kubernetes" in said


def test_no_cluster_ends_with_3(project: Project, cluster: Cluster, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.conf"
    nowhere.write_text(cluster.kubeconfig.read_text().replace(":6443", ":6444"))
    said = project.run(*words(cluster, f"kubernetes.kubeconfig={nowhere}"), code=3).err
    assert "does not answer" in said
    assert project.run(*words(cluster, "kubernetes.context=other"), code=3).err.count("other")


def test_a_second_stack_is_refused_with_the_owner_s_name(
    project: Project, cluster: Cluster
) -> None:
    project.run(*words(cluster))
    said = project.run(*words(cluster, stack="rps-2"), code=3).err
    assert f"is steered by owner {STACK}/worker1" in said
    project.run("destroy", "-s", "rps-2", "--engine", "embedded")
    assert table(cluster) == "32768"  # still the first stack's


def test_an_api_server_that_is_away_for_ten_seconds_is_waited_for(
    project: Project, cluster: Cluster
) -> None:
    process = project.start(*words(cluster))
    time.sleep(3)
    with cluster.api_away():
        time.sleep(10)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["counts"]["create"] > 10


def test_a_server_killed_during_a_run_makes_it_invalid(project: Project, cluster: Cluster) -> None:
    project.run(*words(cluster, "duration=15"))
    process = project.start("measure", "-s", STACK)
    time.sleep(8)
    selector = "steerlab/role=server,steerlab/pair=1"
    cluster.kubectl(
        "delete", "pod", "-n", f"steerlab-{STACK}", "-l", selector, "--grace-period=0", "--force"
    )
    _, err = process.communicate(timeout=120)
    # tried again with the new pod, whose steering is not there yet
    assert process.returncode == 1
    assert "./steerlab up -s" in err
