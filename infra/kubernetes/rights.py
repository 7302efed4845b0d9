"""The rights in the API that a stack's user needs: verbs by resource, and which of them are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from infra.kubernetes.access import CALL_S, explained

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

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
    """The rights that a stack needs (pure): fewer without Jobs on nodes, more with the Pulumi CLI.

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


def denied(api: ApiClient, wanted: Sequence[Right]) -> list[Right]:
    """Those of the rights that the API server would refuse (SelfSubjectAccessReview)."""
    from kubernetes.client import AuthorizationV1Api

    reviews = AuthorizationV1Api(api)

    def allowed(right: Right) -> bool:
        resource, _, subresource = right.resource.partition("/")
        asked = {
            "verb": right.verb,
            "group": right.group,
            "resource": resource,
            "subresource": subresource,
            "namespace": right.namespace,
        }
        review = {"spec": {"resourceAttributes": asked}}
        answer = reviews.create_self_subject_access_review(review, _request_timeout=CALL_S)
        return bool(answer.status.allowed)

    with explained("asking which rights there are"), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(allowed, wanted))
    return [right for right, yes in zip(wanted, answers, strict=True) if not yes]
