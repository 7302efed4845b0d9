"""The steering of the lab: one resource for each steered node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from shlex import quote

import pulumi
from pulumi_command import local

from infra.lab import layout
from infra.lab.plan import node_plan, owner
from infra.lab.script import part
from infra.settings import StackSettings

AGENT = "python3 -I agent"


def declare(
    state: StackSettings,
    node: layout.Node,
    *,
    boot_id: str,
    carriers: Sequence[pulumi.CustomResource],
    parent: pulumi.Resource,
) -> pulumi.CustomResource:
    """One node's steering: apply on create and update, restore on delete.

    Another configuration is an update of the plan, never a replacement, whose delete would undo it.
    """
    plan = pulumi.Output.all(*(carrier.id for carrier in carriers)).apply(
        lambda ids: json.dumps(node_plan(state, node, ids), indent=1)
    )
    # shown by a preview, where the plan on stdin is one long text
    says = {
        "STEERLAB_CONFIGURATION": state.configuration,
        "STEERLAB_SUMMARY": state.steering.described,
    }
    return local.Command(
        f"steer-{node.side}",
        create=f"{AGENT} apply",
        update=f"{AGENT} apply",
        delete=f"{AGENT} restore --owner {quote(owner(node))}",
        stdin=plan,
        environment=says,
        triggers=[boot_id],
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(
            parent=part("Steering", f"steering-{node.side}", parent), delete_before_replace=True
        ),
    )
