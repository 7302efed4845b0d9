"""The wire: a veth pair that emulates a single-queue NIC on each node.

Without segmentation offloads, the receiver gets packets of MTU size, one by one. The steering of the
server's eth1 sets the core that a single-queue NIC would interrupt.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from infra.lab.layout import WIRE, WIRE_MTU, Node
from infra.lab.script import (
    create_script,
    delete_script,
    inside,
    ip_batch,
    lab_command,
    part,
    remove_link,
)

_OFFLOADS_OFF = ("tso", "off", "gso", "off", "gro", "off")


def declare(
    server: Node, client: Node, stands_on: Sequence[pulumi.Input[str]], *, parent: pulumi.Resource
) -> pulumi.CustomResource:
    """eth1 of both nodes, with addresses and the default route that proxy ARP needs."""
    undo = [remove_link(server.namespace, WIRE), remove_link(client.namespace, WIRE)]
    return lab_command(
        "wire-veth",
        create=create_script(
            [
                f"ip link add {WIRE} netns {server.namespace} type veth"
                f" peer name {WIRE} netns {client.namespace}",
                *(line for node in (server, client) for line in _bring_up(node)),
            ],
            undo,
            {"namespaces": {node.namespace: [WIRE] for node in (server, client)}},
        ),
        delete=delete_script(undo),
        triggers=stands_on,
        parent=part("Wire", "wire", parent),
    )


def _bring_up(node: Node) -> list[str]:
    return [
        inside(node.namespace, "ethtool", "-K", WIRE, *_OFFLOADS_OFF) + " >/dev/null",
        ip_batch(
            [
                f"addr add {node.address}/24 dev {WIRE}",
                f"link set {WIRE} mtu {WIRE_MTU} up",
                f"route add default via {node.peer.address} dev {WIRE}",
            ],
            node.namespace,
        ),
    ]
