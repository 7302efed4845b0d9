"""Each system call of the agent fails, or is its last: nothing stays steered and unknown."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from steer_faults import Endless, Fault, faults, hold, sample
from steer_tree import Tree, plan, rule, steer
from switched_tree import counting, document, episode, receiving

POD = "/run/netns/x-server-1"
UID = "0a1b2c3d-0000-4000-8000-0123456789ab"
OWNER = "rfs-plus-4/server"
RFS = plan(
    rule("nic", "eth1", flows=32768),
    {
        "role": "pod",
        "namespace": POD,
        "devices": ["eth0"],
        "set": {
            "rps_cpus": "all",
            "rps_flow_cnt": 0,
            "gro_flush_timeout": 20000,
            "gro": "on",
            "rps_default_mask": "all",
        },
    },
    rule("pod", "eth0", cpus="all", namespace=f"pod:{UID}", flows=128),
    sock_flow_entries=32768,
    machine={"netdev_budget": 600},
)
RPS = plan(rule("nic", "eth1", cpus="all"), rule("pod", "eth0", cpus="1", namespace=POD))


WINDOWS = [
    {"plan": name, "at": 0.001 * n, "settle": 0, "seconds": 0.001}
    for n, name in enumerate(("rps", "rfs"))
]
EPISODE = document(plans={"rfs": RFS, "rps": RPS}, windows=WINDOWS, receivers=[88])


class Case(NamedTuple):
    """One thing that the agent does, and from what."""

    before: list[dict]  # plans that are applied first
    verb: Callable[[Tree], Any]
    seconds: int | None = None  # the lease of the plan before


def watch(tree: Tree) -> None:
    steer.watch(tree.machine(), OWNER)


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
    return steer.stand_watch(tree.machine(), OWNER, Ending())


def verify(renew: bool) -> Callable[[Tree], Any]:
    def verb(tree: Tree) -> Any:
        with tree.machine() as machine:
            return steer.verify(machine, OWNER, None, renew)

    return verb


CASES = {
    "apply": Case([], lambda tree: tree.apply(RFS)),
    "apply-leased": Case([], lambda tree: tree.apply({**RFS, "lease_seconds": 600})),
    "apply-again": Case([RFS], lambda tree: tree.apply(RPS)),
    "switchback": Case([], lambda tree: episode(tree, EPISODE)),
    "switchback-again": Case([RPS], lambda tree: episode(tree, EPISODE)),
    "restore": Case([RFS], Tree.restore),
    "verify": Case([RFS], verify(False)),
    "renew": Case([RFS], verify(True), seconds=600),
    "watchdog": Case([RFS], watch, seconds=0),
    "watch": Case([RFS], stand_watch, seconds=0),
    "watch-ended": Case([RFS], stand_watch, seconds=600),
}


class Bench:
    """A tree that can be set back to what it was before a case."""

    def __init__(self, tree: Tree, case: Case) -> None:
        self.tree = tree
        self.case = case
        self.values = tree.values
        self.restore = tree.restore
        self.original = tree.values()
        for applied in case.before:
            tree.apply(applied)
        self._run = tree.root / "run/steerlab"
        self._values = tree.values()
        shutil.rmtree(tree.root / "kept", ignore_errors=True)
        if self._run.exists():
            shutil.copytree(self._run, tree.root / "kept")

    def work(self) -> Any:
        return self.case.verb(self.tree)

    def snapshots(self) -> list[Path]:
        return list(self._run.glob("*.snapshot"))

    def reset(self) -> None:
        for name, value in self._values.items():
            (self.tree.root / name).write_text(f"{value}\n")
        shutil.rmtree(self._run, ignore_errors=True)
        if (self.tree.root / "kept").exists():
            shutil.copytree(self.tree.root / "kept", self._run)

    def prepare(self) -> None:
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
        for file in self.snapshots():
            for entry in json.loads(file.read_text())["entries"]:
                within = "proc/sys/net/core"
                if entry["device"]:
                    within = f"sys/class/net/{entry['device']}"
                if entry["queue"]:
                    within += f"/queues/{entry['queue']}"
                place = PLACES.get(entry["namespace"], entry["namespace"] or "").lstrip("/")
                found[f"{place}/{within}/{entry['knob']}".lstrip("/")] = entry["reason"]
        return found


PLACES = {f"pod:{UID}": "/proc/77/ns/net"}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path, sock_flow_entries=4096)
    tree.write("proc/sys/net/core/netdev_budget", 300)
    tree.device("eth1", queues=2, mask="2", flows=64)
    tree.namespace(POD, cookie=11)
    tree.device("eth0", POD, mask="2", flows=64, gro="off")
    tree.write(f"{POD}/sys/class/net/eth0/gro_flush_timeout", 0)
    tree.write(f"{POD}/proc/sys/net/core/rps_default_mask", 1)
    tree.namespace("/proc/77/ns/net", cookie=12)
    tree.write("proc/77/cgroup", f"0::/kubepods/pod{UID}/abc")
    tree.device("eth0", "/proc/77/ns/net", mask="1", flows=16)
    receiving(tree, 88)
    counting(tree)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
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


def tried(name: str, tree: Tree, chosen: Callable[[list[Fault]], list[Fault]]) -> None:
    bench = Bench(tree, CASES[name])
    for fault in chosen(faults(bench)):
        hold(bench, fault)


@pytest.mark.parametrize("name", CASES)
def test_a_sample_of_calls_fails(tree: Tree, name: str) -> None:
    tried(name, tree, sample)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_each_call_fails_in_every_way(tree: Tree, name: str) -> None:
    tried(name, tree, list)
