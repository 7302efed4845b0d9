"""The stacks of a cluster, found by their namespaces: whose they are, and their removal without a state."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from experiments.engines import StackRef
from experiments.engines import stacks as recorded
from experiments.targets.kubernetes import agents, drift
from infra import untrusted
from infra.errors import PrerequisiteMissing, Refusal
from infra.kubernetes import nodes, ownership
from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.admission import options_of
from infra.kubernetes.finalizer import Finalizer
from infra.kubernetes.names import DOCTOR, Names
from infra.kubernetes.ownership import Holder, Namespace, Owner
from infra.kubernetes.pinned import look, refuse_other
from infra.settings import Kubernetes, StackSettings

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# Timeout of the deletion of namespaces; seconds.
DELETED_S = 600.0
_PREFIX, _SUFFIX = "steerlab-", "-steering"


def refuse_replaced(stack: StackRef) -> list[Namespace]:
    """Raise `Refusal` where the namespaces in a stack's checkpoint are those of another stack by now.

    Returns the namespaces of a stack of the first version, which have no owner.
    """
    resources = recorded.resources(stack)
    api, uids = drift.cluster(resources), drift.uids(resources)
    if api is None:
        return []
    owner = ownership.of_checkpoint(resources)
    known = owner.id if owner else ""
    leased = bool(owner and owner.namespace)
    rooms = [owner.namespace] if owner and leased else uids
    there = [found for name in rooms if (found := ownership.find(api, name, leased=leased))]
    for found in there:
        if found.uid != uids.get(found.name) and not (known and found.id == known):
            raise Refusal(
                f"stack {stack.name} does not exist any more, and namespace {found.name} is another "
                f"one, of {found.holder if found.id else 'an unknown owner'}: nothing was changed; "
                f"remove the state: rm -- {quote(str(stack.checkpoint))}*"
            )
    return [found for found in there if found.made and not found.id]


def refuse_elsewhere(state: StackSettings) -> None:
    """Raise `PrerequisiteMissing` where the settings have another cluster by now than the stack's."""
    of = state.kubernetes
    if owner := ownership.of_checkpoint(recorded.recorded(state.stack)):
        refuse_other(look(of.kubeconfig, of.context)[1], owner)


def adopt(stack: StackRef, found: Sequence[Namespace]) -> None:
    """Record the owner of a stack of the first version, which its state proves, in its namespaces."""
    api = drift.cluster(recorded.resources(stack)) if found else None
    owner = Owner(
        **ownership.holder(stack.home.resolve().as_uri()).model_dump(), id=secrets.token_hex(8)
    )
    for namespace in found if api else ():
        ownership.mark(api, namespace, Names(stack.name), owner)


@dataclass(frozen=True)
class Stack:
    """A stack on a cluster; fields are empty where its owner is not known."""

    name: str
    namespaces: tuple[Namespace, ...]

    @property
    def id(self) -> str:
        return self.namespaces[0].id

    @property
    def holder(self) -> Holder:
        return self.namespaces[0].holder

    def __str__(self) -> str:
        first = self.namespaces[0]
        return f"{self.name} of {first.holder}, since {first.since}" if first.id else self.name


def stacks(api: ApiClient, namespace: str = "") -> dict[str, Stack]:
    """The stacks of a cluster by name; with `namespace` the one that an existing namespace has."""
    if namespace:
        leased = ownership.find(api, namespace, leased=True)
        return grouped([leased] if leased and leased.made else [])
    return grouped(one for one in ownership.listed(api) if one.made)


def grouped(found: Iterable[Namespace]) -> dict[str, Stack]:
    """The stacks of these namespaces by name (pure).

    A name of the first version is that of the namespace: it may have been shortened.
    """
    namespaces: dict[str, list[Namespace]] = {}
    for one in sorted(found, key=lambda one: one.name):
        name = one.stack or one.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        namespaces.setdefault(name, []).append(one)
    return {name: Stack(name, tuple(members)) for name, members in sorted(namespaces.items())}


def take_away(stands: Stack, of: Kubernetes) -> dict[str, Any]:
    """Restore the nodes of a stack, then delete its namespaces, or its objects in an existing one.

    Raises `Refusal` before anything is deleted where a node could not be restored; it can be called
    again.
    """
    api, pin = look(of.kubeconfig, of.context)
    pin = pin.model_copy(update={"namespace": of.namespace})
    guards = [guard.model_copy(update=dict(pin)) for guard in steered(api, stands, of)]
    with ThreadPoolExecutor(8) as pool:
        restored = list(pool.map(agents.restore, guards))
    for namespace in stands.namespaces:
        if namespace.leased:
            _empty(api, Names(stands.name, namespace.name), namespace.id)
        ownership.delete(api, namespace)
    end = time.monotonic() + DELETED_S
    for namespace in stands.namespaces:
        while (
            now := ownership.find(api, namespace.name, leased=namespace.leased)
        ) and now.uid == namespace.uid:
            if time.monotonic() > end:
                raise Refusal(
                    f"namespace {namespace.name} is not deleted after {DELETED_S:.0f} s: "
                    f"kubectl describe namespace {namespace.name}"
                )
            time.sleep(0.5)
    return {
        "stack": stands.name,
        **stands.holder.model_dump(),
        "nodes": [guard.node for guard in guards],
        "restored": sum(answer["restored"] for answer in restored),
        "left": [words for one in restored for words in (*one["left"], *one["warnings"])],
    }


def _empty(api: ApiClient, names: Names, id_: str) -> None:
    """Delete the objects of a stack, by its id, in an existing namespace, and wait for its pods to end."""
    from kubernetes.client import AppsV1Api, BatchV1Api, CoreV1Api, V1DeleteOptions

    core, apps, batch = CoreV1Api(api), AppsV1Api(api), BatchV1Api(api)
    place, options = names.namespace, V1DeleteOptions(propagation_policy="Background")
    with explained(f"deleting the objects of stack {names.stack} in namespace {place}"):
        for listed, delete in (
            (apps.list_namespaced_deployment, apps.delete_namespaced_deployment),
            (batch.list_namespaced_job, batch.delete_namespaced_job),
            (core.list_namespaced_service, core.delete_namespaced_service),
            (core.list_namespaced_service_account, core.delete_namespaced_service_account),
        ):
            found = listed(place, label_selector=f"{ownership.ID}={id_}", _request_timeout=CALL_S)
            for one in found.items:
                delete(one.metadata.name, place, body=options, _request_timeout=CALL_S)
        end = time.monotonic() + DELETED_S
        while core.list_namespaced_pod(
            place, label_selector=names.selector, _request_timeout=CALL_S
        ).items:
            if time.monotonic() > end:
                raise Refusal(
                    f"pods of stack {names.stack} are not deleted after {DELETED_S:.0f} s: "
                    f"kubectl get pods -n {place}"
                )
            time.sleep(0.5)


def steered(api: ApiClient, stands: Stack, of: Kubernetes) -> list[Finalizer]:
    """The steered nodes of a stack: those of its agents, or without agents (SSH) those of its pods.

    Raises `PrerequisiteMissing` where settings are needed to reach them.
    """
    from kubernetes.client import AppsV1Api

    if stands.name.startswith(DOCTOR) and not stands.id:
        return []
    deployed = []
    with explained(f"listing the Deployments of stack {stands.name}"):
        for one in stands.namespaces:
            labels = f"{ownership.ID}={one.id}" if one.leased else ""
            listed = AppsV1Api(api).list_namespaced_deployment(
                one.name, label_selector=labels, _request_timeout=CALL_S
            )
            deployed += listed.items
    agents_there = [
        one for one in deployed if one.spec.template.metadata.labels.get("steerlab/role") == "agent"
    ]
    if agents_there or not deployed:
        return [guard_of(one, stands, of) for one in agents_there]
    if of.node_access != "ssh":
        raise PrerequisiteMissing(
            f"the nodes of stack {stands.name} have no agent, so they are steered over SSH: add "
            "-c kubernetes.nodeAccess=ssh -c kubernetes.ssh='{...}'"
        )
    hostnames = {one.spec.template.spec.node_selector[nodes.HOSTNAME] for one in deployed}
    some = f"{nodes.HOSTNAME} in ({','.join(sorted(hostnames))})"
    return [
        Finalizer(
            stack=stands.name,
            id=stands.id,
            node=node.name,
            hostname=node.hostname,
            address=node.address,
            boot_id=node.boot_id,
            kubeconfig=of.kubeconfig,
            context=of.context,
            image="",
            ssh=of.ssh,
        )
        for node in nodes.every(api, some)
    ]


def guard_of(deployment: Any, stands: Stack, of: Kubernetes) -> Finalizer:
    """The node of an agent's Deployment, from the client's model."""
    with untrusted.reading(f"the Deployment {deployment.metadata.name}"):
        template = deployment.spec.template
        (container,) = template.spec.containers
        *_, owner = container.args
        stack, _, node = owner.partition("/")
        return Finalizer(
            stack=stack,
            id=stands.id,
            node=node,
            hostname=template.spec.node_selector[nodes.HOSTNAME],
            address=node,  # not used by a Job
            boot_id=template.metadata.annotations["steerlab/boot-id"],
            kubeconfig=of.kubeconfig,
            context=of.context,
            image=container.image,
            ssh=None,
            pods=options_of(template, deployment.metadata.namespace),
        )
