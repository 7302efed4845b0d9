"""The devices that the agent finds by itself: by kind, by the routes to the peers, by the pods' own devices."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from steer_tree import Tree, plan, rule, steer

PODS = [f"pod:{number:08x}-0000-4000-8000-000000000000" for number in (1, 2)]
PEER, HOST = "10.244.1.7", "172.18.0.3"  # a pod, and its node
OTHER = {"10.244.2.7": "172.18.0.4"}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A node of two pods, whose CNI gives host ends names of its own."""
    tree = Tree(tmp_path)
    for number, (pod, name) in enumerate(zip(PODS, ("a3f8c1d2e4b5", "ovn-7f2c"), strict=True)):
        pid = 100 + number
        tree.write(f"proc/{pid}/cgroup", f"0::/kubepods.slice/pod{pod[4:]}/main")
        tree.namespace(f"/proc/{pid}/ns/net", cookie=7 + number)
        tree.pair(name, f"/proc/{pid}/ns/net")
    tree.pair("cali9", "/run/netns/stranger")  # of a pod that is not measured
    tree.namespace("/run/netns/stranger", cookie=99)
    return tree


def found(tree: Tree, peers: dict[str, str] | None = None) -> dict[str, list[str]]:
    """The steered devices by role."""
    rules = [rule(role, "auto", optional=role != "nic") for role in ("nic", "overlay", "veth")]
    rules += [rule("pod", "eth0", namespace=pod) for pod in PODS]
    document = plan(*rules, peers={PEER: HOST} if peers is None else peers)
    roles: dict[str, list[str]] = {"nic": [], "overlay": [], "veth": [], "pod": []}
    for row in tree.apply(document)["queues"]:
        roles[row["role"]].append(row["device"])
    assert roles.pop("pod") == ["eth0", "eth0"]
    assert roles.pop("veth") == ["a3f8c1d2e4b5", "ovn-7f2c"]
    assert tree.verify()["drift"] == []
    return roles


def routes(tree: Tree, *lines: str) -> None:
    tree.write("fib", "\n".join(lines))


def nic(tree: Tree, *names: str) -> None:
    for name in names:
        tree.device(name, hardware=True, driver="virtio_net")


def calico_vxlan(tree: Tree) -> None:
    """Two NICs; pods are routed into the tunnel, which is bound to the second one."""
    nic(tree, "eth0", "ens5")
    tree.device("vxlan.calico", on=("ens5",), kind="vxlan")
    routes(tree, f"{PEER} vxlan.calico", f"{HOST} eth0")


def same_subnet(tree: Tree) -> None:
    """VXLANCrossSubnet: the tunnel stands, and packets of this subnet do not pass it."""
    nic(tree, "eth0")
    tree.device("vxlan.calico", on=("eth0",), kind="vxlan")
    routes(tree, f"{PEER} eth0", f"{HOST} eth0")


def ipip(tree: Tree) -> None:
    nic(tree, "eth0")
    tree.device("tunl0", arphrd=768)
    tree.device("gre0", arphrd=778)  # of a kernel module, in each namespace
    routes(tree, f"{PEER} tunl0", f"{HOST} eth0")


def wireguard(tree: Tree) -> None:
    nic(tree, "eth0")
    tree.device("wireguard.cali", kind="wireguard", arphrd=65534)
    routes(tree, f"{PEER} wireguard.cali", f"{HOST} eth0")


def no_tunnel(tree: Tree) -> None:
    nic(tree, "eth0", "eth1")
    routes(tree, f"{PEER} eth1", f"{HOST} eth1")


def nic_of_the_pods(tree: Tree) -> None:
    """The pods' network has a NIC of its own, the nodes' addresses another one."""
    nic(tree, "eth0", "eth1")
    routes(tree, f"{PEER} eth1", f"{HOST} eth0")


def virtual_nic(tree: Tree) -> None:
    """A node that is a container: its NIC is a veth."""
    for name in ("eth0", "eth1"):
        tree.device(name, driver="veth")
    routes(tree, f"{PEER} eth1", f"{HOST} eth0", "elsewhere eth0 eth1")


def vlan_on_bond(tree: Tree) -> None:
    nic(tree, "eth0", "eth1")
    tree.device("bond0", on=("eth0", "eth1"), kind="bond")
    tree.device("bond0.5", on=("bond0",), kind="vlan")
    tree.device("flannel.1", on=("bond0.5",), kind="vxlan")
    routes(tree, f"{PEER} flannel.1", f"{HOST} bond0.5")


def cilium_tunnel(tree: Tree) -> None:
    """The route leads to a veth, whose program puts packets into the tunnel."""
    nic(tree, "eth0")
    tree.device("cilium_host", driver="veth")
    tree.device("cilium_geneve", kind="geneve")
    overlay = tree.root / "sys/class/net/flannel.1"  # of a removed CNI
    tree.device("flannel.1", kind="vxlan")
    overlay.joinpath("flags").write_text("0x1002\n")
    routes(tree, f"{PEER} cilium_host", f"{HOST} eth0")


def ovn_kubernetes(tree: Tree) -> None:
    """The node's address is on an internal port of Open vSwitch, which the NIC is a port of."""
    nic(tree, "ens3", "ens4")
    for name in ("ovs-system", "br-ex", "ovn-k8s-mp0"):
        tree.device(name, driver="openvswitch")
    tree.device("genev_sys_6081", kind="geneve")
    for port in ("ens3", "ovn-7f2c"):
        tree.enslave(port, "ovs-system")
        (tree.root / f"sys/class/net/{port}/master").symlink_to("../ovs-system")
    routes(tree, f"{PEER} ovn-k8s-mp0", f"{HOST} br-ex")


def two_uplinks(tree: Tree) -> None:
    nic(tree, "eth0", "eth1", "eth2")
    routes(tree, f"{PEER} eth1 eth2", f"{HOST} eth1 eth2")


def policy_routing(tree: Tree) -> None:
    """The address of one of the pods belongs to the second NIC."""
    nic(tree, "eth0", "eth1")
    routes(
        tree, f"{PEER} eth0", f"{HOST} eth0", f"192.168.9.9,ovn-7f2c,{PEER} eth1",
    )  # fmt: skip
    tree.write("proc/101/ns/net/fib", "source 192.168.9.9")


@pytest.mark.parametrize(
    ("make", "nics", "overlays"),
    [
        (calico_vxlan, ["ens5"], ["vxlan.calico"]),
        (same_subnet, ["eth0"], []),
        (ipip, ["eth0"], ["tunl0"]),
        (wireguard, ["eth0"], ["wireguard.cali"]),
        (no_tunnel, ["eth1"], []),
        (nic_of_the_pods, ["eth1"], []),
        (virtual_nic, ["eth1"], []),
        (vlan_on_bond, ["eth0", "eth1"], ["flannel.1"]),
        (cilium_tunnel, ["eth0"], ["cilium_geneve"]),
        (ovn_kubernetes, ["ens3"], ["genev_sys_6081"]),
        (two_uplinks, ["eth1", "eth2"], []),
        (policy_routing, ["eth0", "eth1"], []),
    ],
)
def test_devices_on_the_route_to_the_peer_are_steered(
    tree: Tree, make: Callable[[Tree], None], nics: list[str], overlays: list[str]
) -> None:
    make(tree)
    assert found(tree) == {"nic": nics, "overlay": overlays}


def test_each_peer_may_have_a_path_of_its_own(tree: Tree) -> None:
    calico_vxlan(tree)
    routes(tree, f"{PEER} vxlan.calico", f"{HOST} eth0", "10.244.2.7 eth0", "172.18.0.4 eth0")
    peers = {PEER: HOST, **OTHER}
    assert found(tree, peers) == {"nic": ["ens5", "eth0"], "overlay": ["vxlan.calico"]}


def test_a_switch_without_hardware_receives_for_no_pod(tree: Tree) -> None:
    ovn_kubernetes(tree)
    (tree.root / "sys/class/net/ens3/master").unlink()
    answer = tree.apply(plan(rule("nic", "br-ex")))
    assert [row["device"] for row in answer["queues"]] == ["br-ex"]


def test_a_peer_without_a_route_is_named(tree: Tree) -> None:
    nic(tree, "eth0")
    routes(tree, f"{HOST} eth0")
    with pytest.raises(steer.SteerError, match=f"no route to pod {PEER}") as refusal:
        found(tree)
    assert refusal.value.status == 3
    assert not tree.snapshot().exists()


def test_a_pod_without_a_pair_has_no_end_on_the_node(tree: Tree) -> None:
    """The pod's macvlan is on a NIC, whose own link has by chance the number of the pod's device."""
    nic(tree, "eth0")
    index = steer.read_text(tree.root / "sys/class/net/eth0/ifindex").strip()
    pod = "proc/101/ns/net/sys/class/net/eth0"
    tree.write(f"{pod}/iflink", index)
    tree.write("sys/class/net/eth0/iflink", steer.read_text(tree.root / pod / "ifindex").strip())
    routes(tree, f"{PEER} eth0", f"{HOST} eth0")
    rules = [rule("veth", "auto"), *(rule("pod", "eth0", namespace=pod) for pod in PODS)]
    rows = tree.apply(plan(*rules, peers={PEER: HOST}))["queues"]
    assert [row["device"] for row in rows if row["role"] == "veth"] == ["a3f8c1d2e4b5"]


def test_without_peers_the_overlay_is_found_by_kind(tree: Tree) -> None:
    nic(tree, "eth0")
    tree.device("flannel-v6.1", on=("eth0",), kind="vxlan")
    tree.device("tunl0", arphrd=768)
    assert found(tree, {}) == {"nic": ["eth0"], "overlay": ["flannel-v6.1"]}


@pytest.mark.parametrize("peers", [["10.0.0.1"], {"10.0.0.1": "node"}, {"fe80::1%eth0": "::1"}, 5])
def test_peers_are_addresses(peers: object) -> None:
    with pytest.raises(steer.SteerError, match="peers") as refusal:
        steer.parse_plan(plan(peers=peers))
    assert refusal.value.status == 2


# --- messages of rtnetlink, from Linux 6.18 ---

# Of a route by one device, into a VXLAN, by two next hops, by one that is down, and the same for IPv6.
ANSWERS = {
    "02180000fe02fd010000000008000f00fe000000080001000a010000080007000a0100010800040003000000": [3],
    "021a0000fe0300010400000008000f00fe000000080001000af40100080005000af401000800040006000000": [6],
    "02100000fe0300010000000008000f00fe000000080001000a090000240009001000000003000000080005000a010002"
    "1000000005000000080005000a020002": [3, 5],
    "02100000fe0300010000000008000f00fe000000080001000a090000240009001000010003000000080005000a010002"
    "1000000005000000080005000a020002": [5],
    "0a400000fe0300010000000008000f00fe00000014000100fd090000000000000000000000000000080006000004000"
    "03c0009001c0000000500000014000500fd0200000000000000000000000000021c0000000300000014000500fd0100"
    "0000000000000000000000000224000c00" + "00" * 26 + "00000500140000000000": [5, 3],
}


@pytest.mark.parametrize(("text", "devices"), ANSWERS.items())
def test_devices_of_a_route(text: str, devices: list[int]) -> None:
    body = bytes.fromhex(text)
    assert list(steer.devices_of(body)) == devices
    for end in range(len(body)):
        list(steer.devices_of(body[:end]))


def test_an_error_of_the_kernel_is_raised() -> None:
    answer = steer.framed(2, (-errno.ENETUNREACH).to_bytes(4, "little", signed=True))
    with pytest.raises(OSError, match="unreachable") as refusal:
        steer.answer_of(answer)
    assert refusal.value.errno == errno.ENETUNREACH
