"""A node of the lab: a network namespace that forwards like a Kubernetes node."""

from __future__ import annotations

import pulumi

from infra.lab.layout import Node
from infra.lab.script import (
    create_script,
    delete_script,
    lab_command,
    part,
    remove_namespace,
    settings,
)

# Proxy ARP answers for 169.254.1.1 without a random delay, as with Calico.
_SETTINGS = {
    "net/ipv4/conf/*/forwarding": 1,
    "net/ipv4/conf/*/proxy_arp": 1,
    "net/ipv4/neigh/default/proxy_delay": 0,
}


def declare(
    where: Node, boot_id: str, claim: pulumi.Resource, *, parent: pulumi.Resource
) -> pulumi.CustomResource:
    """One namespace with its forwarding settings."""
    undo = [remove_namespace(where.namespace)]
    return lab_command(
        f"{where.side}-namespace",
        create=create_script(
            [
                f"ip netns add {where.namespace}",
                f"ip -n {where.namespace} link set lo up",
                settings(where.namespace, _SETTINGS),
            ],
            undo,
            {"namespaces": {where.namespace: ["lo"]}},
        ),
        delete=delete_script(undo),
        triggers=[boot_id],
        parent=part("Node", where.side, parent),
        depends_on=[claim],
    )
