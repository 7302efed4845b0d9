"""The measured pods as they run now, compared with the measurement (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.targets.contract import Topology
from experiments.validity import Cause, Reason
from infra.kubernetes.measurement import ClusterMeasurement
from infra.settings import cpu_limit


@dataclass(frozen=True)
class Running:
    """A measured pod as it runs now."""

    name: str
    uid: str
    node: str
    address: str
    restarts: int
    cpu_limit: str | None = None


# The servers and clients, by pair.
Pods = tuple[Mapping[int, Running], Mapping[int, Running]]


def topology(what: ClusterMeasurement, pods: Pods, pairs: int) -> Topology:
    """Nodes and quota of the pods, compared with the measurement (pure).

    A LimitRange of the namespace may set a quota that the stack does not declare.
    """
    texts = []
    limits = {}
    for side, there in zip(("server", "client"), pods, strict=True):
        nodes = {node.name for node in what.nodes if node.side == side}
        for index in range(1, pairs + 1):
            pod = there.get(index)
            if pod is None:
                texts.append(f"pod iperf-{side}-{index} does not run in {what.pods}")
                continue
            limits[cpu_limit(pod.cpu_limit) if pod.cpu_limit else None] = pod.cpu_limit
            if pod.node not in nodes:
                texts.append(
                    f"pod iperf-{side}-{index} runs on node {pod.node}, which is not a {side} node"
                )
    wanted = what.pod_cpu_limit
    found = " and ".join(limit or "none" for limit in limits.values())
    if wanted and limits and set(limits) != {cpu_limit(wanted)}:
        texts.append(f"the pods have a CPU quota of {found}, not {wanted}")
    elif len(limits) > 1:
        texts.append(f"the pods have different CPU quotas: {found}")
    limit = next(iter(limits.values()), wanted)
    return Topology([Reason(Cause.TOPOLOGY, text) for text in texts], limit)


def pair_of(labels: Mapping[str, str] | None) -> int | None:
    """The pair of a pod or service, by its label; None for a foreign object."""
    number = (labels or {}).get("steerlab/pair", "")
    return int(number) if re.fullmatch("[0-9]{1,4}", number) else None


def running(listed: Sequence[Any], role: str, container: str) -> dict[int, Running]:
    """The ready pods of one role, by pair, with the quota of their measured container (pure)."""
    found = {}
    for pod in listed:
        labels = pod.metadata.labels or {}
        ready = any(
            one.type == "Ready" and one.status == "True" for one in pod.status.conditions or []
        )
        pair = pair_of(labels)
        if labels.get("steerlab/role") != role or not ready or pod.metadata.deletion_timestamp:
            continue
        if pair is None:
            continue
        found[pair] = Running(
            pod.metadata.name,
            pod.metadata.uid,
            pod.spec.node_name,
            pod.status.pod_ip,
            sum(one.restart_count for one in pod.status.container_statuses or []),
            _limit(pod, container),
        )
    return found


def _limit(pod: Any, name: str) -> str | None:
    """The CPU quota of a container, also one that a LimitRange set."""
    for container in pod.spec.containers or []:
        if container.name == name and container.resources:
            return (container.resources.limits or {}).get("cpu")
    return None


def moved(before: Pods, after: Pods, pairs: int) -> list[Reason]:
    """Reasons where pods were deleted, recreated or restarted during a run (pure)."""
    reasons = []
    for role, first, last in zip(("server", "client"), before, after, strict=True):
        for index in range(1, pairs + 1):
            old, new = first[index], last.get(index)
            name = f"pod iperf-{role}-{index}"
            if new is None:
                reasons.append(f"{name} no longer exists or is not ready")
            elif new.uid != old.uid:
                reasons.append(f"{name} was recreated on node {new.node}")
            elif new.restarts != old.restarts:
                reasons.append(f"{name} was restarted")
    return [Reason(Cause.TOPOLOGY, text) for text in reasons]
