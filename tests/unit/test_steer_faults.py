"""Each system call of the agent fails, or is its last: nothing stays steered and unknown."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from steer_faults import Fault, count, points, struck
from steer_tree import Tree, plan, rule, steer

POD, OTHER_POD = "/run/netns/x-server-1", "/run/netns/y-server-1"
UID = "0a1b2c3d-0000-4000-8000-0123456789ab"
OWNER = "rfs-plus-4/server"
RFS = plan(
    rule("nic", "eth1", flows=32768),
    rule("pod", "eth0", cpus="all", namespace=POD),
    rule("pod", "eth0", cpus="all", namespace=f"pod:{UID}", flows=128),
    sock_flow_entries=32768,
)
RPS = plan(rule("nic", "eth1", cpus="all"), rule("pod", "eth0", cpus="1", namespace=POD))


class Case(NamedTuple):
    """One thing that the agent does, and from what."""

    before: list[dict]  # plans that are applied first
    verb: Callable[[Tree], Any]
    seconds: int | None = None  # the lease of the plan before


def watch(tree: Tree) -> None:
    steer.watch(tree.root, OWNER)


class Ending:
    """The signals of a `watch` that is ended after some naps."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        self._naps = 0

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= steer.WATCH_NAP
        self._naps += 1
        if self._naps == 3:
            self.caught.append(signal.SIGTERM)


def stand_watch(tree: Tree) -> Any:
    return steer.stand_watch(tree.root, OWNER, Ending())


def verify(renew: bool) -> Callable[[Tree], Any]:
    def verb(tree: Tree) -> Any:
        with steer.Machine(tree.root) as machine:
            return steer.verify(machine, OWNER, None, renew)

    return verb


CASES = {
    "apply": Case([], lambda tree: tree.apply(RFS)),
    "apply-leased": Case([], lambda tree: tree.apply({**RFS, "lease_seconds": 600})),
    "apply-again": Case([RFS], lambda tree: tree.apply(RPS)),
    "restore": Case([RFS], Tree.restore),
    "verify": Case([RFS], verify(False)),
    "renew": Case([RFS], verify(True), seconds=600),
    "watchdog": Case([RFS], watch, seconds=0),
    "watch": Case([RFS], stand_watch, seconds=0),
    "watch-ended": Case([RFS], stand_watch, seconds=600),
}


class Machine:
    """A tree that can be set back to what it was before a case."""

    def __init__(self, tree: Tree, case: Case) -> None:
        self.tree = tree
        self.case = case
        self.original = tree.values()
        for document in case.before:
            tree.apply(document)
        self._run = tree.root / "run/steerlab"
        self._values = tree.values()
        shutil.rmtree(tree.root / "kept", ignore_errors=True)
        if self._run.exists():
            shutil.copytree(self._run, tree.root / "kept")

    def reset(self) -> None:
        for name, value in self._values.items():
            (self.tree.root / name).write_text(f"{value}\n")
        shutil.rmtree(self._run, ignore_errors=True)
        if (self.tree.root / "kept").exists():
            shutil.copytree(self.tree.root / "kept", self._run)

    def lease(self) -> None:
        """Make this process the watchdog of the case's lease."""
        if self.case.seconds is None:
            return
        saved = self.tree.saved()
        lease = steer.Lease(
            self.case.seconds,
            steer.boot_time() + self.case.seconds,
            os.getpid(),
            steer.start_time(os.getpid()),
        )
        self.tree.snapshot().write_text(json.dumps({**saved, "lease": lease._asdict()}))

    def listed(self) -> dict[str, str | None]:
        """The values that the snapshots hold, by their file, with the reason why they are left."""
        found = {}
        for file in self._run.glob("*.snapshot"):
            for entry in json.loads(file.read_text())["entries"]:
                name = f"proc/sys/net/core/{entry['knob']}"
                if entry["device"]:
                    place = PLACES.get(entry["namespace"], entry["namespace"] or "").lstrip("/")
                    queue = f"{entry['device']}/queues/{entry['queue']}"
                    name = f"{place}/sys/class/net/{queue}/{entry['knob']}".lstrip("/")
                found[name] = entry["reason"]
        return found


PLACES = {f"pod:{UID}": "/proc/77/ns/net"}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path, sock_flow_entries=4096)
    tree.device("eth1", queues=2, mask="2", flows=64)
    tree.namespace(POD, cookie=11)
    tree.device("eth0", POD, mask="2", flows=64)
    tree.namespace("/proc/77/ns/net", cookie=12)
    tree.write("proc/77/cgroup", f"0::/kubepods/pod{UID}/abc")
    tree.device("eth0", "/proc/77/ns/net", mask="1", flows=16)
    naps: list[float] = []
    sleep = steer.time.sleep

    def nap(seconds: float) -> None:
        if seconds < 1:  # for the lock
            sleep(seconds)
            return
        naps.append(seconds)
        assert 0 < seconds <= steer.WATCHDOG_NAP
        if len(naps) > 3:
            naps.clear()
            raise Endless

    monkeypatch.setattr(steer.time, "sleep", nap)
    return tree


class Endless(BaseException):
    """A watchdog that has tried often enough."""


def faults(case: Case, machine: Machine) -> list[Fault]:
    machine.reset()
    machine.lease()
    return points(count(lambda: case.verb(machine.tree)))


def hold(case: Case, machine: Machine, fault: Fault) -> None:
    """One fault, and what must hold after it."""
    machine.reset()
    answer: Any = None
    with suppress(steer.SteerError, OSError, Endless):
        answer = struck(fault, lambda: case.verb(machine.tree), machine.lease)
    values, listed = machine.tree.values(), machine.listed()
    unknown = {n: v for n, v in values.items() if v != machine.original[n] and n not in listed}
    assert not unknown
    if isinstance(answer, dict):
        for words in (*answer.get("gone", ()), *answer.get("left", ())):
            pytest.fail(words)  # neither was the case
        for drift in answer.get("drift", ()):
            assert "is gone" not in drift["message"]
        unsaved = any("/run/steerlab/" in words for words in answer.get("failed", ()))
        if "failed" in answer and not unsaved:  # else these words are the reason
            assert all(listed.values())
            assert len(answer["failed"]) == len(listed)
    leave_no_process(machine.tree)
    last = machine.tree.restore()
    assert (last["failed"], last["gone"], last["left"]) == ([], [], [])
    assert machine.tree.values() == machine.original
    assert not list(machine.tree.root.glob("run/steerlab/*.snapshot"))


def leave_no_process(tree: Tree) -> None:
    """End the watchdog that a case has forked."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        lease = steer.Lease(**tree.saved()["lease"])
        if lease.pid != os.getpid() and lease.watched():
            os.kill(lease.pid, signal.SIGKILL)


def tried(name: str, tree: Tree, chosen: Callable[[list[Fault]], list[Fault]]) -> None:
    case = CASES[name]
    machine = Machine(tree, case)
    for fault in chosen(faults(case, machine)):
        try:
            hold(case, machine, fault)
        except BaseException:
            print(name, fault)  # noqa: T201
            raise


def one_each(name: str) -> Callable[[list[Fault]], list[Fault]]:
    """One fault of each point, the same ones each time."""
    draw = random.Random(name)  # noqa: S311

    def chosen(found: list[Fault]) -> list[Fault]:
        by_point = groupby(found, lambda fault: fault.point)
        return [draw.choice(list(faults)) for _, faults in by_point]

    return chosen


@pytest.mark.parametrize("name", CASES)
def test_each_call_fails_or_is_the_last(tree: Tree, name: str) -> None:
    tried(name, tree, one_each(name))


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_each_call_fails_in_every_way(tree: Tree, name: str) -> None:
    tried(name, tree, list)
