"""The commands that the docs show for a cluster, in their order: images from a registry to reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import images
import pytest
import shown
from lab_project import Project, copy, typed
from rig import registry
from rig.cluster import Cluster

Shell = dict[str, str]


@pytest.fixture(scope="module")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The environment of a shell in a copy of the project; IMAGES comes with the first command."""
    name = registry.serve(cluster.nodes["master"])
    project = Project(copy(tmp_path_factory.mktemp("docs") / "project"))
    with images.builder(name) as environment:
        yield {
            **environment,
            "PATH": f"{cluster.binaries}:{os.environ['PATH']}",
            "PWD": str(project.folder),
            "PYTHONPATH": str(project.folder),
            "KUBECONFIG": str(cluster.kubeconfig),
            "REGISTRY": name,
            "ROOT": str(shown.ROOT),
            "PYTHON": sys.executable,
        }
    assert "steerlab" not in cluster.kubectl("get", "namespaces")


@pytest.mark.parametrize("line", shown.CLUSTER)
def test_a_command_of_the_docs_runs_on_a_cluster(shell: Shell, line: str) -> None:
    done = typed(shown.CLUSTER[line] or line, shell["PWD"], shell, seconds=600)
    assert done.returncode == 0, done.stdout + done.stderr
    if line.startswith("IMAGES="):
        shell["IMAGES"] = done.stdout
        assert shell["REGISTRY"] in shell["IMAGES"]
