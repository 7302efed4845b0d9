"""The wires of the test cluster: a switch, a veth for each node, and Calico's VXLAN between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rig.command import run
from rig.layout import NET, SWITCH, UPLINK, NodeLayout

_OFF = ("tso", "off", "gso", "off", "gro", "off")


def lay(nodes: Sequence[NodeLayout]) -> None:
    """Make the switch, the nodes' namespaces, `eth1` and `vxlan.calico`.

    Segmentation offloads are off on `eth1`, so that a receiver gets packets as from a wire, and
    GRO on the overlay too, as in the lab.
    """
    run("ip", "netns", "add", SWITCH)
    _batch(SWITCH, "link add br0 type bridge", "link set br0 up")
    run("ip", "link", "add", UPLINK, "type", "veth", "peer", "name", "uplink", "netns", SWITCH)
    _batch(SWITCH, "link set uplink master br0 up")
    run("ip", "address", "add", f"{NET}.1/24", "dev", UPLINK)
    run("ip", "link", "set", UPLINK, "up")
    for node in nodes:
        run("ip", "netns", "add", node.netns)
        run("ip", "-n", SWITCH, "link", "add", f"to-{node.name}", "type", "veth", "peer", "name", "eth1",
            "netns", node.netns)  # fmt: skip
        _batch(SWITCH, f"link set to-{node.name} master br0 up")
        _batch(
            node.netns,
            "link set lo up",
            f"address add {node.address}/24 dev eth1",
            "link set eth1 up",
            # what makes Service addresses routable, and proxy ARP answer for 169.254.1.1
            f"route add default via {NET}.1",
        )
        inside = ("ip", "netns", "exec", node.netns)
        run(*inside, "ethtool", "-K", "eth1", *_OFF)
        run("ip", "netns", "exec", SWITCH, "ethtool", "-K", f"to-{node.name}", *_OFF)
        run(*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        _overlay(node, nodes)
        run(*inside, "ethtool", "-K", "vxlan.calico", "gro", "off")


def _overlay(node: NodeLayout, nodes: Sequence[NodeLayout]) -> None:
    """As Calico's Felix does: one route, neighbour and forwarding entry for each peer."""
    device = "vxlan.calico"
    _batch(
        node.netns,
        f"link add {device} address {node.mac} mtu 1450 type vxlan id 4096 dstport 4789 "
        f"local {node.address} dev eth1 nolearning",
        f"address add {node.pods}.0/32 dev {device}",
        f"link set {device} up",
        *(
            line
            for peer in nodes
            if peer is not node
            for line in (
                f"neigh add {peer.pods}.0 lladdr {peer.mac} dev {device} nud permanent",
                f"route add {peer.pods}.0/24 via {peer.pods}.0 dev {device} onlink",
            )
        ),
    )
    for peer in nodes:
        if peer is not node:
            run("bridge", "-n", node.netns, "fdb", "add", peer.mac, "dev", device, "dst",
                peer.address)  # fmt: skip


def route_without_tunnel(nodes: Sequence[NodeLayout], *, keep: bool) -> None:
    """Route pods through the nodes' eth1, as VXLANCrossSubnet does in one subnet; `keep` the tunnel devices."""
    for node in nodes:
        if not keep:
            _batch(node.netns, "link del vxlan.calico")
        routes = [
            f"route replace {p.pods}.0/24 via {p.address} dev eth1" for p in nodes if p != node
        ]
        _batch(node.netns, *routes)


def route_by_tunnel(nodes: Sequence[NodeLayout]) -> None:
    """Undo `route_without_tunnel`."""
    for node in nodes:
        _batch(node.netns, *(f"route del {p.pods}.0/24 dev eth1" for p in nodes if p != node))
        if "vxlan.calico" in run("ip", "-n", node.netns, "link"):
            _batch(node.netns, "link del vxlan.calico")
        _overlay(node, nodes)
        run("ip", "netns", "exec", node.netns, "ethtool", "-K", "vxlan.calico", "gro", "off")


def _batch(netns: str, *lines: str) -> None:
    run("ip", "-n", netns, "-batch", "-", text="\n".join(lines) + "\n")


def take_away(nodes: Sequence[NodeLayout]) -> None:
    """Remove what `lay` made; what is gone is left alone."""
    for netns in (*(node.netns for node in nodes), SWITCH):
        if Path("/run/netns", netns).exists():
            run("ip", "netns", "delete", netns)
    if Path("/sys/class/net", UPLINK).exists():
        run("ip", "link", "delete", UPLINK)
