"""The steering of the lab: one resource for each steered node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from shlex import quote

import pulumi
from pulumi_command import local

from infra.lab import layout
from infra.lab.plan import node_plan, owner
from infra.settings import StackSettings

AGENT = "python3 -I agent"


class Steering(pulumi.ComponentResource):
    """One node's steering: apply on create and update, restore on delete.

    A change of configuration is an update from plan to plan, never a replacement that could
    undo itself.
    """

    def __init__(
        self,
        state: StackSettings,
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
            "STEERLAB_SUMMARY": state.steering.described,
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
