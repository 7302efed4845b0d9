"""The plan of a cluster's node: its pods, the peers whose routes show its devices, and the keys that override."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from steer_tree import steer

from infra import configurations
from infra.kubernetes.plan import NodePods, by_node, node_plan


def pod(pair: int, role: str, node: str, phase: str = "Running", **status: Any) -> SimpleNamespace:
    uid = f"{pair:08x}-000{len(role) % 10}-4000-8000-000000000000"
    address = f"10.244.{node[-1]}.{pair}"
    return SimpleNamespace(
        metadata=SimpleNamespace(
            name=f"iperf-{role}-{pair}-x", uid=uid, deletion_timestamp=None,
            labels={"steerlab/pair": str(pair), "steerlab/role": role},
        ),
        spec=SimpleNamespace(node_name=node),
        status=SimpleNamespace(
            **{"phase": phase, "pod_ip": address, "host_ip": f"172.18.0.{node[-1]}", **status}
        ),
    )  # fmt: skip


def pairs(*nodes: tuple[str, str]) -> list[SimpleNamespace]:
    """A pair for each server's and client's node."""
    roles = [list(zip(("server", "client"), both, strict=True)) for both in nodes]
    return [pod(n, *place) for n, places in enumerate(roles, 1) for place in places]


def test_each_other_node_has_one_peer() -> None:
    found = by_node(pairs(("s1", "c2"), ("s1", "c3"), ("s1", "c2"), ("s4", "c2")))
    assert found["s1"].peers == {"10.244.2.1": "172.18.0.2", "10.244.3.2": "172.18.0.3"}
    assert found["c2"].peers == {"10.244.1.1": "172.18.0.1", "10.244.4.4": "172.18.0.4"}
    assert len(found["s1"].uids) == 3


def test_only_the_first_peer_of_a_node_changes_the_plan_of_another() -> None:
    listed = pairs(*[("s1", "c2")] * 12)
    before = by_node(listed)["s1"].peers
    assert before == {"10.244.2.1": "172.18.0.2"}
    listed[-1].status.pod_ip = "10.244.2.99"
    assert by_node(listed)["s1"].peers == before
    listed[1].status.pod_ip = "10.244.2.98"
    assert by_node(listed)["s1"].peers == {"10.244.2.98": "172.18.0.2"}


def test_a_pair_on_one_node_and_a_pod_without_an_address_are_no_peers() -> None:
    assert by_node(pairs(("s1", "s1")))["s1"].peers == {}
    waiting = [pod(1, "server", "s1"), pod(1, "client", "c2", pod_ip=None)]
    assert by_node(waiting)["s1"].peers == {}
    ended = [pod(1, "server", "s1"), pod(1, "client", "c2", phase="Failed")]
    assert by_node(ended) == {"s1": NodePods({"iperf-server-1-x": ended[0].metadata.uid}, {})}


def plan(**keys: str) -> dict[str, Any]:
    made = node_plan(
        configurations.load()["rps"],
        owner="rps-1/s1",
        **{"nic": "auto", "overlay_device": "auto", **keys},
        pods=by_node(pairs(("s1", "c2")))["s1"],
        owns_flow_table=True,
        lease_seconds=None,
    )
    assert steer.parse_plan(made).peers == {"10.244.2.1": "172.18.0.2"}
    return made


@pytest.mark.parametrize(
    ("keys", "rules"),
    [
        ({}, [("nic", "auto", False), ("overlay", "auto", True)]),
        ({"nic": "bond0"}, [("nic", "bond0", False), ("overlay", "auto", True)]),
        (
            {"overlay_device": "flannel.1"},
            [("nic", "auto", False), ("overlay", "flannel.1", False)],
        ),
        ({"overlay_device": "none"}, [("nic", "auto", False)]),
    ],
)
def test_a_named_device_must_exist_and_an_overlay_need_not(
    keys: dict[str, str], rules: list[tuple[str, str, bool]]
) -> None:
    found = [(one["role"], *one["devices"], one["optional"]) for one in plan(**keys)["rules"]]
    assert found == [*rules, ("veth", "auto", False), ("pod", "eth0", False)]
