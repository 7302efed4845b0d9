"""The cluster's components: measured pods at the restricted level, and the steering of nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_command import local
from pulumi_kubernetes.core.v1 import Namespace, ServiceAccount

from infra import checkpoint, measured
from infra.errors import InvalidInput, Refusal, leave
from infra.kubernetes import (
    admission,
    agent,
    made_by,
    measurement,
    outputs,
    ownership,
    plan,
    steering,
)
from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.names import NODE_LEVEL, OVERLAY_LEVEL, Names
from infra.kubernetes.nodes import Nodes, of_state, owners_of_table
from infra.kubernetes.pinned import Pin, connect, look, refuse_other
from infra.kubernetes.plan import NodePods
from infra.kubernetes.pods import PodPair
from infra.settings import StackSettings

# Timeout of a pod that is being recreated; seconds. A preview does not wait: it recreates none.
RECREATED_S = 20.0
CLAIM = "./steerlab hook claim"
RELEASE = "./steerlab hook release"
CHECK = "./steerlab hook check"
COPY = "./steerlab hook secrets"


class Cluster(pulumi.ComponentResource):
    """All resources of a cluster's stack except its measurement."""

    def __init__(self, state: StackSettings, nodes: Nodes) -> None:
        super().__init__(made_by.COMPONENT, "cluster", {"engine": made_by.running()})
        of = state.kubernetes
        names = Names(state.stack, of.namespace)
        self._claim = ownership.Claim(
            stack=state.stack, kubeconfig=of.kubeconfig, context=of.context, namespace=of.namespace
        )
        self._owner = self._claimed(state, names)
        provider = kubernetes.Provider(
            "cluster",
            kubeconfig=of.kubeconfig or None,
            # that of the claim: another one may be current by the end of this command
            context=self._owner.apply(lambda owner: of.context or owner.get("context") or None),
            opts=pulumi.ResourceOptions(parent=self),
        )
        options = pulumi.ResourceOptions(provider=provider)
        namespace = self._namespace(state, names, names.pods, OVERLAY_LEVEL, options)
        pairs = [
            PodPair(
                state,
                names,
                index,
                (nodes.server_of(index), nodes.client_of(index)),
                stands_on=namespace,
                id_=self._owner["id"],
                options=options,
                parent=self,
            )
            for index in state.pairs
        ]
        deployed = [one for pair in pairs for one in (pair.server, pair.client)]
        stands_on = self._agent_room(state, names, options)
        timeout = 0.0 if pulumi.runtime.is_dry_run() else RECREATED_S
        uids = pulumi.Output.all(*(one.metadata["uid"] for one in deployed))
        pods_of = pulumi.Output.all(self._owner, uids).apply(
            told(lambda said: running(state, names, timeout, said[0]))
        )
        steered = nodes.steered(state.steer_nodes == "both")
        tables = owners_of_table(steered)
        applied = [
            steering.declare(
                state,
                names,
                node,
                pods_of.apply(
                    lambda pods, node=node: plan.node_plan(  # type: ignore[misc]
                        state.steering,
                        owner=names.owner(node.name),
                        nic=state.kubernetes.nic,
                        overlay_device=state.kubernetes.overlay_device,
                        pods=pods.get(node.name, NodePods()),
                        owns_flow_table=node.name in tables,
                        lease_seconds=state.lease_seconds,
                    )
                ),
                owner=self._owner,
                stands_on=stands_on,
                pods=deployed,
                options=options,
                parent=self,
            )
            for node in steered
        ]
        self.ready: list[pulumi.Resource] = [
            *(pair.service for pair in pairs),
            *deployed,
            *applied,
        ]
        place = self._owner.apply(
            lambda owner: {key: owner.get(key, "") for key in ("context", "server")}
        )
        outputs.export(state, nodes, place, applied)
        self._check_before_deletion()
        self.register_outputs({})

    def _check_before_deletion(self) -> None:
        """Deleted first: fails, and keeps the rest, where another stack has these names by now."""
        local.Command(
            "ownership",
            create="true",
            delete=CHECK,
            stdin=self._owner.apply(
                lambda owner: ownership.Claim(
                    **self._claim.model_dump(include={"stack", "kubeconfig"}),
                    **pin_of(owner).model_dump(),
                    id=owner["id"],
                ).model_dump_json()
            ),
            logging=local.Logging.NONE,
            opts=pulumi.ResourceOptions(parent=self, depends_on=self.ready),
        )

    def _claimed(self, state: StackSettings, names: Names) -> pulumi.Output[dict[str, str]]:
        """The stack's owner, once the cluster has no other stack of this name."""
        command = local.Command(
            "claim",
            create=CLAIM,
            delete=RELEASE,
            stdin=self._claim.model_dump_json(),
            logging=local.Logging.NONE,
            opts=pulumi.ResourceOptions(parent=self),
        )
        return command.stdout.apply(told(lambda stdout: owned(state, names, stdout)))

    def _namespace(
        self,
        state: StackSettings,
        names: Names,
        name: str,
        level: str,
        options: pulumi.ResourceOptions,
    ) -> list[pulumi.Resource]:
        """A namespace of the stack's own, with the Secrets of its pods' images; none in an existing one."""
        if names.namespace:
            return []
        owner = {key: self._owner[key] for key in ("id", "user", "folder")}
        namespace = Namespace(
            name,
            metadata=ownership.metadata(names, name, level, owner),
            opts=pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(parent=self)),
        )
        of = state.kubernetes
        if not of.pods.image_pull_secrets:
            return [namespace]
        wanted = admission.PullSecrets(
            kubeconfig=of.kubeconfig,
            context=of.context,
            namespace=name,
            secrets=of.pods.image_pull_secrets,
        )
        copied = local.Command(
            f"secrets-{name}",
            create=COPY,
            stdin=self._owner.apply(
                lambda owner: wanted.model_copy(
                    update={"context": of.context or owner.get("context", "")}
                ).model_dump_json()
            ),
            triggers=[namespace.metadata["uid"]],
            logging=local.Logging.NONE,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[namespace]),
        )
        return [copied]

    def _agent_room(
        self, state: StackSettings, names: Names, options: pulumi.ResourceOptions
    ) -> list[pulumi.Resource]:
        """The steering namespace and its account without any rights; none with SSH."""
        if state.kubernetes.node_access == "ssh":
            return []
        namespace = self._namespace(state, names, names.steering, NODE_LEVEL, options)
        account = ServiceAccount(
            agent.ACCOUNT,
            metadata={
                "name": names.own(agent.ACCOUNT),
                "namespace": names.steering,
                "labels": {ownership.ID: self._owner["id"]},
            },
            automount_service_account_token=False,
            opts=pulumi.ResourceOptions.merge(
                options, pulumi.ResourceOptions(parent=self, depends_on=namespace)
            ),
        )
        return [*namespace, account]


def told(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of an output whose refusal ends the program with its exit code."""

    def asked(value: Any) -> Any:
        try:
            return ask(value)
        except Refusal as refusal:
            leave(refusal.exit_code)
            raise pulumi.RunError(str(refusal)) from None

    return asked


def owned(state: StackSettings, names: Names, stdout: str) -> dict[str, str]:
    """The stack's owner (`ownership.Owner`), from the output of its claim.

    Raises `PrerequisiteMissing` where another stack has its namespaces by now.
    """
    owner = ownership.recorded(stdout)
    assert owner  # noqa: S101
    api, now = look(state.kubernetes.kubeconfig, state.kubernetes.context)
    refuse_other(now, owner)
    if names.namespace and not pulumi.runtime.is_dry_run():
        holder = ownership.Holder(user=owner.user, folder=owner.folder)
        ownership.claim(api, names, holder, owner.id)  # its Lease may have been deleted
    else:
        ownership.check(api, names, owner.id)
    return owner.model_dump()


def pin_of(owner: Mapping[str, str]) -> Pin:
    """The cluster of an owner (pure)."""
    return Pin(**{key: owner.get(key, "") for key in Pin.model_fields})


def running(
    state: StackSettings, names: Names, timeout: float, owner: Mapping[str, str]
) -> dict[str, NodePods]:
    """The running measured pods, by node.

    A recreated pod has a new uid, which changes the plan of its node. One that is just being
    recreated is awaited for `timeout` seconds: a plan without it would steer it no sooner than at
    the next repair.
    """
    from kubernetes.client import CoreV1Api

    api = connect(state.kubernetes.kubeconfig, pin_of(owner))
    end = time.monotonic() + timeout
    while True:
        with explained(f"listing the pods of {names.pods}"):
            listed = CoreV1Api(api).list_namespaced_pod(
                names.pods, label_selector=names.selector, _request_timeout=CALL_S
            )
        found = plan.by_node(listed.items)
        if (
            sum(len(one.uids) for one in found.values()) >= 2 * len(state.pairs)
            or time.monotonic() >= end
        ):
            return found
        time.sleep(0.5)


def refuse_replaced(state: StackSettings, root: Path) -> None:
    """Raise where another engine or another cluster has a stack that plain Pulumi runs in `root`."""
    if made_by.running() == made_by.EMBEDDED:
        return  # whose commands have asked before
    before = checkpoint.resources(checkpoint.path_of(root, pulumi.get_project(), state.stack))
    made_by.refuse_other(state.stack, before, made_by.PULUMI)
    if owner := ownership.of_checkpoint(before):
        refuse_other(look(state.kubernetes.kubeconfig, state.kubernetes.context)[1], owner)


def declare(state: StackSettings, nodes: Nodes | None = None) -> None:
    """Declare the stack, its measurement unless `runs` is 0, and the stack's outputs.

    Raises `PrerequisiteMissing` where the cluster does not answer or no node has the labels,
    `InvalidInput` where another engine created the stack.
    """
    refuse_replaced(state, Path.cwd())
    nodes = nodes or of_state(state)
    least = min(nodes.servers, key=lambda node: node.cpus)
    if state.steering.needs_cpus > least.cpus:
        raise InvalidInput(
            f"configuration: {state.configuration} needs {state.steering.needs_cpus} CPUs, "
            f"node {least.name} has {least.cpus}"
        )
    cluster = Cluster(state, nodes)
    measured.declare(
        state, lambda: measurement.of(state, nodes).to_stdin(), stands_on=cluster.ready
    )
