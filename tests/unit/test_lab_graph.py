"""The resource graph of the lab, as the program declares it to an engine that builds nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import declared_graph
import pulumi
import pytest
from declared_graph import MEASURED, Graph

import infra
from infra import config, cores, lab
from infra.errors import InvalidInput
from infra.lab import claim, layout, removal
from infra.settings import StackSettings

ROOT = Path(__file__).resolve().parents[2]
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
KNOWN_BEFORE = {"configuration", "replicas", "path", "target"}


def state(stack: str = "rfs-plus-4", **values: str) -> StackSettings:
    return config.state(stack, values, online=(0, 1, 2, 3))


def declared(of: StackSettings, ids: Mapping[str, str] | None = None) -> Graph:
    return declared_graph.declared(of.stack, lambda: lab.declare(of), ids)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return declared(state())


def test_the_commands_of_four_pairs(graph: Graph) -> None:
    pairs = {f"{thing}-{index}" for thing in ("pods", "iperf-server") for index in (1, 2, 3, 4)}
    base = {"claim-file", "server-namespace", "client-namespace", "wire-veth", "overlay-vxlan"}
    assert graph.inputs.keys() == base | pairs | {"steer-server", "measurement"}
    assert graph.outputs.keys() == KNOWN_BEFORE | MEASURED
    assert (graph.outputs["configuration"], graph.outputs["replicas"]) == ("rfs-plus", 4)


def test_every_command_has_its_place_in_the_tree(graph: Graph) -> None:
    components = {
        "claim": {"claim-file"},
        "server": {"server-namespace"},
        "client": {"client-namespace"},
        "wire": {"wire-veth"},
        "overlay": {"overlay-vxlan"},
        **{f"pair-{index}": {f"pods-{index}", f"iperf-server-{index}"} for index in (1, 2, 3, 4)},
        "steering-server": {"steer-server"},
    }
    kinds = {"server": "Node", "client": "Node", "steering-server": "Steering"}
    assert graph.parents == {
        "lab": "Stack steerlab-rfs-plus-4",
        "measurement": "Stack steerlab-rfs-plus-4",
        **dict.fromkeys(components, "Lab lab"),
        **{
            command: f"{kinds.get(name, name.partition('-')[0].capitalize())} {name}"
            for name, commands in components.items()
            for command in commands
        },
    }


@pytest.mark.parametrize("path", ["overlay", "host"])
@pytest.mark.parametrize("replicas", [1, 32])
def test_a_pair_costs_at_most_two_commands(path: str, replicas: int) -> None:
    one, many = (declared(state(path=path, replicas=str(n))) for n in (replicas, replicas + 1))
    assert len(many.inputs) - len(one.inputs) == (2 if path == "overlay" else 1)


@pytest.mark.parametrize("path", ["overlay", "host"])
def test_every_command_is_deleted_before_it_is_replaced(path: str) -> None:
    graph = declared(state(path=path, steerNodes="both"))
    assert graph.deleted_first == graph.inputs.keys()


def test_each_thing_is_made_anew_with_what_it_stands_on(graph: Graph) -> None:
    nodes = ["id of server-namespace", "id of client-namespace"]
    stands_on = {
        "claim-file": [BOOT_ID],
        "server-namespace": [BOOT_ID],
        "client-namespace": [BOOT_ID],
        "wire-veth": nodes,
        "overlay-vxlan": ["id of wire-veth"],
        **{f"pods-{index}": nodes for index in (1, 2, 3, 4)},
        **{f"iperf-server-{index}": [f"id of pods-{index}"] for index in (1, 2, 3, 4)},
        "steer-server": [BOOT_ID],
        "measurement": [state().digest()],
    }
    # each script's own fingerprint comes behind
    known = {name: len(ids) for name, ids in stands_on.items()}
    assert stands_on == {
        name: inputs["triggers"][: known[name]] for name, inputs in graph.inputs.items()
    }
    assert graph.needs["server-namespace"] == {"claim-file"}


def test_the_measurement_comes_last(graph: Graph) -> None:
    others = graph.inputs.keys() - {"measurement"}
    assert graph.under("measurement") == others
    assert "delete" not in graph.inputs["measurement"]


def test_no_runs_no_measurement(graph: Graph) -> None:
    converged = declared(state(runs="0"))
    assert converged.inputs.keys() == graph.inputs.keys() - {"measurement"}
    assert converged.outputs.keys() == KNOWN_BEFORE
    assert graph.changed(converged) == set()


def test_more_pairs_leave_the_others_alone(graph: Graph) -> None:
    # one stack: its name is part of every name in the kernel
    more = declared(state(replicas="8"))
    assert graph.changed(more) == {"steer-server", "measurement"}
    assert len(more.inputs) - len(graph.inputs) == 2 * 4


def test_another_configuration_updates_the_steering_alone(graph: Graph) -> None:
    other = declared(state(configuration="pipeline"))
    assert graph.changed(other) == {"steer-server", "measurement"}
    assert other.inputs.keys() == graph.inputs.keys()
    before, after = graph.inputs["steer-server"], other.inputs["steer-server"]
    # a changed trigger would replace it: delete first, so restore, and apply only then
    assert {key for key in before if before[key] != after[key]} == {"stdin", "environment"}
    assert before["update"] == before["create"]


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({"duration": "11"}, {"measurement"}),
        ({"streams": "2"}, {"measurement"}),
        ({"lease": "none"}, {"steer-server", "measurement"}),
        ({"steerNodes": "both"}, {"measurement"}),
        ({"lab.form": "stock"}, {"wire-veth", "overlay-vxlan", "measurement"}),
        ({"lab.queues": "2"}, {"wire-veth", "steer-server", "measurement"}),
        ({"lab.form": "study", "lab.queues": "1"}, set()),
        ({"cpus": '{"server": [0, 1, 2], "client": [3], "irq": 0}'},
         {*(f"iperf-server-{index}" for index in (1, 2, 3, 4)), "steer-server", "measurement"}),
        ({"podCpuLimit": "200m"},
         {*(f"{thing}-{index}" for thing in ("pods", "iperf-server") for index in (1, 2, 3, 4)),
          "measurement"}),
    ],
)  # fmt: skip
def test_a_key_changes_what_it_is_about(
    graph: Graph, values: dict[str, str], changed: set[str]
) -> None:
    other = declared(state(**values))
    assert graph.changed(other) == changed
    added = {"steer-client"} if "steerNodes" in values else set()
    assert other.inputs.keys() - graph.inputs.keys() == added


def test_the_form_stock_leaves_offloads_alone() -> None:
    stock = declared(state(**{"lab.form": "stock"}))
    study = declared(state())
    assert {name for name, inputs in study.inputs.items() if "ethtool" in inputs["create"]} == {
        "wire-veth",
        "overlay-vxlan",
    }
    assert not any("ethtool" in inputs["create"] for inputs in stock.inputs.values())


@pytest.mark.parametrize(("queues", "entries"), [(2, 4), (8, 64), (10, 80)])
def test_a_queue_has_several_entries_and_nothing_leaves_by_tx_0(queues: int, entries: int) -> None:
    cpus = json.dumps({"server": list(range(queues)), "client": [queues], "irq": 0})
    values = {"lab.queues": str(queues), "lab.cpus": cpus}
    of = config.state("rfs-plus-4", values, online=tuple(range(queues + 1)))
    script = declared(of).inputs["wire-veth"]["create"]
    assert f"numrxqueues {entries + 1} numtxqueues 1 netns steerlab-rfs-plus-4-server" in script
    assert f"numrxqueues 1 numtxqueues {entries + 1} netns steerlab-rfs-plus-4-client" in script
    assert f"seq 1 {entries}" in script


def test_recreated_pods_take_their_server_along_and_are_steered_again(graph: Graph) -> None:
    again = declared(state(), ids={"pods-2": "another"})
    assert graph.changed(again) == {"iperf-server-2", "steer-server"}
    assert again.inputs["steer-server"]["triggers"] == graph.inputs["steer-server"]["triggers"]


def test_the_host_path_has_no_overlay_and_no_pods(graph: Graph) -> None:
    host = declared(state(path="host"))
    absent = {"overlay-vxlan", *(f"pods-{index}" for index in (1, 2, 3, 4))}
    assert host.inputs.keys() == graph.inputs.keys() - absent
    nodes = ["id of server-namespace", "id of client-namespace"]
    assert host.inputs["iperf-server-1"]["triggers"][:2] == nodes
    assert host.under("measurement") == host.inputs.keys() - {"measurement"}
    # what carries both paths stays as it is
    assert graph.changed(host) == {
        *(f"iperf-server-{index}" for index in (1, 2, 3, 4)),
        "steer-server",
        "measurement",
    }


def test_nothing_of_this_checkout_and_no_secret_goes_into_the_state() -> None:
    values = {"podCpuLimit": "200m", "steerNodes": "both"}
    values["configurations"] = str(ROOT / "infra/configurations.yaml")
    graph = declared(state(**values))
    text = json.dumps([graph.inputs, graph.outputs])
    for machines in (
        str(ROOT),
        str(Path.home()),
        sys.prefix,
        pulumi.runtime.rpc._special_secret_sig,
    ):
        assert machines not in text


@pytest.mark.parametrize("path", ["overlay", "host"])
def test_every_command_has_its_inverse_and_is_quiet(path: str) -> None:
    for name, inputs in declared(state(path=path)).inputs.items():
        # a long line of a script can block the provider's log, long output its environment
        assert inputs["logging"] == "none"
        assert inputs["addPreviousOutputInEnv"] is False
        assert ("delete" in inputs) == (name != "measurement")


@pytest.mark.parametrize("path", ["overlay", "host"])
def test_a_removal_by_names_undoes_all_that_the_stack_would(path: str) -> None:
    """The agent's part aside: it restores before; and the claim is given up whosever it is."""
    pairs = [layout.pair("rfs-plus-4", index, host=False) for index in (1, 2, 3, 4)]
    undone = {line.strip() for line in removal.script("rfs-plus-4", pairs).splitlines()}
    mine = ("mine=", "owner=", 'if [ "$owner" = "$mine"')
    for name, inputs in declared(state(path=path, podCpuLimit="500m")).inputs.items():
        if name in ("steer-server", "measurement"):
            continue
        lines = {line.strip() for line in inputs["delete"].splitlines()}
        assert {line for line in lines if not line.startswith(mine)} <= undone, name


@pytest.mark.parametrize("file", [claim.OWNER, claim._MADE_MOUNT])
def test_what_the_claim_keeps_is_in_the_way_of_no_stack(file: str) -> None:
    pair = layout.pair("any", 1, host=False)
    stacks = Path(pair.pidfile).parent.parent
    assert Path(file).parent == stacks
    with pytest.raises(InvalidInput, match="stack: "):
        state(Path(file).name, configuration="rps", replicas="1")


def deployed(stack: str, values: Mapping[str, str]) -> Graph:
    """The graph of the whole program, from the stack's configuration on."""
    return declared_graph.declared(stack, infra.deploy, values=values)


def test_the_program_declares_what_the_stack_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cores, "online", lambda: (0, 1, 2, 3))
    asked = {"steerlab:replicas": "2", "steerlab:runs": "0"}
    graph = deployed("rfs-plus-4", asked)
    assert graph == declared(state(replicas="2", runs="0"))


def test_bad_input_ends_the_program_before_any_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(lab, "declare", lambda _: pytest.fail("something was declared"))
    with pytest.raises(pulumi.RunError, match="replicas: must be a whole number from 1 to 1024"):
        deployed("rfs-plus-4", {"steerlab:replicas": "abc"})


def test_the_program_runs_at_the_projects_root_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pulumi.RunError, match=f"from the project's root, not from {tmp_path}"):
        deployed("rfs-plus-4", {})


def test_requests_beside_streams_are_one_more_pair(graph: Graph) -> None:
    mixed, udp = declared(state(traffic="mixed")), declared(state(traffic="rr:protocol=udp"))
    assert mixed.inputs.keys() - graph.inputs.keys() == {"pods-5", "iperf-server-5"}
    assert graph.changed(mixed) == {"steer-server", "measurement"}
    assert "exec sockperf server" in mixed.inputs["iperf-server-5"]["create"]
    assert (
        "00000000:1451 00000000:0000 07' /proc/$pid/net/udp"
        in (udp.inputs["iperf-server-1"]["create"])
    )
    assert mixed.outputs.keys() - graph.outputs.keys() == {"p50_us", "p99_us"}
