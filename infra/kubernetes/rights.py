"""The rights in the API that a stack's user needs (pure): verbs by resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_OWN = ("get", "list", "create", "patch", "delete")
# What waits in pulumi-kubernetes reads beside what the embedded engine reads.
_WATCHED = {
    ("services", ""): ("watch",),
    ("endpoints", ""): ("list", "watch"),
    ("pods", ""): ("watch",),
    ("events", ""): ("watch",),
    ("persistentvolumeclaims", ""): ("list", "watch"),
    ("deployments", "apps"): ("watch",),
    ("replicasets", "apps"): ("list", "watch"),
}


class Right(NamedTuple):
    """One required right, in the API's terms; without a namespace it is of the whole cluster."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' * bool(self.group)}{self.group}"

    @property
    def where(self) -> str:
        return f"namespace {self.namespace}" if self.namespace else "all namespaces"


def needed(node_access: str, namespace: str = "", *, pulumi: bool = False) -> list[Right]:
    """The rights that a stack needs: fewer without Jobs on nodes, more with the Pulumi CLI.

    In an existing namespace all but the list of nodes is of that namespace.
    """
    owned = {("leases", "coordination.k8s.io"): ("get", "create", "delete")}
    rules: list[Mapping[tuple[str, str], tuple[str, ...]]] = [
        owned if namespace else {("namespaces", ""): _OWN},
        {
            ("services", ""): _OWN,
            ("deployments", "apps"): _OWN,
            ("endpoints", ""): ("get",),
            ("pods", ""): ("list",),
            ("events", ""): ("list",),
            ("pods/exec", ""): ("get", "create"),  # get for websockets, since Kubernetes 1.31
        },
    ]
    if node_access == "job":
        rules.append(
            {
                ("serviceaccounts", ""): _OWN,
                ("jobs", "batch"): _OWN,
                ("pods/log", ""): ("get",),
            }
        )
    if pulumi:
        jobs = {("jobs", "batch"): ("watch",), ("serviceaccounts", ""): ("watch",)}
        own = {} if namespace else {("namespaces", ""): ("watch",)}
        rules += [_WATCHED, own, jobs if node_access == "job" else {}]
    return [
        Right("list", "nodes"),
        *(
            Right(verb, resource, group, namespace)
            for rule in rules
            for (resource, group), verbs in rule.items()
            for verb in verbs
        ),
    ]
