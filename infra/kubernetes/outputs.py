"""Outputs of a cluster's stack: where it is, which nodes it uses, and how these are restored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import pulumi
from pulumi_kubernetes.batch.v1 import Job

from infra import untrusted
from infra.commands import command
from infra.kubernetes.names import Names
from infra.kubernetes.nodes import Nodes
from infra.settings import StackSettings


def export(
    state: StackSettings,
    nodes: Nodes,
    place: pulumi.Output[dict[str, str]],
    steered: Sequence[pulumi.CustomResource],
) -> None:
    """Declare the outputs; `place` has the context and the server, `steered` is the steering of each node."""
    of = state.kubernetes
    names = Names(state.stack, of.namespace)
    pulumi.export("cluster", place)
    pulumi.export(
        "nodes",
        {
            "server": [node.name for node in nodes.servers],
            "client": [node.name for node in nodes.clients],
        },
    )
    rooms = [names.pods, *([names.steering] if of.node_access == "job" else [])]
    pulumi.export("namespaces", list(dict.fromkeys(rooms)))
    pulumi.export("restore", place.apply(lambda known: restore_command(state, known["context"])))
    applied = pulumi.Output.all(*map(_applied, steered))
    pulumi.export("lease_end", applied.apply(lambda times: lease_end(times, state.lease_seconds)))


def restore_command(state: StackSettings, context: str) -> str:
    """The command that restores the nodes and removes the stack, also on another machine (pure).

    It names the recorded context: another one may be current by then.
    """
    of = state.kubernetes
    keys = {
        "kubernetes.kubeconfig": of.kubeconfig,
        "kubernetes.context": of.context or context,
        "kubernetes.namespace": of.namespace,
    }
    if of.node_access == "ssh":
        ssh = of.ssh.model_dump_json(by_alias=True, exclude_defaults=True)
        keys |= {"kubernetes.nodeAccess": "ssh", "kubernetes.ssh": ssh}
    words = [word for key, value in keys.items() if value for word in ("-c", f"{key}={value}")]
    return command("destroy", "--cluster", "-s", state.stack, *words)


def _applied(one: pulumi.CustomResource) -> pulumi.Output[str | None]:
    """When a node was steered: the completion of its Job, or what the hook printed (SSH)."""
    if isinstance(one, Job):
        done: pulumi.Output[str | None] = one.status.apply(
            lambda status: status and status.completion_time
        )
        return done
    stdout: pulumi.Output[str] = one.stdout  # type: ignore[attr-defined]
    return stdout.apply(lambda text: untrusted.parsed(text).get("applied_at") if text else None)


def lease_end(applied: Iterable[str | None], seconds: int | None) -> str | None:
    """When the first node restores itself, if no run renews its lease (pure); None without a lease."""
    times = [datetime.fromisoformat(one) for one in applied if one]
    if seconds is None or not times:
        return None
    return (min(times) + timedelta(seconds=seconds)).astimezone(UTC).isoformat(timespec="seconds")
