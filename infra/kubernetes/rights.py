"""The rights in the API that a stack's user needs (pure): verbs by resource."""

from __future__ import annotations

from typing import NamedTuple

_OWN = ("get", "list", "create", "patch", "delete")


class Right(NamedTuple):
    """One required right, in the API's terms."""

    verb: str
    resource: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' * bool(self.group)}{self.group}"


def needed(node_access: str) -> list[Right]:
    """The rights that a stack needs; fewer without Jobs on nodes."""
    verbs = {
        ("nodes", ""): ("list",),
        ("namespaces", ""): _OWN,
        ("services", ""): _OWN,
        ("deployments", "apps"): _OWN,
        ("endpoints", ""): ("get",),
        ("pods", ""): ("list",),
        ("pods/exec", ""): ("get", "create"),  # get for websockets, since Kubernetes 1.31
    }
    if node_access == "job":
        verbs |= {
            ("serviceaccounts", ""): _OWN,
            ("jobs", "batch"): _OWN,
            ("pods/log", ""): ("get",),
        }
    return [
        Right(verb, resource, group) for (resource, group), said in verbs.items() for verb in said
    ]
