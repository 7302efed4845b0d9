"""The plans of the lab's steered nodes (pure): applied by `up`, and compared with each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra import steering
from infra.lab import layout
from infra.settings import StackSettings
from infra.steering import Device


def steered_nodes(state: StackSettings) -> tuple[layout.Node, ...]:
    server, client = layout.nodes(state.stack)
    return (server, client) if state.steer_nodes == "both" else (server,)


def owner(node: layout.Node) -> str:
    """The name under which the agent keeps a node's snapshot."""
    return f"{node.stack}/{node.side}"


def node_plan(
    state: StackSettings, node: layout.Node, generations: Sequence[str | None] | None = None
) -> dict[str, Any]:
    """The plan of one node.

    `generations` are the ids of the resources with its devices, in order: the wire and, if there is
    an overlay, the overlay and each pair's pods. A recreated device thus changes the plan. Without
    them the plan applies to the present devices.
    """
    place = layout.netns(node.namespace)
    overlay = state.lab.path == "overlay"
    if generations is None:
        generations = [None] * (2 + len(state.pairs) if overlay else 1)
    wire, *above = generations
    devices = [Device("nic", (layout.WIRE,), place, generation=wire)]
    if overlay:
        tunnel, *pods = above
        devices += [
            Device("overlay", (layout.OVERLAY,), place, generation=tunnel),
            Device("veth", ("cali*",), place),
            *(
                Device("pod", ("eth0",), layout.netns(pod.namespace), pod.name, generation)
                for pod, generation in zip(_pods(state, node), pods, strict=True)
            ),
        ]
    serves = node.side == "server"
    return steering.plan(
        state.steering,
        owner=owner(node),
        devices=devices,
        cores=state.cores.server if serves else state.cores.client,
        queue_core=state.cores.irq if serves else None,
        queue_cores=state.queue_cores if serves and state.lab.queues > 1 else (),
        owns_flow_table=serves,
        lease_seconds=state.lease_seconds,
    )


def _pods(state: StackSettings, node: layout.Node) -> list[layout.Pod]:
    return [layout.Pod(node, index) for index in state.pairs]
