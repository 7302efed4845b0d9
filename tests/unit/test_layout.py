"""Names and addresses of the lab: no two alike, and all within what the kernel takes."""

from __future__ import annotations

from itertools import chain
from shlex import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import _STACK
from infra.lab import layout
from infra.lab.layout import Node, Pair, Pod

MOST = 1024
SERVER, CLIENT = layout.nodes("rfs-plus-16")
STACKS = st.from_regex(_STACK, fullmatch=True)


def pairs(*, host: bool = False) -> list[Pair]:
    return [layout.pair("rfs-plus-16", index, host=host) for index in range(1, MOST + 1)]


PODS = list(chain.from_iterable((pair.server, pair.client) for pair in pairs()))


def test_names_as_a_reader_of_ip_netns_sees_them():
    pair = layout.pair("rfs-plus-16", 3, host=False)
    assert SERVER.namespace == "steerlab-rfs-plus-16-server"
    assert CLIENT.namespace == "steerlab-rfs-plus-16-client"
    assert pair.server.namespace == "steerlab-rfs-plus-16-iperf-server-3"
    assert pair.client.namespace == "steerlab-rfs-plus-16-iperf-client-3"
    assert layout.netns(pair.server.namespace) == f"/run/netns/{pair.server.namespace}"


@given(STACKS, st.integers(1, MOST), st.booleans())
def test_every_name_stands_in_a_script_as_it_is(stack: str, index: int, host: bool) -> None:
    """The lab's scripts write most of them without quotes."""
    pair = layout.pair(stack, index, host=host)
    words = [pair.pidfile, pair.server_namespace]
    for pod in (pair.server, pair.client):
        words += [pod.namespace, pod.node.namespace, pod.veth, pod.cgroup, str(pod.address)]
    assert [quote(word) for word in words] == words


@pytest.mark.parametrize("what", ["namespace", "address", "veth", "cgroup"])
def test_no_two_pods_share(what):
    assert len({getattr(pod, what) for pod in PODS}) == 2 * MOST


def test_a_pods_address_is_its_nodes_and_no_ones_else():
    taken = {SERVER.tunnel, CLIENT.tunnel, SERVER.address, CLIENT.address, layout.GATEWAY}
    for pod in PODS:
        assert pod.address in pod.node.pods
        assert pod.address not in pod.node.peer.pods
        assert pod.address not in taken
        assert pod.address != pod.node.pods.broadcast_address


def test_the_nodes_differ_and_know_each_other():
    assert SERVER.peer == CLIENT
    assert CLIENT.peer == SERVER
    for what in ("namespace", "address", "tunnel", "tunnel_mac"):
        assert getattr(SERVER, what) != getattr(CLIENT, what)
    assert not SERVER.pods.overlaps(CLIENT.pods)
    ends = (SERVER, CLIENT)
    assert not any(node.address in each.pods for node in ends for each in ends)


def test_device_names_fit_the_kernel():
    assert max(len(name) for name in (layout.WIRE, layout.OVERLAY, *(p.veth for p in PODS))) <= 15
    assert all(pod.veth.startswith("cali") for pod in PODS)


def test_the_inner_packet_fits_the_wire():
    assert layout.OVERLAY_MTU == 1450


def test_pods_have_one_port_and_servers_on_the_node_one_each():
    assert {pair.port for pair in pairs()} == {5201}
    on_host = pairs(host=True)
    assert len({pair.port for pair in on_host}) == MOST
    assert max(pair.port for pair in on_host) < 65536
    assert layout.VXLAN_PORT not in {pair.port for pair in on_host}


def test_a_pair_on_the_host_is_between_the_nodes():
    pair = layout.pair("rfs-plus-16", 2, host=True)
    assert (pair.server_namespace, pair.client_namespace) == (SERVER.namespace, CLIENT.namespace)
    assert pair.address == SERVER.address


def test_a_pair_of_pods_is_between_them():
    pair = layout.pair("rfs-plus-16", 2, host=False)
    assert pair.server_namespace == Pod(SERVER, 2).namespace
    assert pair.client_namespace == Pod(CLIENT, 2).namespace
    assert pair.address == Pod(SERVER, 2).address


def test_no_two_servers_share_a_pidfile():
    assert len({pair.pidfile for pair in pairs()}) == MOST


@given(STACKS, STACKS)
def test_no_two_stacks_share_a_name(one, other):
    def names(stack: str) -> set[str]:
        pair = layout.pair(stack, 1, host=False)
        pods = (pair.server, pair.client)
        nodes = layout.nodes(stack)
        return {
            *(each.namespace for each in (*nodes, *pods)),
            *(pod.cgroup for pod in pods),
            *(pod.veth for pod in pods),
            pair.pidfile,
        }

    assert (names(one) & names(other) == set()) == (one != other)


def test_a_namespace_of_the_longest_stack_is_a_file_name():
    pod = Pod(Node("x" * 100, "server"), MOST)
    assert len(pod.namespace) <= 255
