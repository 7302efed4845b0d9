"""The steering of the lab: one resource for each steered node, and what its plan names (pure)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from shlex import quote
from typing import Any

import pulumi
from pulumi_command import local

from infra import steering
from infra.config import State
from infra.lab import layout
from infra.lab.measurement import owner
from infra.steering import Device

AGENT = "python3 -I docker/steering/steer.py"


def node_plan(state: State, node: layout.Node, generations: Sequence[str | None]) -> dict[str, Any]:
    """The plan of one node.

    `generations` are the ids of what carries its devices, in order: the wire and, where there is
    an overlay, the overlay and each pair's pods. What is made anew thus changes the plan.
    """
    place = layout.netns(node.namespace)
    wire, *above = generations
    devices = [Device("nic", (layout.WIRE,), place, generation=wire)]
    if state.path == "overlay":
        overlay, *pods = above
        devices += [
            Device("overlay", (layout.OVERLAY,), place, generation=overlay),
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
        owns_flow_table=serves,
        lease_seconds=state.lease_seconds,
    )


def _pods(state: State, node: layout.Node) -> list[layout.Pod]:
    return [layout.Pod(node, index) for index in range(1, state.replicas + 1)]


class Steering(pulumi.ComponentResource):
    """One node's steering: apply on create and update, restore on delete.

    A change of configuration is an update from plan to plan, never a replacement that could
    undo itself.
    """

    def __init__(
        self,
        state: State,
        node: layout.Node,
        *,
        boot_id: str,
        carriers: Sequence[pulumi.CustomResource],
        parent: pulumi.Resource,
    ) -> None:
        super().__init__(
            "steerlab:lab:Steering",
            f"steering-{node.side}",
            None,
            pulumi.ResourceOptions(parent=parent),
        )
        plan = pulumi.Output.all(*(carrier.id for carrier in carriers)).apply(
            lambda ids: json.dumps(node_plan(state, node, ids), indent=1)
        )
        # The words of the change for whoever reads a preview: stdin is one long text there.
        says = {
            "STEERLAB_CONFIGURATION": state.configuration,
            "STEERLAB_SUMMARY": state.steering.summary,
        }
        self.command = local.Command(
            f"steer-{node.side}",
            create=f"{AGENT} apply",
            update=f"{AGENT} apply",
            delete=f"{AGENT} restore --owner {quote(owner(node))}",
            stdin=plan,
            environment=says,
            triggers=[boot_id],
            logging=local.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.register_outputs({})
