"""The plan of a lab node: which devices it names, and which cores they get from the agent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steer_tree import steer

from infra import config, configurations
from infra.lab import layout, measurement
from infra.lab.plan import node_plan, owner, steered_nodes
from infra.settings import StackSettings

FOUR = (0, 1, 2, 3)
EIGHT = tuple(range(8))


def state(
    stack: str = "rfs-plus-2", online: tuple[int, ...] = FOUR, **values: str
) -> StackSettings:
    return config.state(stack, values, online)


def plan(of: StackSettings, side: layout.Side = "server") -> dict[str, Any]:
    """The plan of one node, its carriers called as they are made."""
    carriers = ["wire"]
    if of.lab.path == "overlay":
        carriers += ["overlay", *(f"pods-{index}" for index in range(1, of.replicas + 1))]
    return node_plan(of, layout.Node(of.stack, side), carriers)


def masks(
    of: StackSettings, online: tuple[int, ...], side: layout.Side = "server"
) -> dict[str, str]:
    """The mask of each kind of device, worked out by the agent on a machine with these cores."""
    parsed = steer.parse_plan(plan(of, side))
    values = steer.wanted_values(parsed, steer.Cpus(list(online), list(online), []))
    return {
        rule.role: wanted["rps_cpus"].text
        for rule, wanted in zip(parsed.rules, values.rules, strict=True)
    }


def test_the_plan_of_a_server_node():
    of = state("rfs-plus-2", lease="90s")
    server = "/run/netns/steerlab-rfs-plus-2-server"
    same = {"cpus": "none", "flows": 32768, "optional": False}
    assert plan(of) == {
        "version": 1,
        "owner": "rfs-plus-2/server",
        "cores": [0, 1],
        "queue_core": 0,
        "sock_flow_entries": 32768,
        "lease_seconds": 90,
        "rules": [
            {"role": "nic", "namespace": server, "devices": ["eth1"], **same,
             "pod": None, "generation": "wire"},
            {"role": "overlay", "namespace": server, "devices": ["vxlan.calico"], **same,
             "pod": None, "generation": "overlay"},
            {"role": "veth", "namespace": server, "devices": ["cali*"], **same,
             "pod": None, "generation": None},
            {"role": "pod", "namespace": "/run/netns/steerlab-rfs-plus-2-iperf-server-1",
             "devices": ["eth0"], **same, "pod": "iperf-server-1", "generation": "pods-1"},
            {"role": "pod", "namespace": "/run/netns/steerlab-rfs-plus-2-iperf-server-2",
             "devices": ["eth0"], **same, "pod": "iperf-server-2", "generation": "pods-2"},
        ],
    }  # fmt: skip


def test_the_client_has_its_own_pods_and_cores_and_leaves_the_flow_table_to_the_server():
    made = plan(state("rfs-plus-2", steerNodes="both"), "client")
    assert made["owner"] == "rfs-plus-2/client"
    assert made["cores"] == [2, 3]
    assert made["queue_core"] is None
    assert made["sock_flow_entries"] is None
    assert {rule["namespace"] for rule in made["rules"]} == {
        "/run/netns/steerlab-rfs-plus-2-client",
        "/run/netns/steerlab-rfs-plus-2-iperf-client-1",
        "/run/netns/steerlab-rfs-plus-2-iperf-client-2",
    }


def test_on_the_host_path_the_wire_alone_is_steered():
    made = plan(state(path="host"))
    assert [rule["role"] for rule in made["rules"]] == ["nic"]
    assert made["sock_flow_entries"] == 32768


def test_no_lease_is_written_as_such():
    assert plan(state(lease="none"))["lease_seconds"] is None


def test_the_longest_stack_name_makes_an_owner_that_the_agent_takes():
    of = state("x" * 100, configuration="rps", replicas="1")
    assert steer.parse_plan(plan(of)).owner == f"{'x' * 100}/server"


@pytest.mark.parametrize("nodes", ["server", "both"])
def test_the_measurement_verifies_what_is_steered(nodes):
    of = state(steerNodes=nodes)
    owners = ("rfs-plus-2/server", "rfs-plus-2/client")
    assert (
        tuple(plan["owner"] for plan in measurement.of(of).plans)
        == owners[: 1 if nodes == "server" else 2]
    )


def test_a_carrier_too_few_or_too_many_is_a_mistake():
    of = state("rfs-2")
    node = layout.Node(of.stack, "server")
    for carriers in (["wire", "overlay", "p1"], ["wire", "overlay", "p1", "p2", "p3"], []):
        with pytest.raises(ValueError):
            node_plan(of, node, carriers)


# configuration: masks of nic, overlay, veth, pod on a server of 2 cores, then on one of 4
MASKS = {
    "baseline": (("1", "0", "0", "0"), ("1", "0", "0", "0")),
    "rps": (("3", "3", "3", "0"), ("f", "f", "f", "0")),
    "rfs": (("1", "0", "0", "0"), ("1", "0", "0", "0")),
    "rps-plus": (("3", "3", "3", "3"), ("f", "f", "f", "f")),
    "rfs-plus": (("1", "0", "0", "0"), ("1", "0", "0", "0")),
    "rps-7": (("7", "7", "7", "0"), ("7", "7", "7", "0")),
    "rps-plus-7": (("7", "7", "7", "7"), ("7", "7", "7", "7")),
    "pipeline": (("1", "0", "0", "2"), ("1", "2", "0", "c")),
}


def test_the_table_of_masks_has_every_configuration():
    assert MASKS.keys() == configurations.load().keys()


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("online", "column"), [(FOUR, 0), (EIGHT, 1)])
def test_masks_on_the_server(name, online, column):
    wanted = dict(zip(configurations.ROLES, MASKS[name][column], strict=True))
    assert masks(state(f"{name}-1", online), online) == wanted


def test_a_client_has_no_irq_core_to_emulate():
    of = state("baseline-1", steerNodes="both")
    assert set(masks(of, FOUR, "client").values()) == {"0"}


def test_words_mean_the_nodes_own_cores():
    of = state("rps-plus-1", steerNodes="both")
    assert set(masks(of, FOUR, "client").values()) == {"c"}
    own = state("rps-plus-1", cpus='{"server": [3, 1], "client": [0], "irq": 1}')
    assert set(masks(own, FOUR).values()) == {"a"}


def test_the_queue_stands_on_the_irq_core_where_the_nic_is_unsteered():
    of = state("baseline-1", cpus='{"server": [0, 3], "client": [1], "irq": 3}')
    assert masks(of, FOUR) == {"nic": "8", "overlay": "0", "veth": "0", "pod": "0"}


@pytest.mark.parametrize(
    ("name", "queues"),
    [("baseline", ["1", "4", "1", "4"]), ("rfs", ["1", "4", "1", "4"]), ("rps", ["5"] * 4)],
)
def test_each_queue_of_an_unsteered_nic_has_a_core_of_its_own(name, queues):
    values = {"cpus": '{"server": [0, 2], "client": [1, 3]}', "lab.queues": "2"}
    of = state(f"{name}-1", steerNodes="both", **values)
    assert plan(of)["queue_cores"] == [0, 2]
    assert "queue_cores" not in plan(of, "client")
    assert "queue_cores" not in plan(state(f"{name}-1"))
    parsed = steer.parse_plan(plan(of))
    wanted = steer.wanted_values(parsed, steer.Cpus(list(FOUR), list(FOUR), [])).rules
    of_nic = [wanted[0]["rps_cpus"].of_queue(number).text for number in range(4)]
    assert of_nic == queues
    assert {one["rps_cpus"].of_queue(1).text for one in wanted[1:]} <= {"0", "5"}


STATES = st.builds(
    lambda name, replicas, path, nodes, online: state(
        "any", online, configuration=name, replicas=str(replicas), path=path, steerNodes=nodes
    ),
    st.sampled_from(list(MASKS)),
    st.integers(1, 40),
    st.sampled_from(["overlay", "host"]),
    st.sampled_from(["server", "both"]),
    st.integers(3, 64).map(lambda cores: tuple(range(cores))),
)


@given(STATES)
def test_the_agent_takes_every_plan(of):
    for node in steered_nodes(of):
        made = json.loads(json.dumps(plan(of, node.side)))
        parsed = steer.parse_plan(made)
        assert parsed.owner == owner(node)
        assert len({(rule.namespace, rule.role) for rule in parsed.rules}) == len(parsed.rules)
        pods = of.replicas if of.lab.path == "overlay" else 0
        assert sum(rule.role == "pod" for rule in parsed.rules) == pods
        assert all(rule.namespace == layout.netns(node.namespace) for rule in parsed.rules[:3])


@given(STATES, st.data())
def test_what_is_made_anew_changes_one_rule(of, data):
    pods = of.replicas if of.lab.path == "overlay" else 0
    ids = ["wire", *(["overlay", *(f"pods-{index}" for index in range(pods))] if pods else [])]
    place = data.draw(st.integers(0, len(ids) - 1))
    node = layout.Node(of.stack, "server")
    before = node_plan(of, node, ids)
    after = node_plan(of, node, [*ids[:place], "anew", *ids[place + 1 :]])
    rules = zip(before.pop("rules"), after.pop("rules"), strict=True)
    changed = [new for old, new in rules if old != new]
    assert before == after
    assert [rule["generation"] for rule in changed] == ["anew"]
