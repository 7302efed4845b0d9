"""Why the pods of a Deployment or a Job do not run, with remedies (pure): from objects of the API as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Object = Mapping[str, Any]

# Reasons of a waiting container that no time changes, and those of one that is still starting.
_FINAL = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}
_STARTING = {"", "ContainerCreating", "PodInitializing"}
# Seconds after which another cause counts: a second pull begins after 10 s, a pod that ends frees its
# share of a quota or of a node.
_CRASHED_S, _REFUSED_S, _OTHER_S = 5.0, 10.0, 20.0
_LONGEST = 2000

# Remedies, by what a message contains; the first match counts.
_REMEDIES = (
    ("exec format error", "the image is for another architecture: build it with docker/build --platform"),
    ("ErrImage|ImagePull|InvalidImageName", "build it with docker/build, or set the key kubernetes.images"),
    ("exceeded quota", "the namespace's ResourceQuota needs room for these pods"),
    ("must specify limits.cpu", "set the key podCpuLimit"),
    ("cpu usage per", "set the key podCpuLimit to what the LimitRange allows"),
    ("PriorityClass", "correct the key kubernetes.pods.priorityClass"),
    ("security context constraint", "kubernetes.pods.runAsUser=assigned, and the SCC privileged for agents"),
    ("PodSecurity.*privileged", "set the key kubernetes.nodeAccess to ssh"),
    ("webhook|[Pp]olicy", "the cluster's policy refuses the pods; kubernetes.pods can add labels and annotations"),
    ("runAsNonRoot|will run as root", "set kubernetes.pods.runAsUser to a number"),
    ("untolerated taint", "set the key kubernetes.pods.tolerations"),
)  # fmt: skip


class Cause(NamedTuple):
    """A cause, and for how many seconds of waiting it may still end by itself."""

    text: str
    patience_s: float


def of(owner: Object, pods: Iterable[Object], events: Iterable[Object] = ()) -> list[Cause]:
    """The causes of a Deployment or a Job that is not ready, with its pods and its own events."""
    return [*_of_conditions(owner), *_of_events(events), *(c for pod in pods for c in _of_pod(pod))]


def _of_conditions(owner: Object) -> Iterator[Cause]:
    for one in owner.get("status", {}).get("conditions") or []:
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            yield _cause("its pods are refused", one.get("message", ""), _REFUSED_S)


def _of_events(events: Iterable[Object]) -> Iterator[Cause]:
    """Refusals of a Job's pods, which no condition has, and of a pod's volumes and network."""
    last = {one.get("reason", ""): one.get("message", "") for one in events}
    for reason, message in last.items():
        if reason == "FailedCreate":
            yield _cause("its pods are refused", message, _REFUSED_S)
        elif reason.startswith("Failed"):
            yield _cause(reason, message, _OTHER_S)


def _of_pod(pod: Object) -> Iterator[Cause]:
    status, name = pod.get("status", {}), f"pod {pod['metadata']['name']}"
    for one in status.get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") != "True":
            yield _cause(name, one.get("message") or one.get("reason", ""), _OTHER_S)
    for container in status.get("containerStatuses") or []:
        waiting = container.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _STARTING:
            continue
        ended = (container.get("lastState") or {}).get("terminated") or {}
        said = (ended.get("message") or waiting.get("message") or "").strip()
        patience = _CRASHED_S if reason == "CrashLoopBackOff" else _OTHER_S
        yield _cause(f"{name}: {reason}", said, 0.0 if reason in _FINAL else patience)


def _cause(what: str, message: str, patience_s: float) -> Cause:
    text = f"{what}: {message[-_LONGEST:]}" if message else what
    remedy = next((words for pattern, words in _REMEDIES if re.search(pattern, text)), "")
    return Cause(f"{text} ({remedy})" if remedy else text, patience_s)
