"""The wire: a veth pair that emulates the server's NIC, with one receive queue or with several.

Without segmentation offloads (form study), the receiver gets packets of MTU size, one by one. The steering of
the server's eth1 sets the core that the NIC's queue would interrupt.

With several queues the client's end chooses by the hash of a flow, as RSS does. A NIC looks the low bits of
its hash up in a table; a veth gives a flow that leaves by tx-N to rx-(N-1), and tx-0 to rx-0, too. So each entry of
that table is a receive queue of the veth, and XPS, which spreads over tx-1 and the following by the high bits of
the hash, leaves tx-0 out. RPS and RFS use the high bits, too: with one entry for each queue they would
choose the core that the queue already has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from agent.values import format_mask, mask_of
from infra import cores
from infra.lab.layout import WIRE, WIRE_MTU, Node, device_queues
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

_OFFLOADS_OFF = ("tso", "off", "gso", "off", "gro", "off")


def declare(
    server: Node,
    client: Node,
    stands_on: Sequence[pulumi.Input[str]],
    form: Form,
    queues: int,
    *,
    parent: pulumi.Resource,
) -> pulumi.CustomResource:
    """eth1 of both nodes, with addresses and the default route that proxy ARP needs."""
    undo = [remove_link(server.namespace, WIRE), remove_link(client.namespace, WIRE)]
    receives = sends = ""
    spread: list[str] = []
    more: dict[str, Any] = {} if form == "study" else {"form": form}
    if queues > 1:
        number = device_queues(queues)
        receives = f" numrxqueues {number} numtxqueues 1"
        sends = f" numrxqueues 1 numtxqueues {number}"
        spread = [_spread(client, number)]
        more["queues"] = {server.namespace: {WIRE: number}}
    return lab_command(
        "wire-veth",
        create=create_script(
            [
                f"ip link add {WIRE}{receives} netns {server.namespace} type veth"
                f" peer name {WIRE}{sends} netns {client.namespace}",
                *spread,
                *(line for node in (server, client) for line in _bring_up(node, form)),
            ],
            undo,
            {"namespaces": {node.namespace: [WIRE] for node in (server, client)}, **more},
        ),
        delete=delete_script(undo),
        triggers=stands_on,
        parent=part("Wire", "wire", parent),
    )


def _spread(client: Node, number: int) -> str:
    """Send by the hash of a flow through every queue but tx-0, from whatever CPU."""
    mask = format_mask(mask_of(cores.possible()))
    write = (
        f"for n in $(seq 1 {number - 1}); do"
        f" echo {mask} > /sys/class/net/{WIRE}/queues/tx-$n/xps_cpus; done"
    )
    return inside(client.namespace, "sh", "-ec", write)


def _bring_up(node: Node, form: Form) -> list[str]:
    offloads = inside(node.namespace, "ethtool", "-K", WIRE, *_OFFLOADS_OFF) + " >/dev/null"
    return [
        *([offloads] if form == "study" else []),
        ip_batch(
            [
                f"addr add {node.address}/24 dev {WIRE}",
                f"link set {WIRE} mtu {WIRE_MTU} up",
                f"route add default via {node.peer.address} dev {WIRE}",
            ],
            node.namespace,
        ),
    ]
