"""A node's part of a rollout, on a tree of files: trials that end, kept plans, and the log of every write."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from steer_tree import Tree, eventually, plan, rule

from agent import rollout

OWNER = "rollout"
RPS = plan(rule("nic", "eth0", cpus="all"), owner=OWNER)
FIRST = plan(rule("nic", "eth0", cpus="first"), owner=OWNER)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path)
    made.device("eth0", queues=2)
    return made


def step(
    tree: Tree, name: str, rollout: str = "one", *words: str, code: int = 0, **more: Any
) -> Any:
    options = (name, "--rollout", rollout, "--who", "me@desk", "--node", "n1", *words)
    done = tree.run("rollout", *options, **more)
    assert done.returncode == code, done.stderr
    return done.answer if done.answer is not None else done.stderr


def masks(tree: Tree) -> list[str]:
    return [tree.queue("eth0", queue).joinpath("rps_cpus").read_text().strip() for queue in (0, 1)]


def log(tree: Tree) -> list[dict[str, Any]]:
    text = (tree.root / "var/lib/steerlab/audit.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines() if line]


def test_a_trial_is_kept_and_restored_and_every_write_is_in_the_log(tree: Tree) -> None:
    before = tree.values()
    answer = step(tree, "try", plan=RPS)
    assert (answer["phase"], answer["rollout"], masks(tree)) == ("trial", "one", ["3", "3"])
    assert step(tree, "keep")["phase"] == "kept"
    assert step(tree, "keep")["phase"] == "kept"  # safe to repeat
    assert step(tree, "restore")["phase"] == "before"
    assert tree.values() == before
    lines = log(tree)
    assert [line["n"] for line in lines] == [*range(1, len(lines) + 1)]
    assert [line["step"] for line in lines if "step" in line] == ["try", "keep", "restore"]
    writes = [(line["where"], line["old"], line["new"]) for line in lines if "knob" in line]
    assert len(writes) == 4
    assert {(old, new) for _, old, new in writes} == {("0", "3"), ("3", "0")}
    assert {(line["who"], line["node"]) for line in lines} == {("me@desk", "n1")}
    assert step(tree, "status", "one", "--since", f"3@{lines[2]['at']}")["audit"] == lines[3:]


def test_a_trial_can_be_undone_to_the_plan_that_was_kept(tree: Tree) -> None:
    step(tree, "try", "one", plan=RPS)
    step(tree, "keep", "one")
    assert step(tree, "undo", "one")["phase"] == "kept"  # no trial
    step(tree, "try", "two", plan=FIRST)
    assert masks(tree) == ["1", "1"]
    answer = step(tree, "undo", "two")
    assert (answer["phase"], answer["rollout"], masks(tree)) == ("kept", "one", ["3", "3"])


def test_one_trial_at_a_time_and_no_keep_of_another(tree: Tree) -> None:
    step(tree, "try", "one", plan=RPS)
    assert "trial of rollout one is in progress" in step(tree, "try", "two", plan=FIRST, code=3)
    assert "no trial of rollout two" in step(tree, "keep", "two", code=3)
    step(tree, "undo")
    assert "no trial of rollout one" in step(tree, "keep", "one", code=3)


def test_a_refused_plan_leaves_the_node_as_it_was(tree: Tree) -> None:
    before = tree.values()
    step(tree, "try", plan=plan(rule("nic", "eth9", cpus="all"), owner=OWNER), code=3)
    assert tree.values() == before
    assert step(tree, "status")["phase"] == "before"


def test_a_trial_ends_by_itself_and_the_agent_s_end_restores_a_kept_plan(tree: Tree) -> None:
    before = tree.values()
    step(tree, "try", "one", "--seconds", "1", plan=RPS)
    agent = tree.start("rollout", "stand", "--node", "n1")
    try:
        eventually(lambda: tree.values() == before)
        assert step(tree, "status")["phase"] == "before"
        step(tree, "try", "two", plan=RPS)
        step(tree, "keep", "two")
        assert masks(tree) == ["3", "3"]
    finally:
        agent.terminate()
        agent.communicate(timeout=30)
    assert agent.returncode == 0
    assert tree.values() == before
    again = tree.start("rollout", "stand", "--node", "n1")  # as after a reboot
    try:
        eventually(lambda: masks(tree) == ["3", "3"])
    finally:
        again.terminate()
        again.communicate(timeout=30)


def test_a_trial_whose_agent_was_replaced_is_not_kept(tree: Tree) -> None:
    """Its values were restored meanwhile, so what was observed is not the plan."""
    step(tree, "try", "one", plan=RPS)
    lock = tree.root / "var/lib/steerlab/lock"
    lock.unlink()
    agent = tree.start("rollout", "stand")
    eventually(lock.exists)  # it has looked after the node
    agent.terminate()
    agent.communicate(timeout=30)
    assert masks(tree) == ["0", "0"]
    assert "no trial of rollout one" in step(tree, "keep", "one", code=3)
    assert step(tree, "undo")["phase"] == "before"
    step(tree, "try", "two", plan=RPS)
    assert step(tree, "keep", "two")["phase"] == "kept"


def test_a_refused_plan_that_was_not_rolled_back_is_undone(tree: Tree) -> None:
    """Only then may the agent of the node be removed."""
    before = tree.values()
    tree.apply(RPS)  # as what is left of it: a snapshot, and no file of a trial
    assert step(tree, "undo")["phase"] == "before"
    assert tree.values() == before


def test_values_that_cannot_be_restored_are_tried_again_only_when_it_is_due(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RPS)
    for due, values in ((False, tree.values()), (True, before)):
        with tree.machine() as machine, rollout.part(machine, "agent", "n1") as (mine, _):
            mine.turn(due)
        assert tree.values() == values
    assert [line["step"] for line in log(tree) if "step" in line] == ["restore"]


@pytest.mark.parametrize("name", ["undo", "restore"])
def test_a_log_that_cannot_be_written_prevents_a_trial_but_not_its_end(
    tree: Tree, name: str
) -> None:
    before = tree.values()
    step(tree, "try", plan=RPS)
    file = tree.root / "var/lib/steerlab/audit.jsonl"
    file.unlink()
    file.mkdir()  # as a full disk
    assert step(tree, name)["phase"] == "before"
    assert tree.values() == before
    assert "directory" in step(tree, "try", plan=RPS, code=1)
    assert tree.values() == before


def test_an_agent_that_ends_and_cannot_restore_its_node_fails(tree: Tree) -> None:
    step(tree, "try", plan=RPS)
    lock = tree.root / "var/lib/steerlab/lock"
    lock.unlink()
    agent = tree.start("rollout", "stand")
    eventually(lock.exists)
    stuck = tree.queue("eth0", 0) / "rps_cpus"
    stuck.unlink()
    stuck.mkdir()
    agent.terminate()
    _, said = agent.communicate(timeout=30)
    assert agent.returncode == 1
    assert "rps_cpus" in said
    assert (tree.queue("eth0", 1) / "rps_cpus").read_text().strip() == "0"


def test_a_damaged_file_is_named_and_a_restore_removes_it(tree: Tree) -> None:
    step(tree, "try", plan=RPS)
    file = tree.root / "var/lib/steerlab/rollout.kept"
    file.write_text('{"rollout": 3}')
    assert "damaged" in step(tree, "status", code=3)
    step(tree, "restore")
    assert masks(tree) == ["0", "0"]
    assert not file.exists()


@pytest.mark.parametrize("last", ["0", "2@2026-01-01T00:00:00.000Z", "57@2026-01-01T00:00:00.000Z"])
def test_a_log_that_is_not_the_one_of_the_reader_is_read_from_its_start(
    tree: Tree, last: str
) -> None:
    """Its node was installed anew, or the reader has seen that of another cluster's node."""
    step(tree, "try", plan=RPS)
    assert step(tree, "status", "one", "--since", last)["audit"] == log(tree) != []


def test_the_log_starts_again_when_it_is_long_and_survives_half_a_line(tree: Tree) -> None:
    step(tree, "try", plan=RPS)
    file = tree.root / "var/lib/steerlab/audit.jsonl"
    with file.open("a") as log_file:
        log_file.write("x" * (1 << 22) + '\n{"n": 9')
    number = len([line for line in file.read_text().splitlines() if line.startswith('{"n": ')]) - 1
    answer = step(tree, "undo")
    assert [line["n"] for line in answer["audit"]] == [*range(1, len(answer["audit"]) + 1)]
    assert len(answer["audit"]) > number
    assert file.with_name("audit.jsonl.1").exists()


@pytest.mark.parametrize("name", ["try", "keep", "undo", "restore"])
def test_a_killed_step_leaves_the_node_with_what_its_file_says(tree: Tree, name: str) -> None:
    """After kill -9 at any moment the standing agent makes the node agree with its file."""
    for delay in (0.05, 0.1, 0.15):
        step(tree, "restore")
        if name != "try":
            step(tree, "try", "one", "--seconds", "1", plan=RPS)
        process = tree.start(
            "rollout",
            name,
            "--rollout",
            "one",
            "--seconds",
            "2",
            plan=RPS if name == "try" else None,
        )
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for queue in (0, 1):  # unlike a file, the kernel has no half-done write
            file = tree.queue("eth0", queue) / "rps_cpus"
            if not file.read_text():
                file.write_text("0\n")
        _agrees(tree)


def _agrees(tree: Tree) -> None:
    agent = tree.start("rollout", "stand")
    wanted = {"kept": ["3", "3"], "before": ["0", "0"]}
    try:
        eventually(lambda: masks(tree) == wanted.get(step(tree, "status")["phase"]))
    finally:
        agent.terminate()
        agent.communicate(timeout=30)
