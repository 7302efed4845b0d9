"""The targets: what each asks of this machine, its lock, its backend, and how drift is seen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from experiments.engines import stacks
from experiments.host import lock
from experiments.targets.contract import AnyMeasurement, Backend, Drift
from experiments.targets.lab import drift as lab_drift
from experiments.targets.lab import requirements
from infra.config import StackSettings
from infra.errors import PrerequisiteMissing
from infra.kubernetes.measurement import ClusterMeasurement


def of(resources: Sequence[dict[str, Any]]) -> str:
    """The target of what a stack's checkpoint holds."""
    from experiments.targets.kubernetes.drift import of_cluster

    return "kubernetes" if of_cluster(resources) else "lab"


def require(target: str, *, removal: bool = False) -> None:
    """Raise `PrerequisiteMissing` where this machine lacks what the target needs, or its removal."""
    if target == "lab":
        requirements.require_lab(removal=removal)


def require_for(state: StackSettings) -> None:
    """The same for a state; of a cluster also its nodes, and that they can be reached."""
    require(state.target)
    if state.target != "kubernetes":
        return
    from experiments.targets.kubernetes.shell import SshShell, run
    from infra.kubernetes.nodes import of_state

    nodes = of_state(state).steered(state.steer_nodes == "both")
    for node in nodes if state.node_access == "ssh" else ():
        answer = run(SshShell(node.address, state.ssh), ("true",))
        if answer.status != 0:
            raise PrerequisiteMissing(
                f"ssh to node {node.name} ({node.address}): {answer.err.strip()}"
            )


def busy(target: str, stack: str, what: str) -> AbstractContextManager[None]:
    """Hold the lab's machine, or a cluster's stack, alone."""
    if target == "lab":
        return lock.machine(what)
    return lock.machine(what, stacks.ROOT / ".pulumi" / "busy" / stack)


def backend(what: AnyMeasurement) -> Backend:
    """The machines of a measurement."""
    if isinstance(what, ClusterMeasurement):
        from experiments.targets.kubernetes.backend import KubernetesBackend

        return KubernetesBackend(what)
    from experiments.targets.lab.backend import LabBackend

    return LabBackend(what)


def drifted(resources: Sequence[dict[str, Any]]) -> list[Drift]:
    """What of a stack is gone or was changed by hand."""
    from experiments.targets.kubernetes import drift

    return drift.drifted(resources) if drift.of_cluster(resources) else lab_drift.drifted(resources)
