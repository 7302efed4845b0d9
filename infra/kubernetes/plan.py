"""The plans of a cluster's steered nodes (pure): applied by `up`, and compared with each run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from infra import steering
from infra.configurations import Configuration
from infra.steering import Device

_OTHER = {"server": "client", "client": "server"}


class NodePods(NamedTuple):
    """The measured pods of a node: their uids, by name; and for each node that they exchange traffic
    with, the address of a pod there and that of the node itself.
    """

    uids: Mapping[str, str] = {}
    peers: Mapping[str, str] = {}


def node_plan(
    configuration: Configuration,
    *,
    owner: str,
    nic: str,
    overlay_device: str,
    pods: NodePods,
    owns_flow_table: bool,
    lease_seconds: int | None,
) -> dict[str, Any]:
    """The plan of one node.

    The agent finds devices that are `auto` on the node: NIC and overlay by the routes to the peers,
    where there may be no overlay, and the host's ends of the pods' own devices.
    """
    overlay = Device("overlay", (overlay_device,), optional=overlay_device == "auto")
    devices = [
        Device("nic", (nic,)),
        *([overlay] if overlay_device != "none" else []),
        Device("veth", ("auto",)),
        *(
            Device("pod", ("eth0",), f"pod:{uid}", name, generation=uid)
            for name, uid in sorted(pods.uids.items())
        ),
    ]
    return steering.plan(
        configuration,
        owner=owner,
        devices=devices,
        cores=None,
        queue_core=None,
        owns_flow_table=owns_flow_table,
        lease_seconds=lease_seconds,
        peers=pods.peers,
    )


def by_node(pods: Iterable[Any]) -> dict[str, NodePods]:
    """The running ones of a namespace's pods, by node."""
    running = [
        pod
        for pod in pods
        if pod.status.phase == "Running"
        and pod.metadata.deletion_timestamp is None
        and _seat(pod)[1] not in ("agent", "job")
    ]
    nodes = dict.fromkeys(pod.spec.node_name for pod in running)
    return {node: on_node(node, running) for node in nodes}


def on_node(node: str, running: Iterable[Any]) -> NodePods:
    """The pods of one node. The peer on another node is that of the first pair with one there."""
    ordered = sorted(running, key=_seat)
    seats = {_seat(pod): pod for pod in ordered}
    uids = {}
    peers: dict[str, tuple[str, str]] = {}
    for pod in ordered:
        if pod.spec.node_name != node:
            continue
        uids[pod.metadata.name] = pod.metadata.uid
        index, role = _seat(pod)
        peer = seats.get((index, _OTHER.get(role, "")))
        if peer and peer.spec.node_name != node and peer.status.pod_ip and peer.status.host_ip:
            addresses = (peer.status.pod_ip, peer.status.host_ip)
            peers.setdefault(peer.spec.node_name, addresses)
    return NodePods(uids, dict(peers.values()))


def _seat(pod: Any) -> tuple[tuple[int, str], str]:
    """The pair of a pod, in the order of numbers, and its role in it."""
    labels = pod.metadata.labels or {}
    pair = labels.get("steerlab/pair", pod.metadata.name)
    return (len(pair), pair), labels.get("steerlab/role", "")
