"""The agent's `switchback`: plans in turn under the same connections, and a machine as it was."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from imitation import Connections, Imitation, absent, answer
from steer_tree import AGENT, HERE, Tree, eventually, on_tree, plan, replace, rule, steer
from switched_tree import (
    OWNER,
    PLANS,
    PODS,
    Started,
    document,
    episode,
    populate,
    received,
    rules,
)

from agent.goodput import Receiver
from experiments.run import episodes


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    made = populate(Tree(tmp_path, sock_flow_entries=4096))
    before = made.values()
    yield made
    assert made.values() == before


def lease_of(tree: Tree) -> Any:
    return steer.Lease(**tree.saved()["lease"])


LONG = [{"plan": "rps", "at": 0, "settle": 0, "seconds": 100}]

# a schedule is checked whole, before anything is opened


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version is 2"),
        ({"plans": {}}, "plans is {}"),
        ({"plans": {"a b": PLANS["rps"]}}, "plans is"),
        ({"plans": {"rps": {**PLANS["rps"], "rules": 5}}}, "plans.rps: rules is 5"),
        ({"plans": {**PLANS, "rps": {**PLANS["rps"], "owner": "you"}}}, "plans.rps.owner"),
        ({"windows": []}, "windows is []"),
        ({"receivers": ["pod:1"]}, 'receivers is ["pod:1"]'),
        ({"receivers": [True]}, "receivers is [true]"),
        ({"lease_seconds": 30}, "lease_seconds is 30: this schedule needs 61"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"every": 0.001}, "every is 0.001"),
        ({"connections": 0}, "connections is 0"),
        ({"receivers": [1] * 1024, "windows": LONG, "every": 0.005}, "readings of goodput"),
        ({"more": 1}, "more is unknown"),
    ],
)
def test_a_schedule_that_is_wrong_is_named(change: dict, words: str) -> None:
    with pytest.raises(steer.SteerError) as error:
        steer.parse_schedule(document("rps", **change))
    assert str(error.value).startswith("switchback: ")
    assert words in str(error.value)
    assert error.value.status == steer.BAD_PLAN


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan": "other"}, "windows[1].plan is 'other'"),
        ({"at": 0.5}, "windows[1].at is 0.5: the window before ends at 1.1"),
        ({"at": -1}, "windows[1].at is -1"),
        ({"at": 1e999}, "windows[1].at is Infinity"),
        ({"at": 599.5}, "windows: the last ends at 600.6"),
        ({"seconds": 0}, "windows[1].seconds is 0"),
        ({"settle": True}, "windows[1].settle is true"),
        ({"settle": None}, "windows[1].settle is null"),
    ],
)
def test_a_window_that_is_wrong_is_named(change: dict, words: str) -> None:
    window = {"plan": "rps", "at": 0, "settle": 0.1, "seconds": 1}
    wrong = document("rps", windows=[window, {**window, "at": 2, **change}])
    with pytest.raises(steer.SteerError) as error:
        steer.parse_schedule(wrong)
    assert words in str(error.value)


def test_windows_may_follow_at_once() -> None:
    windows = [{"plan": "rps", "at": at, "settle": 0.1, "seconds": 0.2} for at in (0, 0.3, 0.6)]
    assert len(steer.parse_schedule(document(windows=windows)).windows) == 3


# an episode


def test_each_window_has_its_plan_and_then_all_is_as_before(tree: Tree) -> None:
    done = episode(tree, document("rps", "baseline", "rfs-plus", "rps"))
    assert [window["plan"] for window in done["windows"]] == ["rps", "baseline", "rfs-plus", "rps"]
    assert [window["spoiled"] for window in done["windows"]] == [[]] * 4
    nic, *pods = done["plans"]["rfs-plus"]["queues"]
    assert (nic["rps_cpus"], nic["rps_flow_cnt"]) == ("1", 32768)
    assert [row["rps_cpus"] for row in pods] == ["3", "3"]
    assert done["plans"]["rfs-plus"]["sock_flow_entries"] == 32768
    assert done["plans"]["rps"]["queues"][0]["rps_cpus"] == "3"
    assert not tree.snapshot().exists()


def test_devices_are_counted_at_both_ends_of_the_episode(tree: Tree) -> None:
    folder = "sys/class/net/eth1/statistics"
    for name in ("rx_packets", "rx_bytes"):
        tree.write(f"{folder}/{name}", 5)

    def receive() -> None:
        tree.write(f"{folder}/rx_bytes", 900)

    edges = hooked_episode(tree, 1, receive, "baseline", "rps")["device_edges"]
    (before, *pods), (after, *_) = edges
    assert (before["role"], before["device"]) == ("nic", "eth1")
    assert {row["role"] for row in pods} == {"pod"}
    assert (before["rx_packets"], before["rx_bytes"]) == (5, 5)
    assert after == {**before, "rx_bytes": 900}


def test_only_what_differs_is_written(tree: Tree) -> None:
    done = episode(tree, document("baseline", "rps", "rps", "rfs-plus"))
    # mask and flows of eth1, both pods' masks, the table; eth1's mask; none; all but the pods' flows
    assert [window["writes"] for window in done["windows"]] == [5, 1, 0, 5]


def test_the_snapshot_holds_every_value_before_the_first_write(tree: Tree) -> None:
    seen: list[dict] = []

    def look() -> None:
        assert tree.values() == before
        seen.append(tree.saved())

    before = tree.values()
    episode(tree, document("rps", "rfs-plus"), look)
    entries = {
        (entry["device"], entry["namespace"], entry["knob"]): entry for entry in seen[0]["entries"]
    }
    assert len(entries) == 7
    nic = entries["eth1", None, "rps_flow_cnt"]
    assert (nic["before"], set(nic["written"])) == ("64", {"0", "32768"})
    assert set(entries["eth0", PODS[71], "rps_cpus"]["written"]) == {"0", "3"}
    assert entries["", None, "rps_sock_flow_entries"]["before"] == "4096"
    assert seen[0]["lease"]["seconds"] == 600


def test_what_a_plan_does_not_set_is_as_it_was_at_first(tree: Tree) -> None:
    plans = {"one": plan(rule("nic", "eth1", cpus="3")), "other": plan(*rules("1", "2")[1:])}
    done = episode(tree, document("one", "other", plans=plans))
    assert [window["spoiled"] for window in done["windows"]] == [[], []]
    assert done["windows"][1]["writes"] == 4  # both of eth1 back, both masks of the pods
    assert done["plans"]["other"]["sock_flow_entries"] is None


def test_it_goes_back_to_what_was_applied_before(tree: Tree) -> None:
    applied = {**PLANS["rps"], "lease_seconds": 600}
    tree.apply(applied)
    steered, saved = tree.values(), tree.saved()
    try:
        plans = {"one": plan(rule("nic", "eth1", cpus="2", flows=8))}
        done = episode(tree, document("one", plans=plans))
        # eth1 by this plan; the pods and the table as before the apply
        assert done["windows"][0]["writes"] == 5
        assert done["windows"][0]["spoiled"] == []
        assert tree.values() == steered
        assert tree.saved() == saved
        assert not tree.verify()["drift"]
    finally:
        assert not tree.restore()["failed"]


def test_another_owner_s_values_are_refused(tree: Tree) -> None:
    tree.apply(plan(*rules("3", "3"), owner="other"))
    with pytest.raises(steer.SteerError, match="steered by owner other"):
        episode(tree, document("rps"))
    tree.restore("other")


def test_a_plan_that_does_not_fit_is_named(tree: Tree) -> None:
    plans = {**PLANS, "wide": plan(*rules("f", "3"))}
    with pytest.raises(steer.SteerError, match=r"plans\.wide: rules\[0\].*CPU 3 does not exist"):
        episode(tree, document("rps", plans=plans))
    plans = {**PLANS, "absent": plan(rule("nic", "eth7"))}
    with pytest.raises(steer.SteerError, match=r"plans\.absent: rules\[0\]: no nic device"):
        episode(tree, document("rps", plans=plans))
    assert not tree.snapshot().exists()


@pytest.mark.parametrize("name", [99, "pod:0a1b2c3d-0000-4000-8000-0123456789ab"])
def test_a_receiver_that_does_not_exist_is_refused(tree: Tree, name: Any) -> None:
    with pytest.raises(steer.SteerError, match=f"receiver {name}"):
        episode(tree, document("rps", receivers=[name]))
    assert not tree.snapshot().exists()


def test_a_value_that_changes_before_the_start_ends_it(tree: Tree) -> None:
    mask = tree.queue("eth1") / "rps_cpus"
    with pytest.raises(steer.SteerError, match="somebody else writes it"):
        episode(tree, document("rps"), lambda: mask.write_text("3\n"))
    mask.write_text("2\n")


def test_unequal_tables_are_emptied_first_where_they_can_crash(tree: Tree) -> None:
    tree.write("proc/sys/kernel/osrelease", "6.18.4")
    plans = {"one": plan(*rules("1", "1", 128)), "two": plan(*rules("1", "1", 256))}
    done = episode(tree, document("one", "two", plans=plans))
    assert [window["spoiled"] for window in done["windows"]] == [[], []]
    assert done["windows"][1]["writes"] == 2


# what is measured


class Hooked(Imitation):
    """A machine on which something happens when a receiver is read for the nth time."""

    def __init__(self, root: Path, number: int, hook: Any) -> None:
        super().__init__(root=root)
        self.left = number
        self.hook = hook

    def afresh(self) -> Imitation:
        """Without the hook: the watchdog of the lease looks at the machine in this way."""
        return Imitation(root=self.root)

    def sock_diag(self, pid: int) -> Any:
        machine = self

        class Read(Connections):
            def look_up(self, messages: bytes) -> list[bytes]:
                machine.left -= 1
                if machine.left == 0:
                    machine.hook()
                return super().look_up(messages)

        return Read(self.root / f"proc/{pid}/connections")


def hooked(tree: Tree, number: int, hook: Any, *order: str, **more: Any) -> list[dict]:
    rows: list[dict] = hooked_episode(tree, number, hook, *order, **more)["windows"]
    return rows


def hooked_episode(tree: Tree, number: int, hook: Any, *order: str, **more: Any) -> dict:
    machine = Hooked(tree.root, number, hook)
    with pytest.MonkeyPatch.context() as patch, machine:
        patch.setattr(Tree, "machine", lambda _: machine)
        return episode(tree, document(*order, **more))


def test_goodput_is_what_was_read_and_what_waits(tree: Tree) -> None:
    (row,) = hooked(tree, 3, lambda: received(tree, 72, 5000, waiting=300), "rps")
    assert [one["bytes"] for one in row["received"]] == [0, 4300]
    assert all(one["seconds"] > 0 for one in row["received"])


def test_goodput_within_a_window(tree: Tree) -> None:
    windows = [{"plan": "rps", "at": 0, "settle": 0.02, "seconds": 0.04}]
    (row,) = hooked(
        tree, 7, lambda: received(tree, 72, 5000, waiting=300), windows=windows, every=0.01
    )
    assert [one["bytes"] for one in row["trace"]] == [[1000, 1000]] * 3 + [[1000, 5300]] * 4
    moments = [one["at"] for one in row["trace"]]
    assert moments == sorted(moments)
    assert row["received"][1]["bytes"] == 4300


def test_readings_of_a_window_are_within_it() -> None:
    window = steer.Window("rps", 1, 0.1, 0.2)
    assert steer.moments(window, None) == [(1.1, True), (pytest.approx(1.3), True)]
    found = steer.moments(window, 0.05)
    assert [round(at, 6) for at, _ in found] == [1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3]
    assert [is_edge for _, is_edge in found] == [False, False, True, False, False, False, True]
    at_once = steer.Window("rps", 1, 0, 0.1)
    assert steer.moments(at_once, 0.05) == [(1, True), (1.05, False), (1.1, True)]


def test_a_connection_that_ends_spoils_its_windows(tree: Tree) -> None:
    def end() -> None:
        (tree.root / "proc/72/connections").write_text("")

    rows = hooked(tree, 4, end, "rps", "baseline")
    for row in rows:
        assert row["received"][1] is None
        assert row["received"][0]["bytes"] == 0
        (reason,) = row["spoiled"]
        assert (reason["kind"], reason["receiver"]) == ("receiver", 1)


def test_a_pod_receives_by_those_of_its_processes_that_have_a_connection(tree: Tree) -> None:
    uid = "0a1b2c3d-0000-4000-8000-0123456789ab"
    for pid in (71, 73):
        tree.write(f"proc/{pid}/cgroup", f"0::/kubepods/pod{uid}/abc")
    tree.write("proc/73/io", "rchar: 9")
    done = hooked(
        tree, 1, lambda: received(tree, 71, 1500), "rps", receivers=[f"pod:{uid}"], plans=PLANS
    )
    assert [one["bytes"] for one in done[0]["received"]] == [500]
    assert done[0]["spoiled"] == []


def test_a_receiver_without_connections_spoils_all(tree: Tree) -> None:
    (tree.root / "proc/71/fd/3").unlink()
    done = episode(tree, document("rps"))
    (reason,) = done["windows"][0]["spoiled"]
    assert (reason["kind"], reason["receiver"]) == ("receiver", 0)


def test_a_process_that_ends_spoils_its_windows(tree: Tree, monkeypatch: Any) -> None:
    pread = os.pread

    def ended(file: int, size: int, offset: int) -> bytes:
        text = pread(file, size, offset)
        if text.startswith(b"rchar"):
            raise OSError(errno.ESRCH, "No such process")
        return text

    monkeypatch.setattr(os, "pread", ended)
    (row,) = episode(tree, document("rps"))["windows"]
    assert row["received"] == [None, None]
    assert [reason["kind"] for reason in row["spoiled"]] == ["receiver"] * 2


def test_a_value_that_others_write_spoils_the_window(tree: Tree) -> None:
    mask = tree.queue("eth1") / "rps_cpus"
    rows = hooked(tree, 3, lambda: mask.write_text("2\n"), "rps", "baseline")
    assert [reason["kind"] for reason in rows[0]["spoiled"]] == ["value"]
    assert rows[1]["spoiled"] == []


def test_a_value_that_others_write_last_stays_and_is_named_once(tree: Tree) -> None:
    mask = tree.queue("eth1") / "rps_cpus"
    done = hooked_episode(tree, 8, lambda: mask.write_text("0\n"), "rps", "baseline")
    assert [reason["kind"] for reason in done["windows"][1]["spoiled"]] == ["value"]
    (left,) = done["left"]
    assert "rps_cpus of eth1" in left
    assert mask.read_text() == "0\n"
    mask.write_text("2\n")


def edge(at: float) -> Any:
    return steer.Edge(0, steer.Sample(at, 0, {}), [steer.Reading(at, [], [], "")])


@pytest.mark.parametrize(
    ("switched", "first", "last", "words"),
    [
        (0.001, 0.1, 0.4, []),
        (0.01, 0.1, 0.41, []),
        (0.05, 0.1, 0.4, ["it settled for 0.050 s instead of 0.100 s"]),
        (0.001, 0.13, 0.4, ["it lasted 0.270 s instead of 0.300 s"]),
        (0.001, 0.1, 0.43, ["it lasted 0.330 s instead of 0.300 s"]),
    ],
)
def test_a_window_that_is_not_the_planned_one(
    switched: float, first: float, last: float, words: list[str]
) -> None:
    taken = steer.Taken(0, switched, 0, 0, [], edge(first), edge(last), [], [])
    assert steer.untimely(steer.Window("rps", 0, 0.1, 0.3), taken, 0.02) == words


@pytest.mark.parametrize(("switched", "late"), [(0.029, False), (0.031, True)])
def test_a_slow_switch_may_take_a_tenth_of_the_settle_time(switched: float, late: bool) -> None:
    taken = steer.Taken(0, switched, 0, 0, [], edge(0.3), edge(0.6), [], [])
    assert bool(steer.untimely(steer.Window("rps", 0, 0.3, 0.3), taken, 0.02)) == late


def test_a_window_that_is_late_is_spoiled(tree: Tree) -> None:
    slow = hooked(tree, 3, lambda: steer.time.sleep(0.1), "rps", "baseline", tolerance=0.001)
    assert slow[1]["late"][0] > 0.05
    assert "late" in [reason["kind"] for reason in slow[1]["spoiled"]]


def test_counters_are_read_at_both_edges(tree: Tree) -> None:
    (row,) = episode(tree, document("rps"))["windows"]
    first, last = row["edges"]
    assert first["at"] < last["at"]
    assert first["stat"] == "cpu  1 2 3\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert first["softirqs"] == "   CPU0\n  NET_RX:  7\n"
    assert first["softnet"].startswith("00000001 ")


def test_the_answer_is_as_large_as_its_reader_expects(tree: Tree) -> None:
    """The limits of a sweep are checked before it starts: its answers would be refused one by one."""
    pod = max(PODS)
    smaller = {
        name: {
            **one,
            "rules": [each for each in one["rules"] if each.get("namespace") != PODS[pod]],
        }
        for name, one in PLANS.items()
    }
    one = episode(tree, document(*PLANS, plans=smaller, receivers=[min(PODS)]))
    two = episode(tree, document(*PLANS))
    readings = sum(len(row["trace"]) for row in two["windows"])
    per_window = (signs(two) - signs(one) - readings) / len(PLANS)
    assert episodes.VALUES_OF_PAIR / 2 < per_window <= episodes.VALUES_OF_PAIR
    assert signs(one) <= len(PLANS) * episodes.VALUES


def signs(answer: dict) -> int:
    """The values of a JSON document, as `untrusted.parsed` counts them."""
    text = json.dumps(answer)
    return sum(text.count(sign) for sign in ",[{")


# answers of the kernel


def test_answers_of_sock_diag() -> None:
    rows, ended = steer.connections([answer(7, 5), absent(), absent(errno.ESTALE), answer(8, 6, 7)])
    assert [row and (row.inode, row.waiting, row.state) for row in rows] == [
        (7, 5, 1),
        None,
        None,
        (8, 6, 7),
    ]
    assert not ended
    assert steer.connections([answer(7, 5) + b"\x14\0\0\0\3\0" + bytes(14)])[1]
    with pytest.raises(OSError, match="denied"):
        steer.connections([absent(errno.EACCES)])


@pytest.mark.parametrize("text", [b"", b"rchar: -1\n", b"wchar: 5\n"])
def test_a_text_without_bytes_read(text: bytes) -> None:
    with pytest.raises(ValueError, match="no rchar"):
        steer.bytes_read(text)


# however it ends


def failing_with(number: int) -> Any:
    """Instead of Imitation.overwrite: fails for the table of rfs-plus."""
    overwrite = Imitation.overwrite

    def failing(machine: Any, value: Any, line: bytes) -> None:
        if line == b"32768\n":
            raise OSError(number, os.strerror(number))
        overwrite(machine, value, line)

    return failing


def test_a_value_that_the_kernel_refuses_spoils_its_windows(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Imitation, "overwrite", failing_with(errno.EINVAL))
    done = episode(tree, document("rps", "rfs-plus", "rps", "baseline", "rfs-plus"))
    spoiled = [row["spoiled"] for row in done["windows"]]
    assert [bool(reasons) for reasons in spoiled] == [False, True, False, False, True]
    assert spoiled[1][0]["kind"] == "value"
    assert ": 32768 was written: Invalid argument" in spoiled[1][0]["message"]
    assert done["left"] == []


def test_a_write_that_fails_restores_all(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Imitation, "overwrite", failing_with(errno.ENOMEM))
    with pytest.raises(steer.SteerError, match=r"rps_flow_cnt of eth1.*: Cannot allocate") as error:
        episode(tree, document("rps", "rfs-plus"))
    assert "steering is as before" in str(error.value)
    assert not tree.snapshot().exists()


def test_a_value_that_cannot_be_restored_stays_in_the_snapshot(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = steer.Setting.put

    def failing(setting: Any, wanted: str, unusable: int, back: bool = False) -> None:
        if wanted == "64":
            raise steer.SteerError("no way")
        put(setting, wanted, unusable, back)

    with monkeypatch.context() as patch:
        patch.setattr(steer.Setting, "put", failing)
        with pytest.raises(steer.SteerError, match="snapshot stays: no way"):
            episode(tree, document("rps"))
    assert any(entry["reason"] == "no way" for entry in tree.saved()["entries"])
    lease = lease_of(tree)
    assert tree.restore()["failed"] == []
    eventually(lambda: not lease.watched())


@contextmanager
def begun(words: list[str], seconds: float = 0.1) -> Iterator[subprocess.Popen[str]]:
    """The agent as a command, with an episode of rps and rfs-plus."""
    windows = [
        {"plan": "rps", "at": 0, "settle": 0, "seconds": seconds},
        {"plan": "rfs-plus", "at": seconds, "settle": 0, "seconds": seconds},
    ]
    with subprocess.Popen(
        words,
        env={**os.environ, "PYTHONPATH": f"{AGENT.parent}:{HERE}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdin
            process.stdin.write(json.dumps(document(windows=windows)) + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


@contextmanager
def running(tree: Tree, seconds: float = 0.1) -> Iterator[subprocess.Popen[str]]:
    """The same, ready for its start signal."""
    with begun(on_tree(tree.root, "switchback"), seconds) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process


def begin(process: subprocess.Popen[str], line: str = "start\n") -> None:
    """Give an agent the start signal; its stdin stays open."""
    assert process.stdin
    process.stdin.write(line)
    process.stdin.flush()


def begin_to_write(tree: Tree, process: subprocess.Popen[str], line: str = "start\n") -> None:
    """Start an agent, and wait until it has written a value."""
    before = tree.values()
    begin(process, line)
    eventually(lambda: tree.values() != before)


def answered(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it prints after the start signal; its stdin stays open."""
    assert process.stdout
    assert process.stderr
    begin(process)
    return process.stdout.read(), process.stderr.read()


def test_the_command_starts_on_a_line(tree: Tree) -> None:
    with running(tree) as process:
        out, err = answered(process)
        assert process.wait(30) == 0
    assert err == ""
    assert len(json.loads(out)["windows"]) == 2
    assert not tree.snapshot().exists()


def test_without_the_start_signal_nothing_is_written(tree: Tree) -> None:
    stamps = tree.stamps()
    with running(tree) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "stdin was closed before the start signal" in err
    assert tree.stamps() == stamps
    assert not tree.snapshot().exists()


def test_when_stdin_is_closed_all_is_restored_at_once(tree: Tree) -> None:
    with running(tree, seconds=100) as process:
        begin_to_write(tree, process, "start\nmore\n")
        assert process.poll() is None
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "stdin was closed" in err
    assert "steering is as before" in err
    assert not tree.snapshot().exists()


def test_an_episode_awaits_its_connections(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = tree.root / "proc/72/connections"
    connections.write_text("")
    waits = iter(range(3))

    def wait(*_: Any) -> None:
        if next(waits, None) is None:
            received(tree, 72, 1000)

    monkeypatch.setattr(Started, "wait", wait)
    done = episode(tree, document("rps", connections=1))
    assert done["windows"][0]["spoiled"] == []


def test_connections_are_listed_once(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list takes up to 0.3 s on a busy node, where 16 of them made the first window late."""
    listed = []
    connect = Receiver.connect
    monkeypatch.setattr(
        Receiver,
        "connect",
        lambda self, machine: [listed.append(self.name), connect(self, machine)],
    )
    episode(tree, document("rps", "baseline", connections=1))
    assert listed == ["receiver 71", "receiver 72"]


def test_a_receiver_with_too_few_connections_spoils_all(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(monkeypatch, "CONNECT_TIMEOUT", 0.0)
    done = episode(tree, document("rps", connections=2))
    reasons = done["windows"][0]["spoiled"]
    assert [(one["kind"], one["receiver"]) for one in reasons] == [
        ("receiver", 0),
        ("receiver", 1),
    ]


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_restores_at_once(tree: Tree, number: int, started: bool) -> None:
    with running(tree, seconds=100) as process:
        if started:
            begin_to_write(tree, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "steering is as before" in err
    assert not tree.snapshot().exists()


def test_what_is_killed_is_restored_by_its_snapshot(tree: Tree) -> None:
    before = tree.values()
    with running(tree, seconds=0.5) as process:
        begin_to_write(tree, process)
        process.kill()
    lease = lease_of(tree)
    assert lease.watched()
    restored = tree.run("restore", "--owner", OWNER).answer
    assert (restored["failed"], restored["left"]) == ([], [])
    eventually(lambda: not lease.watched())
    assert tree.values() == before


def test_after_a_kill_all_is_compared_with_what_was_applied(tree: Tree) -> None:
    """Not with the plan of the first window: a repair would find nothing to do in that window."""
    tree.apply({**PLANS["baseline"], "lease_seconds": 600})
    of_apply = lease_of(tree)
    with running(tree, seconds=5) as process:
        begin_to_write(tree, process)
        process.kill()
    assert {drift["kind"] for drift in tree.verify()["drift"]} == {"value"}
    tree.restore()
    eventually(lambda: not of_apply.watched())


def test_the_watchdog_of_an_apply_sees_to_the_episode_too(tree: Tree) -> None:
    tree.apply({**PLANS["rps"], "lease_seconds": 7200})
    of_apply = lease_of(tree)
    with running(tree) as process:
        lease = lease_of(tree)
        assert (lease.pid, lease.seconds) == (of_apply.pid, 600)
        assert lease.expires < of_apply.expires
        process.kill()
    tree.restore()
    eventually(lambda: not of_apply.watched())


def test_the_end_of_a_watch_ends_an_episode_that_holds_the_lock(tree: Tree) -> None:
    """The kubelet ends a container with both after its grace period."""
    words = tree.command("watch", "--owner", OWNER)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watch:
        eventually(lambda: steer.standing_watch(tree.machine().store, OWNER))
        with running(tree, seconds=100) as process:
            assert process.stderr
            begin_to_write(tree, process)
            watch.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
            assert "steering is as before" in process.stderr.read()
        said, _ = watch.communicate(timeout=30)
    assert watch.returncode == 0
    assert json.loads(said)["failed"] == []
    assert not tree.snapshot().exists()


# The agent as a command whose switchback waits for the end of a FIFO before it has a snapshot.
PREPARING = """
import sys
from pathlib import Path
from agent import cli, switchback
from imitation import on
fifo, root = sys.argv[1:3]
snapshot = switchback.snapshot
def late(*given):
    Path(fifo).read_bytes()
    return snapshot(*given)
switchback.snapshot = late
sys.exit(cli.main(sys.argv[3:], on(Path(root))))
"""


def test_the_end_of_a_watch_ends_an_episode_that_is_still_preparing(tree: Tree) -> None:
    """It has no snapshot then, so nothing tells its process; it would wait for its start signal."""
    fifo = tree.root / "fifo"
    os.mkfifo(fifo)
    preparing = [sys.executable, "-c", PREPARING, str(fifo), str(tree.root), "switchback"]
    words = tree.command("watch", "--owner", OWNER)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watch:
        eventually(lambda: steer.standing_watch(tree.machine().store, OWNER))
        with begun(preparing, seconds=100) as process:
            end = os.open(fifo, os.O_WRONLY)  # waits for the episode
            watch.send_signal(signal.SIGTERM)
            eventually(lambda: waits_for_the_lock(tree, watch.pid))
            assert not tree.snapshot().exists()
            os.close(end)
            assert process.wait(20) == 128 + signal.SIGTERM
        said, _ = watch.communicate(timeout=20)
    assert watch.returncode == 0
    assert json.loads(said)["failed"] == []
    assert not tree.snapshot().exists()


def waits_for_the_lock(tree: Tree, pid: int) -> bool:
    lock = tree.root / "run/steerlab/lock"
    return any(lock.samefile(file) for file in Path(f"/proc/{pid}/fd").iterdir() if file.exists())


def test_the_watchdog_of_an_episode_ends_with_it(tree: Tree) -> None:
    with running(tree) as process:
        lease = lease_of(tree)
        assert lease.watched()
        answered(process)
    eventually(lambda: not lease.watched())


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, "MAX_TEXT", 1000)
    read, write = os.pipe()
    os.write(write, b" " * 2000)
    with pytest.raises(steer.SteerError, match="longer than 1000"):
        steer.Driver(read).schedule(None)
    os.close(write)
    os.close(read)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"version": 1}', "\N{BELL}"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(steer.SteerError) as error:
        steer.Driver().schedule(text)
    assert error.value.status == steer.BAD_PLAN


def test_a_schedule_in_a_file(tree: Tree) -> None:
    file = tree.root / "schedule.json"
    file.write_text(json.dumps(document("rps")))
    assert steer.Driver().schedule(f"@{file}").owner == OWNER
    with pytest.raises(steer.SteerError, match="No such file"):
        steer.Driver().schedule(f"@{file}x")
