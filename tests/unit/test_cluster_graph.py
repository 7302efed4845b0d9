"""The resource graph of a cluster's stack, for each way to its nodes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import declared_graph
import pytest
from declared_graph import COMMAND, MEASURED, Graph

from agent.archive import archive
from experiments.targets.kubernetes.backend import KubernetesBackend
from infra import config, configurations, traffic
from infra.errors import InvalidInput
from infra.kubernetes import agent, cluster, measurement, outputs, ownership, steering
from infra.kubernetes.names import Names, label
from infra.kubernetes.nodes import Node, Nodes, choose, owners_of_table
from infra.kubernetes.plan import NodePods, node_plan
from infra.settings import StackSettings
from infra.traffic import TRAFFIC
from infra.traffic.contract import PORT

IMAGES = json.dumps({name: f"registry.example/{name}:1" for name in ("iperf3", "rr", "steering")})
ID = "0123456789abcdef"
DESTROY = "./steerlab destroy --cluster -s rfs-plus-4"
PLACE = {"context": "c", "server": "https://192.0.2.9:6443"}
OWNER = {"id": ID, "user": "alice@a", "folder": "/a", **PLACE}
POD_UID = "0a1b2c3d-0000-4000-8000-00000000000{}"


def node(name: str, boot_id: str = "", cpus: int = 8) -> Node:
    return Node(name, f"host-{name}", "192.0.2.1", boot_id or f"boot of {name}", "6.1", cpus, True)


NODES = Nodes((node("s1"), node("s2")), (node("c1"),))


def state(stack: str = "rfs-plus-4", **values: str) -> StackSettings:
    return config.state(stack, {"target": "kubernetes", "images": IMAGES, **values}, online=(0, 1))


def declared(
    of: StackSettings, nodes: Nodes = NODES, pods: Mapping[str, NodePods] | None = None
) -> Graph:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "owned", lambda *_: OWNER)
        default = {"s1": NodePods({"server-1": POD_UID.format(1)})}
        patch.setattr(cluster, "running", lambda *_: pods or default)
        return declared_graph.declared(of.stack, lambda: cluster.declare(of, nodes))


@pytest.mark.parametrize("preview", [True, False])
def test_only_a_converge_awaits_a_pod_that_is_being_recreated(
    monkeypatch: pytest.MonkeyPatch, preview: bool
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(cluster, "owned", lambda *_: OWNER)
    monkeypatch.setattr(cluster, "running", lambda *words: waits.append(words[2]) or {})
    of = state()
    declared_graph.declared(of.stack, lambda: cluster.declare(of, NODES), preview=preview)
    assert [wait > 0 for wait in waits] == [not preview]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return declared(state())


def kinds(graph: Graph) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, kind in graph.types.items():
        found.setdefault(kind.rpartition(":")[2], set()).add(name)
    return found


def pairs(role: str, count: int = 4) -> set[str]:
    return {f"iperf-{role}-{index}" for index in range(1, count + 1)}


def test_a_stack_with_jobs(graph: Graph) -> None:
    assert kinds(graph) == {
        "kubernetes": {"cluster"},
        "Namespace": {"steerlab-rfs-plus-4", "steerlab-rfs-plus-4-steering"},
        "ServiceAccount": {"steering"},
        "Deployment": pairs("server") | pairs("client") | {"agent-s1", "agent-s2"},
        "Service": pairs("service"),
        "Job": {"steer-s1", "steer-s2"},
        "Command": {"claim", "guard-s1", "guard-s2", "measurement", "ownership"},
    }
    assert graph.outputs.keys() >= MEASURED
    assert graph.outputs["target"] == "kubernetes"
    assert graph.outputs["cluster"] == PLACE
    assert graph.outputs["nodes"] == {"server": ["s1", "s2"], "client": ["c1"]}
    assert graph.outputs["namespaces"] == ["steerlab-rfs-plus-4", "steerlab-rfs-plus-4-steering"]
    assert graph.outputs["restore"] == f"{DESTROY} -c kubernetes.context=c"  # the recorded one


def test_a_stack_with_ssh_has_no_privileged_pod() -> None:
    graph = declared(state(nodeAccess="ssh", ssh='{"identityFile": "~/.ssh/id"}'))
    assert kinds(graph) == {
        "kubernetes": {"cluster"},
        "Namespace": {"steerlab-rfs-plus-4"},
        "Deployment": pairs("server") | pairs("client"),
        "Service": pairs("service"),
        "Command": {"claim", "steer-s1", "steer-s2", "measurement", "ownership"},
    }
    said = json.loads(graph.inputs["steer-s1"]["stdin"])
    assert said["guard"]["ssh"]["identity_file"] == "~/.ssh/id"
    assert said["plan"]["owner"] == "rfs-plus-4/s1"
    assert "steer-s1" in graph.deleted_first
    assert graph.outputs["namespaces"] == ["steerlab-rfs-plus-4"]
    ssh = """-c kubernetes.nodeAccess=ssh -c 'kubernetes.ssh={"identityFile":"~/.ssh/id"}'"""
    assert graph.outputs["restore"] == f"{DESTROY} -c kubernetes.context=c {ssh}"


def test_the_lease_ends_first_where_steering_was_applied_first() -> None:
    times = ["2026-01-02T10:00:30Z", None, "2026-01-02T10:00:00Z"]
    assert outputs.lease_end(times, 7200) == "2026-01-02T12:00:00+00:00"
    assert outputs.lease_end(times, None) is None
    assert outputs.lease_end([None], 60) is None


@pytest.mark.parametrize("name", sorted(configurations.load()))
@pytest.mark.parametrize("access", ["job", "ssh"])
def test_the_configuration_touches_steering_and_measurement_alone(access: str, name: str) -> None:
    one = declared(state("x-4", configuration="baseline", nodeAccess=access))
    other = declared(state("x-4", configuration=name, nodeAccess=access))
    assert one.inputs.keys() == other.inputs.keys()
    expected = {"steer-s1", "steer-s2", "measurement"} if name != "baseline" else set()
    assert one.changed(other) == expected


def test_eight_pairs_leave_the_first_four_alone() -> None:
    four, eight = declared(state("rps-4")), declared(state("rps-4", replicas="8"))
    assert four.changed(eight) == {"measurement"}
    added = eight.inputs.keys() - four.inputs.keys()
    assert added == {
        f"iperf-{r}-{i}" for r in ("server", "client", "service") for i in (5, 6, 7, 8)
    }


def test_pairs_are_spread_over_the_nodes(graph: Graph) -> None:
    def where(name: str) -> str:
        spec = graph.inputs[name]["spec"]["template"]["spec"]
        return spec["nodeSelector"]["kubernetes.io/hostname"]

    assert [where(f"iperf-server-{i}") for i in (1, 2, 3, 4)] == ["host-s1", "host-s2"] * 2
    assert {where(name) for name in pairs("client")} == {"host-c1"}
    assert (where("steer-s2"), where("agent-s2")) == ("host-s2", "host-s2")


def test_steering_waits_for_pods_and_guard_and_is_deleted_first(graph: Graph) -> None:
    below = graph.under("steer-s1")
    assert pairs("server") | pairs("client") | {"guard-s1", "agent-s1", "steering"} <= below
    assert "agent-s1" in graph.under("guard-s1")
    assert "steer-s1" in graph.deleted_first
    others = graph.inputs.keys() - {"cluster", "measurement", "ownership"}
    assert others <= graph.under("measurement")
    assert others <= graph.under("ownership")


def test_measured_pods_are_restricted_and_hold_no_token(graph: Graph) -> None:
    level = graph.inputs["steerlab-rfs-plus-4"]["metadata"]["labels"]
    assert level["pod-security.kubernetes.io/enforce"] == "restricted"
    for name in pairs("server") | pairs("client"):
        spec = graph.inputs[name]["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert {"hostNetwork", "hostPID"}.isdisjoint(spec)


def test_the_agent_s_account_holds_nothing(graph: Graph) -> None:
    assert graph.inputs["steering"]["automountServiceAccountToken"] is False
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & kinds(graph).keys()


@pytest.mark.parametrize("name", [*TRAFFIC, "rr:protocol=udp"])
def test_pods_and_services_are_those_of_the_traffic(name: str) -> None:
    graph, declares = declared(state(traffic=name)), traffic.of(name).pairs(4)
    assert kinds(graph)["Service"] == {f"iperf-service-{index}" for index in declares}
    for index, kind in declares.items():
        (server,) = graph.inputs[f"iperf-server-{index}"]["spec"]["template"]["spec"]["containers"]
        (client,) = graph.inputs[f"iperf-client-{index}"]["spec"]["template"]["spec"]["containers"]
        assert server["command"] == kind.server(PORT)
        images = {server["image"], client["image"]}
        assert images == {json.loads(IMAGES)[kind.image]}
        ports = graph.inputs[f"iperf-service-{index}"]["spec"]["ports"]
        for found in (ports, server["ports"]):
            assert tuple(one.get("protocol", "TCP") for one in found) == kind.protocols
            assert len({one["name"] for one in found}) == len(found)
        assert {(one["port"], one["targetPort"]) for one in ports} == {(PORT, PORT)}


def test_a_server_that_tolerates_no_probe_is_probed_at_its_start_alone() -> None:
    """A connection of a probe would wait behind that of the client, one more each second."""
    for protocol, table in (("tcp", "/proc/net/tcp"), ("udp", "/proc/net/udp")):
        graph = declared(state(traffic=f"rr:protocol={protocol}"))
        (server,) = graph.inputs["iperf-server-1"]["spec"]["template"]["spec"]["containers"]
        assert "readinessProbe" not in server
        assert server["startupProbe"]["exec"]["command"][2:] == ["00000000:1451 ", table]
    (server,) = declared(state()).inputs["iperf-server-1"]["spec"]["template"]["spec"]["containers"]
    assert server["readinessProbe"]["tcpSocket"] == {"port": PORT}


def test_the_pair_beside_the_streams_is_steered_and_measured() -> None:
    graph = declared(state(traffic="mixed"))
    assert "iperf-server-5" in graph.under("steer-s1")
    assert {"p50_us", "p99_us"} <= graph.outputs.keys()
    assert not {"p50_us", "p99_us"} & declared(state()).outputs.keys()


def test_limits_are_the_pods_own() -> None:
    graph = declared(state(podCpuLimit="200m"))
    (container,) = graph.inputs["iperf-server-1"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "200m"}
    assert container["resources"]["requests"]["cpu"] == "10m"


def plan_of(graph: Graph, name: str) -> dict:
    (container,) = graph.inputs[name]["spec"]["template"]["spec"]["containers"]
    verb, option, plan = container["args"]
    assert (verb, option) == ("apply", "--plan")
    return json.loads(plan)


def test_steering_is_applied_by_this_project_s_agent_alone(graph: Graph, tmp_path: Path) -> None:
    (container,) = graph.inputs["steer-s1"]["spec"]["template"]["spec"]["containers"]
    file = tmp_path / "steer.pyz"
    command = [word.replace("/steer.pyz", str(file)) for word in container["command"]]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)

    file.write_bytes(archive())
    assert run().returncode == 0
    file.write_bytes(archive() + b"x")
    assert run().returncode == 3
    assert "contains another node agent" in run().stderr
    # what restores is never refused
    (watch,) = graph.inputs["agent-s1"]["spec"]["template"]["spec"]["containers"]
    assert watch["command"] == ["python3", "-I", "/steer.pyz"]


def test_a_recreated_pod_changes_the_plan_of_its_node_alone() -> None:
    pods = {f"s{n}": NodePods({f"server-{n}": POD_UID.format(n)}) for n in (1, 2)}
    again = {**pods, "s2": NodePods({"server-2b": POD_UID.format(3)})}
    one, other = declared(state(), pods=pods), declared(state(), pods=again)
    assert one.changed(other) == {"steer-s2"}
    pod_rules = [rule for rule in plan_of(other, "steer-s2")["rules"] if rule["role"] == "pod"]
    assert [rule["namespace"] for rule in pod_rules] == [f"pod:{POD_UID.format(3)}"]


def test_a_rebooted_node_is_steered_anew() -> None:
    rebooted = Nodes((node("s1", boot_id="another"), node("s2")), NODES.clients)
    assert "steer-s1" in declared(state()).changed(declared(state(), rebooted))


def test_nodes_of_one_kernel_share_one_flow_table() -> None:
    assert owners_of_table([node("a", "x"), node("b", "x"), node("c", "y")]) == {"a", "c"}
    clone = replace(node("b", "x"), system_uuid="another machine's")
    assert owners_of_table([node("a", "x"), clone]) == {"a", "b"}
    shared = Nodes((node("s1", "x"), node("s2", "x")), NODES.clients)
    graph = declared(state(), shared)
    tables = [plan_of(graph, name)["sock_flow_entries"] for name in ("steer-s1", "steer-s2")]
    assert tables == [32768, None]


def test_cores_are_counted_once_for_each_kernel() -> None:
    """Machines that were cloned while they ran have one boot id; kind's nodes are one machine."""
    clone = replace(node("s2", "x"), system_uuid="another machine's")
    for second, counted in ((node("s2", "x"), ["s1"]), (clone, ["s1", "s2"])):
        what = measurement.of(state(), Nodes((node("s1", "x"), second), NODES.clients))
        assert [one.name for one in KubernetesBackend(what)._measured()] == counted
    of_kind = [Listed(name, provider=f"kind://docker/kind/{name}") for name in "ab"]
    assert {one.kernel_id for one in choose(of_kind, "serverSelector", "a=b")} == {"b "}


def test_both_sides_can_be_steered() -> None:
    assert {"steer-s1", "steer-s2", "steer-c1"} <= declared(state(steerNodes="both")).inputs.keys()


def test_no_credential_is_declared() -> None:
    graph = declared(state(kubeconfig="admin.conf", context="lab"))
    provider = graph.inputs["cluster"]
    assert provider == {"kubeconfig": "admin.conf", "context": "lab"}
    guard = json.loads(graph.inputs["guard-s1"]["stdin"])["guard"]
    assert guard["kubeconfig"] == "admin.conf"


def test_a_mask_beyond_the_node_is_refused_before_anything() -> None:
    small = Nodes((node("s1", cpus=2),), NODES.clients)
    with pytest.raises(InvalidInput, match="rps-7 needs 3 CPUs, node s1 has 2"):
        declared(state("rps-7-4"), small)


def test_without_runs_there_is_no_measurement() -> None:
    graph = declared(state(runs="0"))
    assert "measurement" not in graph.inputs
    assert graph.outputs.keys().isdisjoint(MEASURED)


def test_a_plan_too_long_for_an_argument_is_refused() -> None:
    pods = {f"iperf-server-{i}": POD_UID.format(1) for i in range(1024)}
    of = state("rps-1024")

    def plan_of(some: dict[str, str]) -> dict[str, Any]:
        return node_plan(
            of.steering, owner="rps-1024/s1", nic="auto", overlay_device="auto", pods=NodePods(some),
            owns_flow_table=True, lease_seconds=None,
        )  # fmt: skip

    plan = plan_of(pods)
    with pytest.raises(InvalidInput, match="spread the pairs over more nodes"):
        steering.plan_words(plan)
    few = dict(list(pods.items())[:256])
    plan = plan_of(few)
    assert max(map(len, steering.plan_words(plan))) < agent.LONGEST_ARGUMENT


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rfs-plus-16", "rfs-plus-16"),
        ("Mine_4", "mine-4-"),
        ("a.b", "a-b-"),
        ("x" * 90, "x" * 36 + "-"),
    ],
)
def test_names_are_dns_labels_and_differ_where_stacks_do(text: str, wanted: str) -> None:
    assert label(text).startswith(wanted)
    assert len(Names(text).steering) <= 63
    assert label(text) == text or label(text) != wanted.rstrip("-")


class Listed:
    """A node as the API's client has it, as far as it is read."""

    def __init__(
        self, name: str, ready: str = "True", provider: str | None = None, taints: Any = None
    ) -> None:
        condition = type("", (), {"type": "Ready", "status": ready})
        address = type("", (), {"type": "InternalIP", "address": "192.0.2.7"})
        info = type("", (), {"boot_id": "b", "kernel_version": "6.1", "system_uuid": "u"})
        self.metadata = type("", (), {"name": name, "labels": {}})
        self.spec = type(
            "", (), {"provider_id": provider, "taints": taints, "unschedulable": False}
        )
        self.status = type(
            "", (),
            {"conditions": [condition], "addresses": [address], "node_info": info, "capacity": {"cpu": "4"}},
        )  # fmt: skip


def test_commands_are_the_wrapper_s(graph: Graph) -> None:
    scripts = {
        graph.inputs[name]["create"] for name in graph.inputs if graph.types[name] == COMMAND
    }
    assert scripts == {"true", "./steerlab hook claim", "./steerlab hook measure"}


@pytest.mark.parametrize("access", ["job", "ssh"])
def test_everything_has_the_stack_s_id_and_waits_for_its_claim(access: str) -> None:
    graph = declared(state(nodeAccess=access))
    made = {name for name, kind in graph.types.items() if kind.startswith("kubernetes:")}
    for name in made:
        assert graph.inputs[name]["metadata"]["labels"][ownership.ID] == ID
    steered = [name for name in graph.inputs if name.startswith(("guard-", "steer-"))]
    assert all("claim" in graph.under(name) for name in (*made, *steered))
    guards = [json.loads(graph.inputs[name].get("stdin", "{}")) for name in steered]
    assert {one["guard"]["id"] for one in guards if one} == {ID}
    said = graph.inputs["steerlab-rfs-plus-4"]["metadata"]["annotations"]
    assert {said[ownership.USER], said[ownership.FOLDER]} == {"alice@a", "/a"}
