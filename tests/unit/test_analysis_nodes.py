"""Several server nodes: each has its own results, and unlike nodes are never one figure."""

from __future__ import annotations

import json

import pytest

from analysis.compare import compare
from analysis.machine import unlike_nodes
from analysis.nodes import NodeCell
from analysis.report.cells import nodes as table
from analysis.report.pages import write_report
from analysis.schema import Core, NodeFacts, Record
from analysis.summary import Summary, summarise
from benchmarks.synthetic import MACHINE, sweep, valued

SERVERS, CLIENTS = ("s1", "s2"), ("c1", "c2")
# The effect of rfs on each server node.
ON_NODE = {"s1": 1.3, "s2": 0.8}


def facts(**changes: dict[str, object]) -> list[NodeFacts]:
    """Four like nodes, with changes by name."""
    common = {"kernel": "6.1", "cpu": "x", "cores": 8, "nic": "virtio_net", "instance_type": "m"}
    return [
        NodeFacts.model_validate({"name": name, "side": side, **common, **changes.get(name, {})})
        for side, names in (("server", SERVERS), ("client", CLIENTS))
        for name in names
    ]


def records(nodes: list[NodeFacts], replicas: tuple[int, ...] = (4,)) -> list[Record]:
    """A sweep whose pairs are spread over two nodes of each side, round robin."""
    found = []
    for record in sweep({"baseline": 1, "rfs": 1}, replicas=replicas, blocks=12):
        pairs = []
        for pair in record.pairs:
            server = SERVERS[(pair.index - 1) % 2]
            factor = ON_NODE[server] if record.configuration == "rfs" else 1
            placed = {"server_node": server, "client_node": CLIENTS[(pair.index - 1) % 2]}
            rate = (pair.values["bitrate_mbps"] or 0) * factor
            pairs.append(valued(pair, bitrate_mbps=rate).model_copy(update=placed))
        cores = [
            Core(node=node, core=core, side="server", idle=idle, soft=20)
            for node, idle in zip(SERVERS, (10.0, 90.0), strict=True)
            for core in range(2)
        ]
        machine = MACHINE.model_copy(update={"nodes": nodes})
        update = {"pairs": pairs, "cores": cores, "machine": machine, "target": "kubernetes"}
        found.append(record.model_copy(update=update))
    return found


def on(summary: Summary, node: str, configuration: str = "rfs", replicas: int = 4) -> NodeCell:
    (found,) = (
        one
        for one in summary.nodes
        if (one.node, one.configuration, one.replicas) == (node, configuration, replicas)
    )
    return found


def test_each_server_node_has_its_own_verdict() -> None:
    summary = summarise(records(facts()))
    verdicts = {node: on(summary, node).contrast for node in SERVERS}
    assert {n: one.verdict for n, one in verdicts.items() if one} == {"s1": "better", "s2": "worse"}
    for node, one in verdicts.items():
        assert one
        assert one.effect.estimate == pytest.approx(ON_NODE[node], rel=0.05)
    assert on(summary, "s1").pairs == 2
    assert on(summary, "s1", "baseline").contrast is None
    # like nodes: together they have a verdict too
    (together,) = summary.contrasts
    assert not together.doubt
    assert json.loads(json.dumps(summary.to_json()))["nodes"][0]["node"] == "s1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"s2": {"kernel": "6.8"}}, "kernel of the server nodes: 6.1 (s1), 6.8 (s2)"),
        ({"s2": {"cpu": "y"}}, "CPU of the server nodes: x (s1), y (s2)"),
        ({"s1": {"cores": 4}}, "number of CPUs of the server nodes: 4 (s1), 8 (s2)"),
        ({"s2": {"nic": "ena"}}, "NIC of the server nodes: ena (s2), virtio_net (s1)"),
        ({"c2": {"instance_type": "l"}}, "instance type of the client nodes: l (c2), m (c1)"),
    ],
)
def test_unlike_nodes_have_no_verdict_together(changes: dict, words: str) -> None:
    found = records(facts(**changes))
    assert unlike_nodes(found[0]) == [words]
    summary = summarise(found)
    (together,) = summary.contrasts
    assert (together.verdict, together.doubt) == ("inconclusive", f"unlike nodes: {words}")
    (warning,) = (one for one in summary.warnings if "not alike" in one)
    assert words in warning
    assert "kubernetes.serverSelector" in warning
    assert compare(found, found, "baseline", "rfs", at=4, baseline="baseline").exit_code == 5


def test_each_unlike_server_node_keeps_its_verdict() -> None:
    summary = summarise(records(facts(s2={"kernel": "6.8"}), replicas=(1, 4)))
    of_one = next(one for one in summary.contrasts if one.replicas == 1)
    assert (of_one.verdict, of_one.doubt) == ("better", "")  # one pair, on one node
    for node in SERVERS:
        contrast = on(summary, node).contrast
        # its pairs are with both client nodes in turn, which are alike
        assert contrast
        assert contrast.verdict == {"s1": "better", "s2": "worse"}[node]
    assert {one.node for one in summary.nodes if one.replicas == 1} == {"s1"}


def test_what_is_not_known_of_a_node_does_not_differ() -> None:
    unknown = dict.fromkeys(("cpu", "nic", "instance_type"))
    assert not unlike_nodes(records(facts(s2=unknown))[0])


def test_the_part_of_a_node_has_its_cores_unless_nodes_share_a_kernel() -> None:
    record = records(facts())[0]
    assert {core.node for core in record.on("s1").cores} == {"s1"}
    assert record.on("s1").elsewhere == 2
    shared = record.model_copy(update={"cores": [c for c in record.cores if c.node == "s1"]})
    assert not shared.on("s1").cores


def test_an_invalid_run_counts_on_no_node() -> None:
    found = records(facts())
    gone = found[0].pairs[0].model_copy(update={"reason": "lost", "values": {}})
    found[0] = found[0].model_copy(update={"pairs": [gone, *found[0].pairs[1:]]})
    summary = summarise(found)
    runs = {on(summary, node, found[0].configuration).runs for node in SERVERS}
    assert runs == {11}


def test_one_node_has_no_results_of_its_own(tmp_path) -> None:
    alone = [
        record.model_copy(
            update={
                "pairs": [p.model_copy(update={"server_node": "s1"}) for p in record.pairs],
            }
        )
        for record in records(facts())
    ]
    assert summarise(alone).nodes == []
    several = summarise(records(facts()))
    assert len(table(several).rows) == 4
    written = write_report(records(facts()), several, tmp_path)
    assert "Each server node" in written.markdown.read_text()
