"""The overlay: Calico's VXLAN device on both nodes, with static neighbours and routes."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from infra.lab.layout import OVERLAY, OVERLAY_MTU, VNI, VXLAN_PORT, WIRE, Node
from infra.lab.script import (
    create_script,
    delete_script,
    inside,
    ip_batch,
    lab_command,
    part,
    remove_link,
)
from infra.settings import Form


def declare(
    server: Node,
    client: Node,
    stands_on: Sequence[pulumi.Input[str]],
    form: Form,
    *,
    parent: pulumi.Resource,
) -> pulumi.CustomResource:
    """`vxlan.calico` on both nodes; in the form study with GRO off, so that each packet crosses the network stack by itself."""
    undo = [remove_link(node.namespace, OVERLAY) for node in (server, client)]
    return lab_command(
        "overlay-vxlan",
        create=create_script(
            [line for node in (server, client) for line in _bring_up(node, form)],
            undo,
            {
                "namespaces": {node.namespace: [OVERLAY] for node in (server, client)},
                **({} if form == "study" else {"form": form}),
            },
        ),
        delete=delete_script(undo),
        triggers=stands_on,
        parent=part("Overlay", "overlay", parent),
    )


def _bring_up(node: Node, form: Form) -> list[str]:
    peer = node.peer
    offloads = inside(node.namespace, "ethtool", "-K", OVERLAY, "gro", "off") + " >/dev/null"
    return [
        ip_batch(
            [
                f"link add {OVERLAY} address {node.tunnel_mac} mtu {OVERLAY_MTU} type vxlan"
                f" id {VNI} dstport {VXLAN_PORT} local {node.address} dev {WIRE} nolearning",
                f"addr add {node.tunnel}/32 dev {OVERLAY}",
                f"link set {OVERLAY} up",
                f"neigh add {peer.tunnel} lladdr {peer.tunnel_mac} dev {OVERLAY} nud permanent",
                f"route add {peer.pods} via {peer.tunnel} dev {OVERLAY} onlink",
            ],
            node.namespace,
        ),
        ip_batch(
            [f"fdb append {peer.tunnel_mac} dev {OVERLAY} dst {peer.address}"],
            node.namespace,
            tool="bridge",
        ),
        *([offloads] if form == "study" else []),
    ]
