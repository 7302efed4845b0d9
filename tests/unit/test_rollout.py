"""Rollouts on a simulated fleet: wherever it fails or is killed, each node is as before or as wanted."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rollout import PLAN, WELL, Killed, Simulated
from experiments.rollout import gate, manifest, run, states, words
from experiments.rollout.audit import AuditLog
from experiments.rollout.contract import Change, Phase, Reading, Status
from experiments.rollout.run import Survey
from infra.errors import InvalidInput, PrerequisiteMissing, Refusal

AT = "2026-11-28T03:21:36.123Z"


def rolled(fleet: Simulated, batch: int) -> tuple[Survey, states.State]:
    found = run.survey(fleet, PLAN, end_trials=True)
    return found, run.roll(fleet, states.begin(found.order(1000), batch), seconds=1.0)


def names(count: int) -> list[str]:
    return [f"n{number:02}" for number in range(count)]


@given(count=st.integers(1, 12), batch=st.integers(1, 5))
def test_a_good_rollout_reaches_all_nodes_the_canary_alone_first(count: int, batch: int) -> None:
    fleet = Simulated(names(count))
    _, state = rolled(fleet, batch)
    assert list(state.kept) == names(count)
    assert set(fleet.phases.values()) == {Status(Phase.KEPT, PLAN)}
    assert fleet.most <= batch
    assert fleet.log[:2] == [("try", "n00"), ("keep", "n00")]
    again, state = rolled(fleet, batch)
    assert (list(again.has), state.kept) == (names(count), ())


@given(count=st.integers(2, 12), batch=st.integers(1, 5), bad=st.integers(0, 11))
def test_a_worse_node_is_undone_and_no_later_node_is_touched(
    count: int, batch: int, bad: int
) -> None:
    bad %= count
    fleet = Simulated(names(count))
    fleet.worse = {f"n{bad:02}"}
    _, state = rolled(fleet, batch)
    assert state.failed.keys() == fleet.worse
    assert "drops" in state.failed[f"n{bad:02}"]
    first = 0 if bad == 0 else 1 + (bad - 1) // batch * batch  # of its batch
    touched = {node for _, node in fleet.log}
    assert touched == {*names(min(count, 1 if bad == 0 else first + batch))}
    kept = {node for node, one in fleet.phases.items() if one.phase is Phase.KEPT}
    assert kept == {*names(first)}
    assert all(one.phase is not Phase.TRIAL for one in fleet.phases.values())


class Nth:
    """Fails, or kills, at some calls by their number."""

    def __init__(self, kill: int, fail: set[int]) -> None:
        self._kill, self._fail, self._count = kill, fail, 0
        self._lock = threading.Lock()

    def __call__(self, what: str) -> None:
        with self._lock:
            self._count += 1
            count = self._count
        if count == self._kill:
            raise Killed
        if count in self._fail:
            raise Refusal(f"{what}: the connection was lost")


@given(
    count=st.integers(1, 9),
    batch=st.integers(1, 4),
    kill=st.integers(0, 80),
    fail=st.sets(st.integers(1, 80), max_size=3),
    kept=st.booleans(),
    expires=st.booleans(),
)
def test_any_failure_and_kill_leaves_nodes_as_before_or_as_wanted(
    count: int, batch: int, kill: int, fail: set[int], kept: bool, expires: bool
) -> None:
    fleet = Simulated(names(count), Nth(kill, fail))
    was = Status(Phase.KEPT, "earlier") if kept else Status(Phase.BEFORE)
    fleet.phases = dict.fromkeys(fleet.phases, was)
    wanted = Status(Phase.KEPT, PLAN)
    state = None
    with suppress(Killed, PrerequisiteMissing):
        _, state = rolled(fleet, batch)
    assert fleet.most <= batch
    assert {*fleet.phases.values()} <= {was, wanted, Status(Phase.TRIAL, PLAN)}
    if state is not None:
        trials = {node for node, one in fleet.phases.items() if one.phase is Phase.TRIAL}
        assert trials <= state.stuck.keys()
        assert {*state.kept} <= {node for node, one in fleet.phases.items() if one == wanted}
    if expires:
        fleet.expire()
        assert {*fleet.phases.values()} <= {was, wanted}
    fleet.dead, fleet.fault = False, lambda _: None
    rolled(fleet, batch)
    assert {*fleet.phases.values()} == {wanted}
    assert fleet.most <= batch


def test_a_node_that_has_the_plan_already_needs_its_agent_too() -> None:
    """Its label is lost with its Node object, so its agent may be new in this rollout."""
    fleet = Simulated(names(3))
    rolled(fleet, 2)
    fleet.phases["n03"] = Status(Phase.BEFORE)
    fleet.worse = {"n03"}
    found, state = rolled(fleet, 2)
    assert run.steered(found, state) == {*names(3)}


def test_an_interrupt_undoes_the_trials_in_flight() -> None:
    fleet = Simulated(names(3))

    def interrupt(state: states.State) -> None:
        if state.stage is states.Stage.JUDGE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.roll(fleet, states.begin(names(3), 2), seconds=0, report=interrupt)
    assert fleet.log == [("try", "n00"), ("undo", "n00")]


@pytest.mark.parametrize("batch", [1, 32, 33, 1000])
def test_a_trial_is_longer_than_the_readings_of_a_batch_one_after_another(batch: int) -> None:
    rounds = -(-batch // run.AT_ONCE)
    assert run.trial_seconds(batch, 20.0) >= 2 * 20.0 * rounds + run.SLACK_S
    assert run.trial_seconds(batch, 0) >= run.SLACK_S


def test_nothing_is_touched_above_the_limit_or_where_a_node_cannot() -> None:
    many = Survey(dict.fromkeys(names(4), ()), ())
    with pytest.raises(InvalidInput, match="more than 3"):
        many.order(3)
    with pytest.raises(PrerequisiteMissing, match="n01: no such device"):
        replace(many, refused={"n01": "no such device"}).order(9)
    assert states.begin([], 5).stage is states.Stage.END


@pytest.mark.parametrize(
    ("reading", "fault"),
    [
        (WELL, None),
        (replace(WELL, ready=False), "not Ready"),
        (replace(WELL, dropped=50), "drops 0.05%"),
        (replace(WELL, dropped=5), None),
        (replace(WELL, packets=1000, dropped=9), None),
        (replace(WELL, squeezed=5000), "run out of budget 500 times"),
        (replace(WELL, softirq_s=9.0), "take 0.9 s of CPU time for a Gbit, 0.3 s before"),
        (replace(WELL, softirq_s=5.9), None),
        (replace(WELL, softirq_s=9.0, received=int(3.75e9)), None),
        (replace(WELL, softirq_s=9.0, received=1000), None),
        (replace(WELL, latency_ms=1.3), None),
        (replace(WELL, latency_ms=40.0), "40.0 ms, 0.2 ms before"),
        (replace(WELL, latency_ms=None), "cannot connect"),
        (Reading(ready=True), None),
    ],
)
def test_the_gate_compares_a_node_with_its_own_baseline(
    reading: Reading, fault: str | None
) -> None:
    found = gate.faults(WELL, reading)
    assert not found if fault is None else fault in found[0]
    bad = replace(WELL, dropped=4000, squeezed=9000, latency_ms=30.0)
    assert not gate.faults(bad, bad)


def test_agents_of_another_image_are_waited_for() -> None:
    """Pods that are replaced restore their node, in the middle of a trial."""
    made = [manifest.daemonset(image)["spec"]["template"] for image in ("a:1", "a:1", "a:2")]
    first, same, other = [one["metadata"]["annotations"][manifest.VERSION] for one in made]
    assert first == same != other


def test_nodes_that_are_alike_share_the_rows_of_a_plan() -> None:
    change = Change("eth0 rx-0", "rps_cpus", "f", "3", stranger=True)
    changes = dict.fromkeys(names(9), (change,))
    found = Survey({**changes, "other": ()}, ["old"], ["tried"], {"down": "it is not Ready"})
    text = words.plan_text(found, "rps", 5)
    assert text.count("rps_cpus") == 1
    assert "n00 to n08 (9 nodes)" in text
    assert "set by somebody else" in text
    assert all(name in text for name in ("old", "tried", "down"))
    assert "odd: prevents the rollout: no device" in words.plan_text(
        replace(found, refused={"odd": "no device"}), "rps", 5
    )
    document = words.document(found, states.begin(names(2), 1), "id", "rps")
    assert document["changes"]["n03"][0]["then"] == "3"
    assert document["untouched"] == ["n01"]


def test_the_local_log_continues_after_the_last_line_of_each_node(tmp_path: Path) -> None:
    path = tmp_path / "new/audit.jsonl"
    log = AuditLog(path)
    assert log.last("n1") == "0"
    first, second = {"n": 1, "at": AT, "node": "n1"}, {"n": 2, "at": AT, "node": "n1"}
    log.add("n1", [first | {"step": "try"}, second | {"knob": "gro"}])
    log.add("n2", [{"n": 7, "at": AT, "who": "me", "node": "n2", "step": "keep"}])
    assert log.last("n2") == f"7@{AT}"
    with path.open("a") as file:
        file.write('{"n": 9, "no')  # a full disk
    again = AuditLog(path)
    assert (again.last("n1"), again.last("n2"), again.last("n3")) == (f"2@{AT}", f"7@{AT}", "0")
    before = path.read_text()
    for lines in ([], [first, second]):  # known lines come again after those of another cluster
        again.add("n1", lines)
        assert path.read_text() == before
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()[:3]] == [1, 2, 7]
    with pytest.raises(PrerequisiteMissing, match="audit log of node n1"):
        again.add("n1", ["no line"])


def test_a_local_log_that_cannot_be_written_is_refused_before_a_node_is_touched(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "file/audit.jsonl", tmp_path / "fifo"):
        with pytest.raises(InvalidInput, match=r"audit: .*: name another file with --audit"):
            AuditLog(path)
    log = AuditLog(tmp_path / "new")
    (tmp_path / "new").unlink()
    (tmp_path / "new").mkdir()
    with pytest.raises(PrerequisiteMissing, match="audit: "):  # a failed step, which is undone
        log.add("n1", [{"n": 1, "at": AT, "node": "n1", "step": "try"}])
