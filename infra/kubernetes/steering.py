"""The steering of a cluster's nodes: one plan for each steered node, applied by a Job or over SSH.

Deleting a Job does not undo its writes. Each node has a finalizer (`guard-NODE`), a command whose `delete`
restores the node; the Job depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi_command import local
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.batch.v1 import Job

from infra.errors import InvalidInput
from infra.kubernetes import agent, ownership
from infra.kubernetes.finalizer import Finalizer
from infra.kubernetes.names import Names, label
from infra.kubernetes.nodes import Node
from infra.kubernetes.pinned import Pin
from infra.settings import StackSettings

RESTORE = "./steerlab hook restore"
APPLY = "./steerlab hook apply"


def plan_words(plan: Mapping[str, Any]) -> list[str]:
    """The agent's words for a plan (pure). Raises `InvalidInput` for one that no argument can hold."""
    text = json.dumps(plan, separators=(",", ":"))
    if len(text.encode()) > agent.LONGEST_ARGUMENT:
        raise InvalidInput(
            f"replicas: {len(plan['rules'])} rules on node {plan['owner']} are too many for one "
            "Job: spread the pairs over more nodes"
        )
    return ["apply", "--plan", text]


def declare(
    state: StackSettings,
    names: Names,
    node: Node,
    plan: pulumi.Output[dict[str, Any]],
    *,
    owner: pulumi.Output[dict[str, str]],
    stands_on: Sequence[pulumi.Resource],
    pods: Sequence[pulumi.Resource],
    options: pulumi.ResourceOptions,
    parent: pulumi.Resource,
) -> pulumi.CustomResource:
    """One node's steering, by pods of the cluster (`nodeAccess: job`) or over SSH."""
    name = label(node.name)
    component = pulumi.ComponentResource(
        "steerlab:kubernetes:NodeSteering",
        f"steering-{name}",
        None,
        pulumi.ResourceOptions(parent=parent),
    )
    component.register_outputs({})
    ssh = state.kubernetes.ssh if state.kubernetes.node_access == "ssh" else None
    finalizer = Finalizer(
        stack=state.stack,
        node=node.name,
        hostname=node.hostname,
        address=node.address,
        boot_id=node.boot_id,
        kubeconfig=state.kubernetes.kubeconfig,
        context=state.kubernetes.context,
        image=state.images.steering,
        ssh=ssh,
        pods=state.kubernetes.pods,
    )
    guard = owner.apply(
        lambda owner: {
            **finalizer.model_dump(mode="json"),
            **{key: owner[key] for key in ("id", *Pin.model_fields) if owner.get(key)},
        }
    )
    labels = {ownership.ID: owner["id"]}
    # shown by a preview, where the plan is one long text
    says = {
        "STEERLAB_CONFIGURATION": state.configuration,
        "STEERLAB_SUMMARY": state.steering.described,
    }

    def own(*after: pulumi.Resource, **more: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(
            options, pulumi.ResourceOptions(parent=component, depends_on=list(after), **more)
        )

    def command(
        kind: str, create: str, stdin: pulumi.Input[str], opts: pulumi.ResourceOptions, **more: Any
    ) -> local.Command:
        return local.Command(
            f"{kind}-{name}",
            create=create,
            update=create,
            delete=RESTORE,
            stdin=stdin,
            logging=local.Logging.NONE,
            add_previous_output_in_env=False,
            opts=opts,
            **more,
        )

    if ssh:
        return command(
            "steer",
            APPLY,
            pulumi.Output.all(guard=guard, plan=plan).apply(json.dumps),
            pulumi.ResourceOptions(
                parent=component, depends_on=[*stands_on, *pods], delete_before_replace=True
            ),
            environment=says,
            triggers=[node.boot_id],
        )
    image = state.images.steering
    watch = Deployment(
        f"agent-{name}",
        metadata={
            "name": names.own(f"agent-{name}"),
            "namespace": names.steering,
            "labels": labels,
        },
        spec=agent.watch_spec(names, node, image, state.kubernetes.pods),
        opts=own(*stands_on),
    )
    restores = command(
        "guard",
        "true",
        guard.apply(lambda guard: json.dumps({"guard": guard})),
        pulumi.ResourceOptions(parent=component, depends_on=[watch, *pods]),
    )
    job: pulumi.CustomResource = Job(
        f"steer-{name}",
        metadata={
            "name": names.own(f"steer-{name}"),
            "namespace": names.steering,
            "labels": labels,
            "annotations": says,
        },
        spec=plan.apply(
            lambda plan: agent.job_spec(names, node, image, plan_words(plan), state.kubernetes.pods)
        ),
        opts=own(restores, *pods, delete_before_replace=True),
    )
    return job
