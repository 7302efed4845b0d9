"""The rights that a stack asks for are those that the docs print."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from infra.kubernetes.rights import Right, needed

DOCS = Path(__file__).resolve().parents[2] / "docs/kubernetes.md"


def printed() -> dict[tuple[str, str], set[Right]]:
    """The rights of each role in the docs, by kind and name."""
    found = {}
    for text in re.findall(r"```yaml\n(apiVersion: rbac.*?)```", DOCS.read_text(), re.DOTALL):
        for role in yaml.safe_load_all(text):
            found[role["kind"], role["metadata"]["name"]] = {
                Right(verb, resource, group, role["metadata"].get("namespace", ""))
                for rule in role["rules"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found


def test_the_docs_roles_are_what_is_needed_and_no_more() -> None:
    roles = printed()
    whole, more = roles["ClusterRole", "steerlab"], roles["ClusterRole", "steerlab-pulumi"]
    assert whole == set(needed("job"))
    assert more == set(needed("job", pulumi=True)) - set(needed("job"))
    assert set(needed("ssh")) < set(needed("job"))
    assert set(needed("ssh", pulumi=True)) < set(needed("job", pulumi=True))

    own = roles["Role", "steerlab"] | {Right("list", "nodes")}
    assert own == set(needed("job", "team"))
    more = roles["Role", "steerlab-pulumi"]
    assert more == set(needed("job", "team", pulumi=True)) - set(needed("job", "team"))
    # the cluster is identified where it can be
    assert roles["ClusterRole", "steerlab-nodes"] == {
        Right("list", "nodes"),
        Right("get", "namespaces"),
    }


def test_a_right_reads_as_kubectl_has_it() -> None:
    assert str(Right("patch", "deployments", "apps")) == "patch deployments.apps"
    assert str(Right("get", "pods/log")) == "get pods/log"
