"""The plans of a cluster's steered nodes (pure): applied by `up`, and compared with each run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from infra import steering
from infra.configurations import Configuration
from infra.steering import Device


def node_plan(
    configuration: Configuration,
    *,
    owner: str,
    overlay_device: str,
    pods: Mapping[str, str],
    owns_flow_table: bool,
    lease_seconds: int | None,
) -> dict[str, Any]:
    """The plan of one node; `pods` are the uids of the measured pods on it, by name.

    Where the node has no more veths than pods of its own, all are steered alike; the overlay's
    device and the one below it are found on the node.
    """
    devices = [
        Device("nic", ("auto",)),
        Device("overlay", (overlay_device,)),
        Device("veth", ("auto",)),
        *(
            Device("pod", ("eth0",), f"pod:{uid}", name, generation=uid)
            for name, uid in sorted(pods.items())
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
    )


def by_node(pods: Iterable[Any]) -> dict[str, dict[str, str]]:
    """The running ones of a namespace's pods: for each node their uids by name."""
    found: dict[str, dict[str, str]] = {}
    for pod in pods:
        if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None:
            found.setdefault(pod.spec.node_name, {})[pod.metadata.name] = pod.metadata.uid
    return found
