"""The rights that a stack asks for are those that the docs print."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from infra.kubernetes.rights import Right, needed

DOCS = Path(__file__).resolve().parents[2] / "docs/kubernetes.md"
# The doctor's own pods; a stack's are made by their Deployments.
DOCTOR = {Right(verb, "pods") for verb in ("get", "create", "delete")}


def test_the_docs_role_is_what_is_needed_and_no_more() -> None:
    text = re.search(r"```yaml\n(apiVersion: rbac.*?)```", DOCS.read_text(), re.DOTALL)
    assert text
    role = yaml.safe_load(text[1])
    printed = {
        Right(verb, resource, group)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert printed == set(needed("job")) | DOCTOR
    assert set(needed("ssh")) < set(needed("job"))


def test_a_right_reads_as_kubectl_has_it() -> None:
    assert str(Right("patch", "deployments", "apps")) == "patch deployments.apps"
    assert str(Right("get", "pods/log")) == "get pods/log"
