"""The embedded engine's five kinds on a real API server: from nothing, changed, failed, killed, gone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import embedded_project
import pytest
from embedded_project import done
from rig.cluster import Cluster

FIVE = """
import pulumi_kubernetes as k
from pulumi_kubernetes import apps, batch, core

cluster = k.Provider("cluster", kubeconfig="{kubeconfig}")
on = Options(provider=cluster)
def meta(name, **more):
    return {{"name": name, "namespace": "five", **more}}
def after(*needed):
    return Options(provider=cluster, depends_on=list(needed))

room = core.v1.Namespace("five", metadata={{"name": "five"}}, opts=on)
account = core.v1.ServiceAccount("account", metadata=meta("account"), opts=after(room))
labels = {{"app": "{label}"}}
def pod(command, **more):
    box = {{"name": "box", "image": "{image}", "command": command, "imagePullPolicy": "IfNotPresent"}}
    return {{"metadata": {{"labels": labels}},
            "spec": {{"containers": [box], "terminationGracePeriodSeconds": 0, **more}}}}
run = apps.v1.Deployment("run", metadata=meta("run"), opts=after(account), spec={{
    "replicas": {replicas}, "selector": {{"matchLabels": labels}},
    "template": pod(["iperf3", "--server"])}})
core.v1.Service("door", metadata=meta("door"), opts=after(run), spec={{
    "selector": labels, "ports": [{{"port": 5201}}]}})
batch.v1.Job("once", metadata=meta("once"), opts=after(run), spec={{"backoffLimit": 0,
    "template": pod(["sh", "-c", "{script}"], restartPolicy="Never")}})
"""
NAMES = {"five", "account", "run", "door", "once"}


@pytest.fixture
def project(tmp_path: Path, cluster: Cluster) -> Iterator[embedded_project.Project]:
    made = embedded_project.Project(tmp_path)
    yield made
    made.destroy()
    assert " five " not in cluster.kubectl("get", "namespaces", "--no-headers")


def program(cluster: Cluster, **changes: object) -> str:
    said: dict[str, object] = {
        "kubeconfig": cluster.kubeconfig, "image": "steerlab/iperf3:1", "replicas": 1,
        "script": "true", "label": "five",
    }  # fmt: skip
    # the project's own text is a template too
    return FIVE.format(**{**said, **changes})


def of_kinds(outcome: object) -> dict[str, str]:
    return {name: op for name, op in done(outcome).items() if name in NAMES}  # type: ignore[arg-type]


def test_five_kinds_from_nothing_to_nothing(
    project: embedded_project.Project, cluster: Cluster
) -> None:
    assert of_kinds(project.up(program(cluster))) == dict.fromkeys(NAMES, "create")
    assert of_kinds(project.up(program(cluster))) == {}
    assert cluster.kubectl("get", "serviceaccount", "-n", "five", "account", "-o", "name")

    assert of_kinds(project.up(program(cluster, replicas=2))) == {"run": "update"}
    running = cluster.kubectl("get", "pods", "-n", "five", "-l", "app=five", "-o", "name")
    assert len([pod for pod in running.split() if "/run-" in pod]) == 2

    # what the API server lets nobody change is replaced
    again = project.up(program(cluster, replicas=2, script="echo more"))
    assert of_kinds(again) == {"once": "replace"}
    other = project.up(program(cluster, replicas=2, script="echo more", label="six"))
    assert of_kinds(other) == {"once": "replace", "run": "replace", "door": "update"}

    gone = {name for name, op in done(project.destroy()).items() if op == "delete"}
    assert gone >= NAMES


def test_what_fails_says_why_and_the_next_up_mends_it(
    project: embedded_project.Project, cluster: Cluster
) -> None:
    said = project.fails(program(cluster, script="echo the disk is full >&2; exit 7"))
    assert "Job once: create failed: Job once failed: exit status 7" in said
    said = project.fails(program(cluster, replicas=-1))
    assert "run" in said
    assert "replicas" in said
    project.up(program(cluster))
    assert of_kinds(project.up(program(cluster))) == {}


RUN = "import sys; from pathlib import Path; import embedded_project as e; "


@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.0, 3.5])
def test_a_killed_run_is_mended_by_the_next(
    project: embedded_project.Project, cluster: Cluster, seconds: float, tmp_path: Path
) -> None:
    project.write(program(cluster))
    folder = json.dumps(str(tmp_path))
    code = f"{RUN} e.Project(Path({folder})).up()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=_environment(), stderr=subprocess.PIPE, text=True
    )
    while not project.checkpoint.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    project.up()
    assert of_kinds(project.up()) == {}
    assert cluster.kubectl("get", "job", "-n", "five", "once", "-o", "jsonpath={.status.succeeded}")


def _environment() -> dict[str, str]:
    import os

    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests/unit'}"}
