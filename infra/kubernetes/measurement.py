"""A cluster's measurement: the document that a stack declares and the measuring command reads."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.configurations import Configuration
from infra.kubernetes.names import Address, Names
from infra.kubernetes.nodes import Node, Nodes, owners_of_table
from infra.kubernetes.pinned import Pin
from infra.settings import Ssh, StackSettings
from infra.traffic import DEFAULT, Named


class NodeOf(BaseModel):
    """A node that is measured; `shares` is one with the same kernel, whose CPU figures it has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    address: Address
    kernel_id: str
    side: Literal["server", "client"]
    steered: bool
    owner: str
    owns_flow_table: bool


class ClusterMeasurement(Pin):
    """A converged stack of a cluster and how long to measure it; seconds are whole.

    `wanted` is the steering that the agent compares with each steered node and its running pods.
    """

    target: Literal["kubernetes"] = "kubernetes"
    stack: str
    configuration: str
    definition: str
    wanted: Configuration
    lease_seconds: int | None
    replicas: int
    path: Literal["overlay"] = "overlay"
    runs: int
    duration: int
    omit: int
    streams: int
    traffic: Named = DEFAULT
    pod_cpu_limit: str | None
    via: Literal["service", "pod"]
    overlay_device: str
    nic: str = Field(default="auto", exclude_if=lambda name: name == "auto")
    kubeconfig: str
    pods: str
    steering: str
    ssh: Ssh | None
    nodes: tuple[NodeOf, ...]

    def to_stdin(self) -> str:
        return self.model_dump_json()


def of(state: StackSettings, nodes: Nodes) -> ClusterMeasurement:
    """The measurement of a state on the nodes that it uses (pure)."""
    of = state.kubernetes
    names = Names(state.stack, of.namespace)
    chosen = nodes.steered(state.steer_nodes == "both")
    steered, tables = {node.name for node in chosen}, owners_of_table(chosen)

    def used(node: Node, side: Literal["server", "client"]) -> NodeOf:
        return NodeOf(
            name=node.name,
            address=node.address,
            kernel_id=node.kernel_id,
            side=side,
            steered=node.name in steered,
            owner=names.owner(node.name),
            owns_flow_table=node.name in tables,
        )

    return ClusterMeasurement(
        stack=state.stack,
        configuration=state.configuration,
        definition=state.steering.definition,
        wanted=state.steering,
        lease_seconds=state.lease_seconds,
        replicas=state.replicas,
        runs=state.runs,
        duration=state.duration,
        omit=state.omit,
        streams=state.streams,
        traffic=state.traffic,
        pod_cpu_limit=state.pod_cpu_limit or None,
        via=of.via,
        overlay_device=of.overlay_device,
        nic=of.nic,
        kubeconfig=of.kubeconfig,
        context=of.context or nodes.cluster.context,
        server=nodes.cluster.server,
        cluster=nodes.cluster.cluster,
        namespace=of.namespace,
        pods=names.pods,
        steering=names.steering,
        ssh=of.ssh if of.node_access == "ssh" else None,
        nodes=(
            *(used(node, "server") for node in nodes.servers),
            *(used(node, "client") for node in nodes.clients),
        ),
    )
