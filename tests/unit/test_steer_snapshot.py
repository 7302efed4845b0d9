"""Snapshots: whatever is written can be read again, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from steer_tree import Tree, eventually, plan, replace, rule, steer

OWNER = "rfs-plus-4/server"
RFS = plan(rule("nic", "eth*", cpus="all", flows=64), sock_flow_entries=32)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.device("eth1", queues=2, mask="2")
    return tree


@pytest.mark.parametrize(
    "names",
    [
        ["zz"] * 499_900,  # as many values as a plan may have
        ["é" * 1500] * 2000,  # more letters in the snapshot's JSON than in the plan's
    ],
)
def test_the_largest_plan_is_restored(tree: Tree, names: list[str]) -> None:
    before = tree.values()
    file = tree.root / "plan.json"
    rules = [
        rule("nic", "eth1", *names[n : n + 60_000], cpus="all")
        for n in range(0, len(names), 60_000)
    ]
    file.write_text(json.dumps(plan(*rules), ensure_ascii=False))
    assert tree.run("apply", "--plan", f"@{file}").returncode == 0
    assert tree.values() != before
    assert tree.run("restore", "--all").returncode == 0
    assert tree.values() == before


def test_many_queues_of_many_cpus_are_restored(tmp_path: Path) -> None:
    tree = Tree(tmp_path, cpus="0-4095")
    tree.device("eth1", queues=2048, mask=",".join(["00000000"] * 128))
    before = tree.values()
    tree.apply(plan(rule("nic", "eth1", cpus="all", flows=64)))
    assert len(tree.snapshot().read_text()) > 5_000_000
    assert tree.restore()["restored"] == 4096
    assert {int(text.replace(",", ""), 16) for text in tree.values().values()} == {0}
    assert len(tree.values()) == len(before)


@pytest.mark.parametrize(
    ("limit", "least"),
    [("MAX_SAVED", 10), *(("SAVED_LIMITS", {sign: 1}) for sign in steer.SAVED_LIMITS)],
)
def test_what_could_not_be_read_again_is_not_applied(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, limit: str, least: object
) -> None:
    stamps = tree.stamps()
    replace(monkeypatch, limit, least)
    with pytest.raises(steer.SteerError) as refusal:
        tree.apply(RFS)
    assert refusal.value.status == steer.CANNOT
    assert tree.stamps() == stamps
    assert not tree.snapshot().exists()


def entry(**values: Any) -> Callable[[dict], object]:
    return lambda saved: saved["entries"][0].update(values)


def lease(**values: Any) -> Callable[[dict], object]:
    good = {"seconds": 9, "expires": 1.0, "pid": 7, "start": "1"}
    return lambda saved: saved.update(lease={**good, **values})


@pytest.mark.parametrize("verb", ["restore", "apply"])
@pytest.mark.parametrize(
    "damage",
    [
        entry(knob="../../ifindex"),
        entry(knob="rps_sock_flow_entries"),
        entry(knob="rps_flow_cnt", before="-5"),
        entry(knob="rps_flow_cnt", before=str(2**30 + 1)),
        entry(knob="rps_flow_cnt", written=["+5"]),
        entry(before="1" * 9000),
        entry(before="0x1"),
        entry(written=["3 "]),
        entry(overwritten=["two"]),
        entry(device=".."),
        entry(device="../eth1"),
        entry(device=""),
        entry(device="x" * 300),
        entry(queue="../rx-0"),
        entry(queue="rx-"),
        entry(namespace="run/netns/x"),
        entry(namespace="pod:x"),
        entry(namespace="/a\0b"),
        entry(namespace="/\ud800"),
        entry(device="\ud800"),
        entry(ifindex=-1),
        entry(ifindex=True),
        entry(inode=-1),
        lease(seconds=10**400),
        lease(seconds=-1),
        lease(expires=10**400),
        lease(expires=-1.0),
        lease(pid=10**30),
        lease(pid=-1),
        lambda saved: saved.update(pid=10**30),
        lambda saved: saved.update(checksum="0" * 64),
    ],
)
def test_a_value_that_no_agent_wrote_is_damage(
    tree: Tree, damage: Callable[[dict], object], verb: str
) -> None:
    tree.apply(RFS)
    saved = tree.saved()
    damage(saved)
    tree.snapshot().write_text(json.dumps(saved))
    stamps, text = tree.stamps(), tree.snapshot().read_text()
    with pytest.raises(steer.Damaged):
        tree.restore() if verb == "restore" else tree.apply(RFS)
    assert (tree.stamps(), tree.snapshot().read_text()) == (stamps, text)


def test_a_flipped_bit_is_found(tree: Tree) -> None:
    """Also where the text stays a snapshot, such as one with another value in it."""
    tree.apply(RFS)
    raw = tree.snapshot().read_bytes()
    whole = steer.Snapshot.from_text(raw.decode())
    for place in range(0, len(raw), 7):
        for bit in (0, 1, 6):
            flipped = bytearray(raw)
            flipped[place] ^= 1 << bit
            try:
                found = steer.Snapshot.from_text(flipped.decode())
            except steer.UNREADABLE:
                continue
            assert found == whole, (place, bit)


def test_a_snapshot_without_a_checksum_is_read(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    tree.snapshot().write_text(json.dumps(tree.saved()))
    assert tree.restore()["failed"] == []
    assert tree.values() == before


def test_a_plan_that_is_none_keeps_nothing_from_its_restore(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    tree.snapshot().write_text(json.dumps({**tree.saved(), "plan": {}}))
    done = tree.run("verify", "--owner", OWNER, "--saved")
    assert (done.returncode, "is damaged" in done.stderr) == (1, True)
    assert tree.run("restore", "--all").returncode == 0
    assert tree.values() == before


def test_a_trace_takes_no_draft_of_a_snapshot(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog leaves its trace without the lock, at any moment of an apply."""
    rename = os.rename

    def renamed(source: Path, target: Path) -> None:
        if str(target).endswith(".snapshot"):
            monkeypatch.setattr(steer.os, "rename", rename)
            tree.machine().store.trace(OWNER, "no space")
        rename(source, target)

    monkeypatch.setattr(steer.os, "rename", renamed)
    before = tree.values()
    tree.apply(RFS)
    assert tree.restore()["failed"] == []
    assert tree.values() == before


def test_the_draft_of_a_killed_agent_is_removed(
    tree: Tree,
) -> None:
    child = os.fork()
    if child == 0:
        steer.os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        try:
            tree.machine().store.trace(OWNER, "no space")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    folder = tree.snapshot().parent
    (folder / "rfs-plus-4%2Fserver.temporary").write_text("of an earlier agent")
    assert len(list(folder.glob("*.temporary"))) == 2
    assert tree.restore()["failed"] == []
    assert not list(folder.glob("*.temporary"))


def test_a_draft_that_is_being_written_stays(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def synced(file: int) -> None:
        monkeypatch.setattr(steer.os, "fsync", fsync)
        tree.restore("another")
        fsync(file)

    monkeypatch.setattr(steer.os, "fsync", synced)
    tree.machine().store.trace(OWNER, "no space")
    with tree.machine() as machine:
        assert "no space" in (machine.store.traced(OWNER) or "")


def test_a_watchdog_names_a_device_whatever_its_name(tree: Tree) -> None:
    name = os.fsdecode(b"eth\xff")
    tree.device(name)
    tree.apply({**RFS, "lease_seconds": 1})
    tree.queue(name).joinpath("rps_cpus").write_text("2\n")
    with tree.machine() as machine:
        trace = eventually(lambda: machine.store.traced(OWNER))
    assert r"eth\xff" in trace or r"eth\udcff" in trace
