"""The data with which a node is restored: the contract between the stack and `destroy`."""

from __future__ import annotations

from pydantic import Field

from infra.kubernetes.names import Address
from infra.kubernetes.nodes import Node
from infra.kubernetes.pinned import Pin
from infra.settings import PodOptions, Ssh


class Finalizer(Pin):
    """One steered node and its access. Holds no credential: kubeconfig is a path."""

    stack: str
    id: str = ""  # of the stack; those of the first version have none
    node: str
    hostname: str
    address: Address
    boot_id: str
    kubeconfig: str
    image: str
    ssh: Ssh | None
    pods: PodOptions = Field(
        default=PodOptions(), exclude_if=lambda options: options == PodOptions()
    )


def restored(guard: Finalizer) -> Node:
    """The finalizer's node."""
    return Node(
        name=guard.node,
        hostname=guard.hostname,
        address=guard.address,
        boot_id=guard.boot_id,
        kernel="",
        cpus=1,
        ready=True,
    )
