"""Each knob of the registry: steered alone, verified, shown, planned by a configuration, restored."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from knob_examples import EXAMPLES
from steer_tree import Tree, plan, steer

from agent import knobs
from agent.knobs import KNOBS
from experiments.host import calls, nodes
from experiments.host.reference import UNTESTED
from experiments.targets.lab import doctor
from infra import configurations, steering
from infra.steering import Device

PARTS = {
    steer.RX_QUEUE: "sys/class/net/eth1/queues/rx-{}/",
    steer.TX_QUEUE: "sys/class/net/eth1/queues/tx-{}/",
    steer.DEVICE: "sys/class/net/eth1/",
    steer.NAMESPACE: "proc/sys/net/core/",
    steer.MACHINE: "proc/sys/net/core/",
}
LONGEST = 25  # lines of an entry
LISTS = {steer.RX_QUEUE: "queues", steer.TX_QUEUE: "queues", steer.DEVICE: "devices"}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A node with a NIC of two queues, on which each knob has the value of its example."""
    tree = Tree(tmp_path, cpus="0-3")
    tree.write("proc/sys/kernel/osrelease", "6.18.44")
    tree.device("eth1", queues=2, transmit=2, hardware=True, gro="on")
    for name in KNOBS:
        if name != "gro":  # other knobs need it
            write(tree, name, EXAMPLES[name].before)
    return tree


def files(tree: Tree, name: str) -> list[Path]:
    part = tree.root / (PARTS[KNOBS[name].scope] + name)
    return [Path(str(part).format(n)) for n in (0, 1)] if "{}" in str(part) else [part]


def write(tree: Tree, name: str, text: str) -> None:
    for file in files(tree, name):
        tree.write(str(file.relative_to(tree.root)), text)


def texts(tree: Tree, name: str) -> set[str]:
    return {file.read_text().strip() for file in files(tree, name)}


def wanted(name: str) -> dict[str, Any]:
    values = {name: EXAMPLES[name].word}
    if KNOBS[name].scope == steer.MACHINE:
        return plan(machine=values)
    return plan({"role": "nic", "devices": ["eth1"], "set": values})


@pytest.mark.parametrize("name", KNOBS)
def test_it_is_steered_verified_and_restored(tree: Tree, name: str) -> None:
    write(tree, name, EXAMPLES[name].before)
    before = tree.values()
    answer = tree.apply(wanted(name))
    assert answer["changed"] == len(files(tree, name))
    assert texts(tree, name) == {EXAMPLES[name].after}
    assert {entry["knob"] for entry in tree.saved()["entries"]} == {name}
    assert (tree.verify()["drift"], tree.apply(wanted(name))["changed"]) == ([], 0)
    write(tree, name, EXAMPLES[name].before)
    assert {drift["kind"] for drift in tree.verify()["drift"]} == {"value"}
    write(tree, name, EXAMPLES[name].after)
    answer = tree.restore()
    assert (answer["failed"], answer["left"], answer["gone"]) == ([], [], [])
    assert tree.values() == before


@pytest.mark.parametrize("name", KNOBS)
def test_it_is_shown(tree: Tree, name: str) -> None:
    with tree.machine() as machine:
        shown = steer.show(machine, [])
    calls._Answer.model_validate(shown)
    value = KNOBS[name].codec.as_json(texts(tree, name).pop())
    if KNOBS[name].scope == steer.MACHINE:
        assert shown["machine"][name] == value
        assert f"{name} {value}" in doctor.in_use(shown)
        return
    rows = shown[LISTS.get(KNOBS[name].scope, "namespaces")]
    assert [row[name] for row in rows if name in row] == [value] * len(files(tree, name))
    told = "\n".join(nodes._tables(shown, ("device", "namespace")))
    assert name in told.lower()


@pytest.mark.parametrize("name", KNOBS)
def test_a_configuration_names_it(tmp_path: Path, name: str) -> None:
    knob, word = KNOBS[name], EXAMPLES[name].word
    part = "machine" if knob.scope == steer.MACHINE else "nic"
    file = tmp_path / "own.yaml"
    file.write_text(f"x: {{{part}: {{{name}: {word}}}}}")  # YAML 1.1 reads on and off as booleans
    read = configurations.load(file)["x"]
    document = steering.plan(
        read, owner="me", devices=[Device("nic", ("eth1",))], cores=[0, 1], queue_core=0
    )
    parsed = steer.parse_plan(document)
    assert (parsed.machine if part == "machine" else parsed.rules[0].set)[name] == word
    baseline = configurations.load()["baseline"]
    always = ("rps_cpus", "rps_flow_cnt", "rps_sock_flow_entries")
    assert (f"{part} {name}={word}" in read.described) == (name not in always)
    assert read.definition != baseline.definition


@pytest.mark.parametrize("name", KNOBS)
def test_its_entry_is_short(name: str) -> None:
    source = ast.parse(Path(knobs.__file__).read_text())
    (entry,) = (
        node
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]) == repr(name)
        if ast.unparse(node.func) == "Knob"
    )
    assert (entry.end_lineno or 0) - entry.lineno < LONGEST


def test_only_knobs_of_the_registry_are_untested_on_devices() -> None:
    assert set(UNTESTED) < set(KNOBS)
    assert all(UNTESTED.values())
