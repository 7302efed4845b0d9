"""The measured pods as they run now, compared with the measurement (pure)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.targets.contract import Topology
from experiments.validity import Cause, Reason
from infra import traffic
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
    container: str
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
        for index in traffic.of(what.traffic).pairs(what.replicas, pairs):
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


def running(listed: Sequence[Any], role: str, containers: Collection[str]) -> dict[int, Running]:
    """The ready pods of one role, by pair, with their measured container, one of these (pure)."""
    found = {}
    for pod in listed:
        labels = pod.metadata.labels or {}
        ready = any(
            one.type == "Ready" and one.status == "True" for one in pod.status.conditions or []
        )
        pair = pair_of(labels)
        if labels.get("steerlab/role") != role or not ready or pod.metadata.deletion_timestamp:
            continue
        measured = next((one for one in pod.spec.containers or [] if one.name in containers), None)
        if pair is None or measured is None:
            continue
        # the quota may be one that a LimitRange set
        limits = measured.resources.limits if measured.resources else None
        found[pair] = Running(
            pod.metadata.name,
            pod.metadata.uid,
            pod.spec.node_name,
            pod.status.pod_ip,
            sum(one.restart_count for one in pod.status.container_statuses or []),
            measured.name,
            (limits or {}).get("cpu"),
        )
    return found


def moved(before: Pods, after: Pods, pairs: Collection[int]) -> list[Reason]:
    """Reasons where pods of these pairs were deleted, recreated or restarted during a run (pure)."""
    reasons = []
    for role, first, last in zip(("server", "client"), before, after, strict=True):
        for index in pairs:
            old, new = first[index], last.get(index)
            name = f"pod iperf-{role}-{index}"
            if new is None:
                reasons.append(f"{name} no longer exists or is not ready")
            elif new.uid != old.uid:
                reasons.append(f"{name} was recreated on node {new.node}")
            elif new.restarts != old.restarts:
                reasons.append(f"{name} was restarted")
    return [Reason(Cause.TOPOLOGY, text) for text in reasons]
