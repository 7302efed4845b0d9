"""Every manifest passes the API server's own check, and accounts may do what the docs print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import declared_graph
import images
import pytest
from declared_graph import Graph
from rig.cluster import Cluster

from infra import config, configurations
from infra.kubernetes import cluster as declaration
from infra.kubernetes.names import Names
from infra.kubernetes.nodes import Node, Nodes
from infra.kubernetes.plan import NodePods

DOCS = Path(__file__).resolve().parents[2] / "docs/kubernetes.md"
UID = "0a1b2c3d-0000-4000-8000-000000000001"
NODES = Nodes(
    (Node("worker1", "worker1", "192.0.2.1", "boot", "6.1", 8, True),),
    (Node("worker2", "worker2", "192.0.2.2", "boot", "6.1", 8, True),),
)


def declared(configuration: str, access: str, limit: str) -> Graph:
    values = {
        "target": "kubernetes", "configuration": configuration, "replicas": "2",
        "images": images.KEY.partition("=")[2], "nodeAccess": access, "podCpuLimit": limit,
    }  # fmt: skip
    state = config.state("dry", values, online=(0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(declaration, "owned", lambda *_: {"id": "0a", "user": "", "folder": ""})
        patch.setattr(declaration, "running", lambda *_: {"worker1": NodePods({"server-1": UID})})
        return declared_graph.declared("dry", lambda: declaration.declare(state, NODES))


def manifests(graph: Graph) -> list[dict[str, Any]]:
    found = []
    for name, kind in graph.types.items():
        if kind.startswith("kubernetes:"):
            group, _, what = kind.removeprefix("kubernetes:").rpartition(":")
            version = group.removeprefix("core/")
            found.append({"apiVersion": version, "kind": what, **graph.inputs[name]})
    return found


@pytest.fixture(scope="module")
def rooms(cluster: Cluster) -> Any:
    """The namespaces of the stack, for a dry run makes none."""
    names = Names("dry")
    for name in (names.pods, names.steering):
        cluster.kubectl("create", "namespace", name)
    yield names
    cluster.kubectl("delete", "namespace", names.pods, names.steering, "--wait=false")


@pytest.mark.parametrize("limit", ["", "200m"])
@pytest.mark.parametrize("access", ["job", "ssh"])
@pytest.mark.usefixtures("rooms")
def test_every_manifest_passes_a_server_side_dry_run(
    cluster: Cluster, access: str, limit: str
) -> None:
    checked: dict[str, dict[str, Any]] = {}
    for configuration in configurations.load(None):
        for one in manifests(declared(configuration, access, limit)):
            checked[json.dumps(one, sort_keys=True)] = one
    kinds = {one["kind"] for one in checked.values()}
    assert kinds >= {"Namespace", "Deployment", "Service"}
    assert ("Job" in kinds) is (access == "job")
    words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    whole = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*checked.values()]})
    said = cluster.kubectl(*words, text=whole)
    assert said.count("serverside-applied (server dry run)") == len(checked)


@pytest.mark.parametrize(
    ("title", "namespace", "account"),
    [
        ("The agents' account", Names("dry").steering, "steering"),
        ("The measured pods' account", Names("dry").pods, "default"),
    ],
)
@pytest.mark.usefixtures("rooms")
def test_the_docs_print_what_each_account_may_do(
    cluster: Cluster, title: str, namespace: str, account: str
) -> None:
    who = f"system:serviceaccount:{namespace}:{account}"
    said = cluster.kubectl(
        "auth", "can-i", "--list", "-n", namespace, f"--as={who}",
        "--as-group=system:serviceaccounts", "--as-group=system:authenticated",
    )  # fmt: skip
    printed = re.search(rf"### {title}\n.*?```\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert printed, f"docs/kubernetes.md has no list below {title}"
    assert rows(printed[1]) == rows(said)


def rows(table: str) -> set[str]:
    return {" ".join(line.split()) for line in table.splitlines() if line.strip()}
