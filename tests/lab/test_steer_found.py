"""The devices that the agent finds by the routes of real network namespaces."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_steer_devices import inside, ip, steer

pytestmark = pytest.mark.lab

NODE, SWITCH = f"slf-{os.getpid()}", f"slf-{os.getpid()}-switch"
OWNER = f"{NODE}/node"
PODS = {f"{NODE}-a": "a3f8c1d2e4b5", f"{NODE}-b": "ovn-7f2c", f"{NODE}-c": "cali9"}
MEASURED = list(PODS)[:2]
PEER, HOST, PEER6 = "10.244.1.7", "10.1.0.2", "fd24:1::7"
INSIDE = "10.244.0."


def node(*lines: str) -> None:
    for line in lines:
        ip("-n", NODE, *line.split())


@pytest.fixture(autouse=True)
def built() -> Iterator[None]:
    """A node of two NICs, a VXLAN on the first one, and three pods with a pair each."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = [NODE, SWITCH, *PODS]
    try:
        for name in made:
            ip("netns", "add", name)
        inside(NODE, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for number in (1, 2):
            node(
                f"link add eth{number} type veth peer name wire{number} netns {SWITCH}",
                f"link set eth{number} up",
                f"address add 10.{number}.0.1/24 dev eth{number}",
                f"address add fd0{number}::1/64 dev eth{number} nodad",
            )  # fmt: skip
            ip("-n", SWITCH, "link", "set", f"wire{number}", "up")
        node(
            "link add vxlan.test type vxlan id 4096 dstport 4789 dev eth1 local 10.1.0.1",
            "link set vxlan.test up",
        )
        for number, (name, end) in enumerate(PODS.items(), 1):
            ip(
                "-n",
                name,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                end,
                "netns",
                NODE,
            )
            address = f"{INSIDE}{number}"
            node(f"link set {end} up", f"route add {address}/32 dev {end}")
            for words in (
                "link set eth0 up", f"address add {address}/32 dev eth0",
                "route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1",
            ):  # fmt: skip
                ip("-n", name, *words.split())
        yield
    finally:
        steer("restore", "--owner", OWNER)
        for name in made:
            if Path(f"/run/netns/{name}").exists():
                ip("netns", "del", name)


def rules() -> list[dict]:
    words = {"cpus": "all", "flows": 0}
    of_node = {**words, "namespace": f"/run/netns/{NODE}", "devices": ["auto"]}
    return [
        *({**of_node, "role": role, "optional": role != "nic"} for role in ("nic", "overlay", "veth")),
        *(
            {**words, "role": "pod", "namespace": f"/run/netns/{name}", "devices": ["eth0"]}
            for name in MEASURED
        ),
    ]  # fmt: skip


def found(peers: dict[str, str]) -> dict[str, list[str]]:
    """The steered devices by role, but those of the pods."""
    document = {"version": 1, "owner": OWNER, "peers": peers, "rules": rules()}
    done = steer("apply", plan=document)
    assert done.returncode == 0, done.stderr
    checked = steer("verify", plan=document)
    assert checked.returncode == 0, checked.stderr
    devices: dict[str, list[str]] = {}
    for row in done.answer["queues"]:
        devices.setdefault(row["role"], []).append(row["device"])
    assert devices.pop("pod") == ["eth0", "eth0"]
    return devices


ENDS = [PODS[name] for name in MEASURED]


def test_a_route_into_the_tunnel() -> None:
    node("route add 10.244.1.0/26 via 10.244.1.0 dev vxlan.test onlink")
    assert found({PEER: HOST}) == {"nic": ["eth1"], "overlay": ["vxlan.test"], "veth": ENDS}
    mask = inside(NODE, "cat", "/sys/class/net/cali9/queues/rx-0/rps_cpus")
    assert not mask.strip("0,\n")  # no other pod's device


def test_a_route_beside_the_tunnel() -> None:
    node(f"route add 10.244.1.0/26 via {HOST}")
    assert found({PEER: HOST}) == {"nic": ["eth1"], "veth": ENDS}


def test_two_next_hops() -> None:
    node(f"route add 10.244.1.0/26 nexthop via {HOST} nexthop via 10.2.0.2")
    assert found({PEER: HOST}) == {"nic": ["eth1", "eth2"], "veth": ENDS}


def test_a_rule_for_the_address_of_one_pod() -> None:
    node(
        f"route add 10.244.1.0/26 via {HOST}",
        f"rule add from {INSIDE}2 lookup 77",
        "route add default via 10.2.0.2 dev eth2 table 77",
    )
    assert found({PEER: HOST}) == {"nic": ["eth1", "eth2"], "veth": ENDS}


def test_a_route_to_the_end_of_a_pair_leads_into_the_tunnel() -> None:
    """As with Cilium, whose program on cilium_host puts packets into its tunnel."""
    node(
        "link add cilium_host type veth peer name cilium_net", "link set cilium_host up",
        "link set cilium_net up", "route add 10.244.1.0/26 dev cilium_host",
    )  # fmt: skip
    assert found({PEER: HOST}) == {"nic": ["eth1"], "overlay": ["vxlan.test"], "veth": ENDS}


def test_ipv6_alone() -> None:
    node("route add fd24:1::/64 via fd02::2")
    assert found({PEER6: "fd02::2"}) == {"nic": ["eth2"], "veth": ENDS}


def test_the_port_of_a_bridge_receives() -> None:
    node(
        "link add br0 type bridge", "link set br0 up", "address flush dev eth1",
        "link set eth1 master br0", "address add 10.1.0.1/24 dev br0",
        f"route add 10.244.1.0/26 via {HOST}",
    )  # fmt: skip
    assert found({PEER: HOST}) == {"nic": ["eth1"], "veth": ENDS}


def test_a_pod_with_macvlan_has_no_end_on_the_node() -> None:
    name = MEASURED[1]
    ip("-n", name, "link", "del", "eth0")
    node(
        f"link add eth0 netns {name} link eth1 type macvlan", f"route add 10.244.1.0/26 via {HOST}"
    )
    assert found({PEER: HOST}) == {"nic": ["eth1"], "veth": ENDS[:1]}


def test_without_a_route_nothing_is_written() -> None:
    document = {"version": 1, "owner": OWNER, "peers": {PEER: HOST}, "rules": rules()}
    done = steer("apply", plan=document)
    assert done.returncode == 3
    assert f"no route to pod {PEER}" in done.stderr
    assert steer("show").answer["snapshots"] == []


def test_verify_counts_what_each_steered_device_received() -> None:
    node(f"route add 10.244.1.0/26 via {HOST}")
    document = {"version": 1, "owner": OWNER, "peers": {PEER: HOST}, "rules": rules()}
    assert steer("apply", plan=document).returncode == 0

    def counts() -> dict[tuple[str, str], int]:
        rows = steer("verify", plan=document).answer["device_counts"]
        return {(row["namespace"], row["device"]): row["rx_packets"] for row in rows}

    before = counts()
    frames = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('wire1', 0)); "
        "[s.send(b'\\xff' * 6 + bytes(6) + b'\\x88\\xb5' + bytes(86)) for _ in range(500)]"
    )
    inside(SWITCH, sys.executable, "-c", frames)
    after = counts()
    assert after.keys() == before.keys()
    nic = (f"/run/netns/{NODE}", "eth1")
    assert after.pop(nic) - before.pop(nic) >= 500
    assert max(after[key] - before[key] for key in after) < 100
