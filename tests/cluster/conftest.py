"""A real cluster for the tests of this folder, and projects whose stacks stand on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

import images
from lab_project import Project, copy
from rig import packages
from rig.cluster import Cluster, absent, down, up

from infra import checkpoint
from infra.kubernetes import made_by


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three workers: iperf=server, iperf=client, and one that sees no sysctl of the machine."""
    packages.install(absent())
    made = up()
    try:
        made.load(*images.archives())
        yield made
    finally:
        down()


@pytest.fixture
def project(cluster: Cluster, tmp_path: Path) -> Iterator[Project]:
    """The project in a folder of its own; its stacks are destroyed."""
    assert cluster.kubeconfig.exists()
    project = Project(copy(tmp_path))
    yield project
    for process in project.started:
        if process.poll() is None:
            process.kill()
            process.wait()
    for state in (tmp_path / ".pulumi/stacks/steerlab").glob("*.json"):
        engine = made_by.recorded(checkpoint.resources(state)) or "embedded"
        project.run("destroy", "-s", state.stem, "--engine", engine)
