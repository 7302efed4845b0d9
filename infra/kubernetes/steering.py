"""The steering of a cluster's nodes: one plan for each steered node, applied by a Job or over SSH.

A deleted Job undoes nothing, so each node has a guard, a command whose `delete` restores the
node; what applies the plan depends on it and never restores.
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
from infra.kubernetes import agent
from infra.kubernetes.finalizer import Finalizer
from infra.kubernetes.names import Names, label
from infra.kubernetes.nodes import Node
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


class NodeSteering(pulumi.ComponentResource):
    """One node's steering, by pods of the cluster (`nodeAccess: job`) or over SSH."""

    def __init__(
        self,
        state: StackSettings,
        names: Names,
        node: Node,
        plan: pulumi.Output[dict[str, Any]],
        *,
        stands_on: Sequence[pulumi.Resource],
        pods: Sequence[pulumi.Resource],
        options: pulumi.ResourceOptions,
        parent: pulumi.Resource,
    ) -> None:
        self._label = label(node.name)
        super().__init__(
            "steerlab:kubernetes:NodeSteering",
            f"steering-{self._label}",
            None,
            pulumi.ResourceOptions(parent=parent),
        )
        ssh = state.kubernetes.ssh if state.kubernetes.node_access == "ssh" else None
        guard = Finalizer(
            stack=state.stack,
            node=node.name,
            hostname=node.hostname,
            address=node.address,
            boot_id=node.boot_id,
            kubeconfig=state.kubernetes.kubeconfig,
            context=state.kubernetes.context,
            image=state.images.steering,
            ssh=ssh,
        ).model_dump_json()
        # The words of the change for whoever reads a preview: the plan is one long text there.
        says = {
            "STEERLAB_CONFIGURATION": state.configuration,
            "STEERLAB_SUMMARY": state.steering.described,
        }
        if ssh:
            stdin = plan.apply(lambda plan: json.dumps({"guard": json.loads(guard), "plan": plan}))
            self.applied: pulumi.CustomResource = local.Command(
                f"steer-{self._label}",
                create=APPLY,
                update=APPLY,
                delete=RESTORE,
                stdin=stdin,
                environment=says,
                triggers=[node.boot_id],
                logging=local.Logging.NONE,
                add_previous_output_in_env=False,
                opts=pulumi.ResourceOptions(
                    parent=self, depends_on=[*stands_on, *pods], delete_before_replace=True
                ),
            )
        else:
            self.applied = self._by_job(
                state, names, node, plan, guard, says, stands_on, pods, options
            )
        self.register_outputs({})

    def _by_job(
        self,
        state: StackSettings,
        names: Names,
        node: Node,
        plan: pulumi.Output[dict[str, Any]],
        guard: str,
        says: dict[str, str],
        stands_on: Sequence[pulumi.Resource],
        pods: Sequence[pulumi.Resource],
        options: pulumi.ResourceOptions,
    ) -> pulumi.CustomResource:
        def own(*after: pulumi.Resource) -> pulumi.ResourceOptions:
            return pulumi.ResourceOptions.merge(
                options, pulumi.ResourceOptions(parent=self, depends_on=list(after))
            )

        def meta(name: str) -> dict[str, Any]:
            return {"name": name, "namespace": names.steering, "annotations": says}

        image = state.images.steering
        watch = Deployment(
            f"agent-{self._label}",
            metadata={"name": f"agent-{self._label}", "namespace": names.steering},
            spec=agent.watch_spec(names, node, image),
            opts=own(*stands_on),
        )
        kept = local.Command(
            f"guard-{self._label}",
            create="true",
            update="true",
            delete=RESTORE,
            stdin=json.dumps({"guard": json.loads(guard)}),
            logging=local.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[watch]),
        )
        applied: pulumi.CustomResource = Job(
            f"steer-{self._label}",
            metadata=meta(f"steer-{self._label}"),
            spec=plan.apply(lambda plan: agent.job_spec(names, node, image, plan_words(plan))),
            opts=pulumi.ResourceOptions.merge(
                own(kept, *pods), pulumi.ResourceOptions(delete_before_replace=True)
            ),
        )
        return applied
