"""Probe pods of `doctor`: they only wait, in namespaces of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.names import PROJECT, Names, admits
from infra.kubernetes.nodes import Node, Nodes
from infra.kubernetes.plan import NodePods

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# Timeout of the start of a probe pod; seconds.
START_S = 60.0


@dataclass(frozen=True)
class Probe:
    """A pod that only waits."""

    namespace: str
    name: str
    node: Node
    image: str
    body: dict[str, Any]


def waiting(
    space: str, name: str, spec: dict[str, Any], node: Node, container: str, labels: dict[str, str]
) -> Probe:
    image = next(one["image"] for one in spec["containers"] if one["name"] == container)
    spec = {**spec, "activeDeadlineSeconds": 300, "terminationGracePeriodSeconds": 0}
    return Probe(
        space, name, node, image, {"metadata": {"name": name, "labels": labels}, "spec": spec}
    )


@contextmanager
def namespace(api: ApiClient, name: str, level: str) -> Iterator[None]:
    """A namespace of the probe pods' own."""
    from kubernetes.client import CoreV1Api

    core = CoreV1Api(api)
    body = {"metadata": {"name": name, "labels": admits(level) | PROJECT}}
    with explained(f"creating the namespace {name}"):
        core.create_namespace(body, _request_timeout=CALL_S)
    try:
        yield
    finally:
        with explained(f"deleting the namespace {name}"):
            core.delete_namespace(name, _request_timeout=CALL_S)


@contextmanager
def removed(api: ApiClient, names: Names) -> Iterator[None]:
    """Delete the probe pods in an existing namespace at the end."""
    from kubernetes.client import CoreV1Api

    try:
        yield
    finally:
        for pod in listed(api, names):
            with explained(f"deleting the pod {pod.metadata.name}"):
                CoreV1Api(api).delete_namespaced_pod(
                    pod.metadata.name, names.namespace, _request_timeout=CALL_S
                )


def started(api: ApiClient, wanted: Sequence[Probe]) -> dict[str, str]:
    """Create the pods and wait for all; returns the reasons of those that do not run, by name."""
    from kubernetes.client import ApiException, CoreV1Api

    core = CoreV1Api(api)
    end = time.monotonic() + START_S
    with explained("starting the probe pods"):
        for pod in wanted:
            while True:
                try:
                    core.create_namespaced_pod(pod.namespace, pod.body, _request_timeout=CALL_S)
                    break
                except ApiException as error:
                    # a new namespace gets its default account a moment later
                    late = "serviceaccount" in str(error.body) and time.monotonic() < end
                    if error.status != 403 or not late:
                        raise
                    time.sleep(0.3)
        said = {pod.name: "its pod did not start" for pod in wanted}
        while said and time.monotonic() < end:
            for pod in wanted:
                if pod.name in said:
                    seen = core.read_namespaced_pod(pod.name, pod.namespace)
                    said[pod.name] = why_not_running(seen)
                    if not said[pod.name]:
                        del said[pod.name]
            if said and all(words.startswith(_HOPELESS) for words in said.values()):
                break
            time.sleep(0.3)
    return said


_HOPELESS = ("ErrImage", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")


def why_not_running(pod: Any) -> str:
    """Why a pod does not run; empty if it runs (pure)."""
    if pod.status.phase == "Running":
        return ""
    for one in pod.status.container_statuses or []:
        if one.state.waiting:
            words = f"{one.state.waiting.reason}: {one.state.waiting.message or ''}"
            return words.rstrip(": ")
    for condition in pod.status.conditions or []:
        if condition.status != "True" and condition.message:
            return str(condition.message)
    return f"its pod is {pod.status.phase}"


def listed(api: ApiClient, names: Names) -> list[Any]:
    from kubernetes.client import CoreV1Api

    with explained("listing the probe pods"):
        found = CoreV1Api(api).list_namespaced_pod(
            names.pods, label_selector=names.selector, _request_timeout=CALL_S
        )
    return list(found.items)


def probed(listed: Sequence[Any], nodes: Nodes) -> dict[str, NodePods]:
    """The running probe pods of each node, and one of each node of the other side as its peer (pure)."""
    running = [
        pod
        for pod in listed
        if pod.status.phase == "Running"
        and (pod.metadata.labels or {}).get("steerlab/role") != "agent"
    ]
    sides = [{node.name for node in side} for side in (nodes.servers, nodes.clients)]
    found = {}
    for own, others in (sides, sides[::-1]):
        for name in own:
            uids = {
                pod.metadata.name: pod.metadata.uid for pod in running if pod.spec.node_name == name
            }
            peers = {
                pod.spec.node_name: (pod.status.pod_ip, pod.status.host_ip)
                for pod in running
                if pod.spec.node_name in others - {name}
            }
            found[name] = NodePods(uids, dict(peers.values()))
    return found
