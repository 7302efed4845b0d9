"""The lab's measurement: the document that a stack declares and the measuring command reads."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.cores import Cores
from infra.lab import layout
from infra.lab.plan import node_plan, steered_nodes
from infra.settings import Form, StackSettings
from infra.traffic import DEFAULT, Named


class Endpoint(BaseModel):
    """One pair: where its client runs, and the address and port of its server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    address: str
    port: int
    server_namespace: str
    client_namespace: str
    server_cgroup: str | None
    client_cgroup: str | None


class Measurement(BaseModel):
    """A converged lab and how long to measure it; seconds are whole.

    `plans` are the steering of each steered node, which the agent compares with the machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Literal["lab"] = "lab"
    stack: str
    configuration: str
    definition: str
    replicas: int
    path: Literal["overlay", "host"]
    form: Form = Field(default="study", exclude_if=lambda form: form == "study")
    queues: int = Field(default=1, exclude_if=lambda number: number == 1)
    runs: int
    duration: int
    omit: int
    streams: int
    traffic: Named = DEFAULT
    cores: Cores
    pod_cpu_limit: str | None
    server_node: str
    client_node: str
    plans: tuple[dict[str, Any], ...]
    pairs: tuple[Endpoint, ...]

    def to_stdin(self) -> str:
        return self.model_dump_json()


def of(state: StackSettings) -> Measurement:
    """The measurement of a state (pure)."""
    server, client = layout.nodes(state.stack)
    return Measurement(
        stack=state.stack,
        configuration=state.configuration,
        definition=state.steering.definition,
        replicas=state.replicas,
        path=state.lab.path,
        form=state.lab.form,
        queues=state.lab.queues,
        runs=state.runs,
        duration=state.duration,
        omit=state.omit,
        streams=state.streams,
        traffic=state.traffic,
        cores=state.cores,
        pod_cpu_limit=state.pod_cpu_limit or None,
        server_node=server.namespace,
        client_node=client.namespace,
        plans=tuple(node_plan(state, node) for node in steered_nodes(state)),
        pairs=tuple(_endpoint(state, index) for index in state.pairs),
    )


def _endpoint(state: StackSettings, index: int) -> Endpoint:
    pair = layout.pair(state.stack, index, host=state.lab.path == "host")
    limited = bool(state.pod_cpu_limit)
    return Endpoint(
        index=index,
        address=str(pair.address),
        port=pair.port,
        server_namespace=pair.server_namespace,
        client_namespace=pair.client_namespace,
        server_cgroup=pair.server.cgroup if limited else None,
        client_cgroup=pair.client.cgroup if limited else None,
    )
