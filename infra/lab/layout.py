"""Names and addresses of the lab (pure), for its construction and its measurement.

pod eth0 -- cali* [server node] eth1 -- eth1 [client node] cali* -- eth0 pod
                  vxlan.calico                vxlan.calico
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from infra.traffic.contract import PORT

Side = Literal["server", "client"]

WIRE = "eth1"
OVERLAY = "vxlan.calico"
VNI = 4096
VXLAN_PORT = 4789
WIRE_MTU = 1500
OVERLAY_MTU = WIRE_MTU - 50  # outer Ethernet, IPv4, UDP and VXLAN headers (RFC 7348)
GATEWAY = IPv4Address("169.254.1.1")  # Calico's: answered by proxy ARP on the host's veth

# Offloads of a form of the lab that a change by hand would falsify, by device and the name of `ethtool -k`. Those of
# stock are the kernel's defaults; a veth's GRO is left out, whose default depends on the kernel.
OFFLOADS: dict[str, dict[str, dict[str, bool]]] = {
    form: {
        WIRE: {
            "tcp-segmentation-offload": on,
            "generic-segmentation-offload": on,
            **({} if on else {"generic-receive-offload": False}),
        },
        OVERLAY: {"generic-receive-offload": on},
    }
    for form, on in (("study", False), ("stock", True))
}

RUN = "/run/steerlab"
NETNS = "/run/netns"
CGROUPS = ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup")  # roots of the cpu controller, v1 and v2


@dataclass(frozen=True)
class Node:
    """One of the two network namespaces that are the nodes."""

    stack: str
    side: Side

    @property
    def namespace(self) -> str:
        return f"steerlab-{self.stack}-{self.side}"

    @property
    def address(self) -> IPv4Address:
        return IPv4Address("192.168.56.11" if self.side == "server" else "192.168.56.12")

    @property
    def pods(self) -> IPv4Network:
        """The block of pod addresses; the first one is the tunnel's, as with Calico."""
        return IPv4Network("10.244.0.0/20" if self.side == "server" else "10.244.16.0/20")

    @property
    def tunnel(self) -> IPv4Address:
        return self.pods.network_address

    @property
    def tunnel_mac(self) -> str:
        return "66:00:00:00:00:01" if self.side == "server" else "66:00:00:00:00:02"

    @property
    def peer(self) -> Node:
        return Node(self.stack, "client" if self.side == "server" else "server")


@dataclass(frozen=True)
class Pod:
    """One pod: a network namespace with eth0; the other end is a `cali*` device of its node."""

    node: Node
    index: int

    @property
    def name(self) -> str:
        return f"iperf-{self.node.side}-{self.index}"

    @property
    def namespace(self) -> str:
        return f"steerlab-{self.node.stack}-{self.name}"

    @property
    def address(self) -> IPv4Address:
        return self.node.pods.network_address + self.index

    @property
    def veth(self) -> str:
        """Calico's name of the host's end: `cali` and eleven digits of a hash."""
        digest = hashlib.sha1(self.namespace.encode(), usedforsecurity=False)
        return f"cali{digest.hexdigest()[:11]}"

    @property
    def cgroup(self) -> str:
        """Path of the pod's CPU quota below the root of the cpu controller."""
        return f"steerlab/{self.node.stack}/{self.name}"


@dataclass(frozen=True)
class Pair:
    """One server and its client: in their pods, or on the nodes where the path is `host`."""

    server: Pod
    client: Pod
    host: bool

    @property
    def index(self) -> int:
        return self.server.index

    @property
    def address(self) -> IPv4Address:
        return self.server.node.address if self.host else self.server.address

    @property
    def port(self) -> int:
        """The port of the server: each pod has its own ports, servers on a node share them."""
        return PORT + (self.index if self.host else 0)

    @property
    def server_namespace(self) -> str:
        return self.server.node.namespace if self.host else self.server.namespace

    @property
    def client_namespace(self) -> str:
        return self.client.node.namespace if self.host else self.client.namespace

    @property
    def pidfile(self) -> str:
        """The file with the pid and the start time of the server."""
        return f"{RUN}/lab/{self.server.node.stack}/{self.server.name}"


def device_queues(queues: int) -> int:
    """Receive queues of the server's eth1 that emulate so many of a NIC (infra/lab/wire.py); the last one gets no packets.

    An entry of the NIC's table of hashes is a queue of the device, rx-N of NIC queue N % `queues`.
    """
    return 1 if queues == 1 else queues * min(queues, 8) + 1


def nodes(stack: str) -> tuple[Node, Node]:
    """The server node and the client node."""
    return Node(stack, "server"), Node(stack, "client")


def pair(stack: str, index: int, *, host: bool) -> Pair:
    server, client = nodes(stack)
    return Pair(Pod(server, index), Pod(client, index), host)


def netns(namespace: str) -> str:
    """The file that holds a named network namespace open."""
    return f"{NETNS}/{namespace}"
