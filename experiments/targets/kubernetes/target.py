"""A cluster as a target (`experiments.targets.contract.Target`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from analysis import files
from experiments.engines import StackRef, stacks
from experiments.host import lock
from experiments.targets.contract import AnyMeasurement, Backend, Drift, Findings
from infra import config
from infra.commands import how_ended
from infra.errors import PrerequisiteMissing
from infra.kubernetes import admission
from infra.kubernetes import measurement as measurements
from infra.kubernetes.measurement import ClusterMeasurement
from infra.kubernetes.nodes import Nodes, of_state
from infra.kubernetes.pinned import connect, kept, look
from infra.settings import StackSettings
from infra.traffic import DEFAULT

# The cluster of a sweep, in its results directory.
CLUSTER = "cluster.json"


def made(resources: Iterable[dict[str, Any]]) -> bool:
    from experiments.targets.kubernetes.drift import of_cluster

    return of_cluster(resources)


def require(kind: str = DEFAULT, *, removal: bool = False) -> None:
    del kind, removal  # nothing of this machine


def require_for(state: StackSettings) -> None:
    from experiments.targets.kubernetes import standing
    from experiments.targets.kubernetes.shell import SshShell, run

    of = state.kubernetes
    standing.refuse_elsewhere(state)
    if secrets := of.pods.image_pull_secrets:
        admission.require(look(of.kubeconfig, of.context)[0], secrets, of.namespace)
    for node in of_state(state).steered(state.steer_nodes == "both"):
        answer = run(SshShell(node.address, of.ssh), ("true",)) if of.node_access == "ssh" else None
        if answer and answer.status != 0:
            reason = answer.err.strip() or how_ended(answer.status)
            raise PrerequisiteMissing(f"ssh to node {node.name} ({node.address}): {reason}")


def busy(stack: str, what: str) -> AbstractContextManager[None]:
    return lock.machine(what, stacks.ROOT / ".pulumi" / "busy" / stack)


def refuse_foreign(stack: StackRef) -> None:
    """The claim of a new stack is refused by its cluster."""
    from experiments.targets.kubernetes import standing

    standing.adopt(stack, standing.refuse_replaced(stack))


def refuse_replaced(stack: StackRef) -> None:
    from experiments.targets.kubernetes import standing

    standing.refuse_replaced(stack)


def pinned(state: StackSettings, directory: Path) -> dict[str, str]:
    """The cluster is that of the kubeconfig when the experiment started, whatever is current later."""
    of, path = state.kubernetes, directory / CLUSTER
    if pin := kept(path):
        pin = pin.model_copy(update={"context": of.context or pin.context})
        connect(of.kubeconfig, pin)
    else:
        pin = look(of.kubeconfig, of.context)[1]
        files.write(path, f"{pin.model_dump_json(indent=1)}\n".encode())
    return {"kubernetes.context": pin.context} if pin.context and not of.context else {}


def cpus(state: StackSettings) -> int:
    return min(node.cpus for node in of_state(state).servers)


def steered(state: StackSettings) -> int:
    return len(of_state(state).steered(state.steer_nodes == "both"))


def nodes(state: StackSettings) -> Nodes:
    return of_state(state)


def measurement(state: StackSettings, nodes: Any) -> ClusterMeasurement:
    return measurements.of(state, nodes)


def require_up(what: AnyMeasurement) -> None:
    del what  # the engine's preview shows what is missing


def backend(what: Any) -> Backend:
    from experiments.targets.kubernetes.backend import KubernetesBackend

    return KubernetesBackend(what)


def drifted(resources: Sequence[dict[str, Any]]) -> list[Drift]:
    from experiments.targets.kubernetes import drift

    return drift.drifted(resources)


def restore(found: Iterable[Drift]) -> None:
    del found  # what replaces a drifted node's steering restores it first


def finish(stack: StackRef) -> None:
    del stack  # the API has no half-made objects


def leftover() -> str:
    return ""


def examine(changes: dict[str, str]) -> Findings:
    from experiments.targets.kubernetes import doctor

    # the settings whose steering requires the most of a node
    values = {"configuration": "rfs-plus", "replicas": "1", "target": "kubernetes"}
    return doctor.examine(config.state("doctor", values | changes))
