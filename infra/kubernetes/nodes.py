"""The nodes of a cluster that a stack uses, found by their labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from infra import untrusted
from infra.commands import quoted
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.names import checked_address
from infra.kubernetes.pinned import UNKNOWN, Pin, look
from infra.settings import Kubernetes, Pairing, StackSettings, Toleration

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

HOSTNAME = "kubernetes.io/hostname"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
# Nodes in one answer of the API server: one of a cloud has some 10 kB.
PAGE = 250
# Names in a message.
_FEW = 5


@dataclass(frozen=True)
class Node:
    """One node, from the API."""

    name: str
    hostname: str
    address: str
    boot_id: str
    kernel: str
    cpus: int
    ready: bool
    system_uuid: str = ""  # empty where it does not identify the machine
    taints: tuple[Toleration, ...] = ()  # those that keep pods away, as what tolerates them
    instance_type: str = ""

    @property
    def kernel_id(self) -> str:
        """An identity of the kernel, which several nodes may share.

        Virtual machines that were cloned while running share a boot id, but not a system UUID.
        """
        return f"{self.boot_id} {self.system_uuid}"


@dataclass(frozen=True)
class Nodes:
    """The nodes of both sides, sorted by name, and their cluster."""

    servers: tuple[Node, ...]
    clients: tuple[Node, ...]
    cluster: Pin = UNKNOWN
    pairing: Pairing = "round-robin"

    def steered(self, both: bool) -> tuple[Node, ...]:
        return (*self.servers, *self.clients) if both else self.servers

    def server_of(self, index: int) -> Node:
        """The server node of a pair, counted from 1."""
        return self.servers[(index - 1) % len(self.servers)]

    def client_of(self, index: int) -> Node:
        """Round robin; with pairing mesh the next client node after each round of the server nodes."""
        turn, place = divmod(index - 1, len(self.servers))
        at = turn + place if self.pairing == "mesh" else index - 1
        return self.clients[at % len(self.clients)]


def of_state(state: StackSettings) -> Nodes:
    """The nodes of a stack, from its cluster; raises like `find`, and `InvalidInput` for a mesh with too few pairs."""
    of = state.kubernetes
    api, pin = look(of.kubeconfig, of.context)
    found = replace(find(api, of), cluster=pin)
    return paired(found, of.pairing, state.replicas)


def paired(nodes: Nodes, pairing: Pairing, replicas: int) -> Nodes:
    """The nodes with their pairing (pure). Raises `InvalidInput` for a mesh with too few pairs."""
    least = len(nodes.servers) * len(nodes.clients)
    if pairing == "mesh" and replicas < least:
        raise InvalidInput(
            f"replicas: a mesh of {len(nodes.servers)} server and {len(nodes.clients)} client nodes "
            f"needs {least} pairs, and there are {replicas}: set replicas to at least {least}, or "
            "kubernetes.pairing to round-robin"
        )
    return replace(nodes, pairing=pairing)


def find(api: ApiClient, of: Kubernetes) -> Nodes:
    """The ready nodes of both selectors.

    Raises `PrerequisiteMissing` where a selector finds no node, one that is not ready or one that takes
    none of the measured pods, and `InvalidInput` for a node with both roles.
    """
    some = partial(_listed, api, most=_FEW + 1)
    servers, clients = (
        choose(_listed(api, selector), key, selector, of.pods.tolerations, some)
        for key, selector in (
            ("serverSelector", of.server_selector),
            ("clientSelector", of.client_selector),
        )
    )
    if both := sorted({node.name for node in servers} & {node.name for node in clients}):
        raise InvalidInput(
            f"serverSelector: {of.server_selector} and clientSelector {of.client_selector} both select "
            f"node {both[0]}: a pair on one node would not use the overlay"
        )
    return Nodes(servers, clients)


def every(api: ApiClient, selector: str = "") -> list[Node]:
    """All nodes of a cluster, or those of a selector of labels as kubectl's."""
    return [_node(node) for node in _listed(api, selector)]


def named(api: ApiClient, names: Sequence[str]) -> list[Node]:
    """The nodes of these names that the cluster has; with the right to list alone."""
    return [_node(one) for name in names for one in _listed(api, fields=f"metadata.name={name}")]


def _listed(
    api: ApiClient, selector: str = "", most: int | None = None, fields: str = ""
) -> list[Any]:
    """The nodes with these labels and fields, asked for page by page, or `most` of them."""
    from kubernetes.client import CoreV1Api

    core, found, more = CoreV1Api(api), [], ""
    while True:
        with explained("listing the cluster's nodes"):
            page = core.list_node(
                label_selector=selector, field_selector=fields, limit=most or PAGE, _continue=more,
                _request_timeout=CALL_S,
            )  # fmt: skip
        found += page.items
        more = page.metadata._continue
        if not more or most:
            return found


def choose(
    listed: Sequence[Any],
    key: str,
    selector: str,
    tolerations: Sequence[Toleration] = (),
    others: Callable[[], Sequence[Any]] = list,
) -> tuple[Node, ...]:
    """The nodes that were listed for a selector, by name; `others` are named where there is none."""
    found = sorted(map(_node, listed), key=lambda node: node.name)
    if not found:
        names = [node.metadata.name for node in others()]
        known = ", ".join([*names[:_FEW], *["..."] * (len(names) > _FEW)]) or "none"
        raise PrerequisiteMissing(
            f"{key}: no node has the label {selector} (nodes: {known}): "
            f"kubectl label node NODE {quoted(*selector.split(','))}"
        )
    if unready := [node.name for node in found if not node.ready]:
        raise PrerequisiteMissing(
            f"{key}: node {unready[0]} is not Ready: kubectl describe node {quoted(unready[0])}"
        )
    for node in found:
        for taint in node.taints:
            if not any(tolerates(one, taint) for one in tolerations):
                raise PrerequisiteMissing(f"{key}: {_refuses(node.name, taint, tolerations)}")
    if sixes := [node for node in found if ":" in node.address]:
        raise PrerequisiteMissing(
            f"{key}: the first address of node {sixes[0].name} is {sixes[0].address}, so its pods have "
            "IPv6 addresses, and pairs are measured over IPv4: use a cluster whose first IP family is IPv4"
        )
    return tuple(found)


# The taint of a cordoned node.
_CORDONED = "node.kubernetes.io/unschedulable"


def tolerates(one: Toleration, taint: Toleration) -> bool:
    """Whether a pod with a toleration is admitted to a node with a taint (pure)."""
    return (
        one.effect in ("", taint.effect)
        and (one.key == taint.key or not one.key)
        and (one.operator == "Exists" or one.value == taint.value)
    )


def _refuses(node: str, taint: Toleration, tolerations: Sequence[Toleration]) -> str:
    """That a node takes no measured pods, and the remedy (pure)."""
    if taint.key == _CORDONED:
        return f"node {node} is cordoned: kubectl uncordon {quoted(node)}"
    wanted = [one.model_dump(exclude_defaults=True) for one in (*tolerations, taint)]
    value = f"={taint.value}" if taint.value else ""
    setting = f"kubernetes.pods.tolerations={json.dumps(wanted)}"
    return (
        f"node {node} has the taint {taint.key}{value}:{taint.effect}, which the measured pods do "
        f"not tolerate: add -c {quoted(setting)}, or choose other nodes"
    )


def _taints(spec: Any) -> Iterator[Toleration]:
    """The taints of a node that keep pods away, from the client's model of its spec."""
    if spec.unschedulable:
        yield Toleration(key=_CORDONED, effect="NoSchedule")
    for one in spec.taints or ():
        if one.effect != "PreferNoSchedule" and one.key != _CORDONED:
            with untrusted.reading("a node's taint"):
                yield Toleration(key=one.key, value=one.value or "", effect=one.effect)


def _node(node: Any) -> Node:
    """From the client's model of a node."""
    conditions = {condition.type: condition.status for condition in node.status.conditions or []}
    internal = [one.address for one in node.status.addresses or [] if one.type == "InternalIP"]
    labels = node.metadata.labels or {}
    name = node.metadata.name
    try:
        address = checked_address(internal[0] if internal else name)
    except ValueError as error:
        raise PrerequisiteMissing(
            f"node {name}: its address {error}: kubectl get node {name} -o wide"
        ) from None
    is_kind = (node.spec.provider_id or "").startswith("kind://")
    return Node(
        name=name,
        hostname=labels.get(HOSTNAME, name),
        address=address,
        boot_id=node.status.node_info.boot_id,
        kernel=node.status.node_info.kernel_version,
        cpus=cpus_of(str(node.status.capacity["cpu"])),
        ready=conditions.get("Ready") == "True",
        instance_type=labels.get(INSTANCE_TYPE, ""),
        # kind's nodes are containers of one machine, each with its own UUID
        system_uuid="" if is_kind else node.status.node_info.system_uuid,
        taints=tuple(_taints(node.spec)),
    )


def cpus_of(quantity: str) -> int:
    """The whole CPUs of a Kubernetes quantity, `4` or `3920m` (pure). Raises `PrerequisiteMissing`."""
    with untrusted.reading("a node's number of CPUs"):
        count = untrusted.whole(quantity.removesuffix("m"))
    return max(1, count // 1000) if quantity.endswith("m") else count


def owners_of_table(nodes: Sequence[Node]) -> set[str]:
    """The first node of each kernel: nodes of one kernel share one flow table (pure)."""
    first: dict[str, str] = {}
    for node in nodes:
        first.setdefault(node.kernel_id, node.name)
    return set(first.values())
