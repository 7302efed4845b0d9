"""The lease: a watchdog restores what nobody renews, and leaves alone what somebody does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from steer_tree import Tree, eventually, plan, rule, steer

OWNER = "rps-4/server"


def leased(seconds: int | None, **more: object) -> dict:
    rules = rule("nic", "eth1", cpus="all", flows=32768, **more)
    return plan(rules, owner=OWNER, sock_flow_entries=32768, lease_seconds=seconds)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path, sock_flow_entries=4096)
    tree.device("eth1", queues=2, mask="2", flows=64)
    yield tree
    with suppress(FileNotFoundError, TypeError):
        lease = steer.Lease(**tree.saved(OWNER)["lease"])
        if lease.watched():
            os.kill(lease.pid, signal.SIGKILL)


def apply(tree: Tree, document: dict) -> steer.Lease | None:
    """The lease; also shows that apply returns although its watchdog lives on."""
    done = tree.run("apply", plan=document)
    assert done.returncode == 0, done.stderr
    lease = tree.saved(OWNER)["lease"]
    return lease and steer.Lease(**lease)


def test_a_lease_that_lapses_is_restored(tree: Tree) -> None:
    before = tree.values()
    lease = apply(tree, leased(1))
    assert tree.values() != before
    eventually(lambda: not lease.watched())
    assert tree.values() == before
    assert not tree.snapshot(OWNER).exists()
    assert steer.boot_time() >= lease.expires
    done = tree.run("verify", plan=leased(1))
    assert done.returncode == 1
    assert OWNER in done.stderr


def test_a_renewed_lease_stands(tree: Tree) -> None:
    first = apply(tree, leased(2))
    steered = tree.values()
    saved = tree.saved(OWNER)
    saved["lease"]["seconds"] = 600  # so that the test renews once
    tree.snapshot(OWNER).write_text(steer.json.dumps(saved))
    assert tree.run("verify", "--owner", OWNER, "--saved", "--renew").returncode == 0
    second = steer.Lease(**tree.saved(OWNER)["lease"])
    assert second.expires > first.expires + 500
    assert second[2:] == first[2:]
    time.sleep(max(0.0, first.expires + 0.5 - steer.boot_time()))
    assert tree.values() == steered
    assert second.watched()


def test_verify_renews_only_where_all_is_well(tree: Tree) -> None:
    first = apply(tree, leased(600))
    tree.table.write_text("0\n")
    assert tree.run("verify", "--owner", OWNER, "--renew").returncode == 1
    assert tree.saved(OWNER)["lease"]["expires"] == first.expires
    tree.table.write_text("32768\n")
    assert tree.run("verify", "--owner", OWNER).returncode == 0
    assert tree.saved(OWNER)["lease"]["expires"] == first.expires
    assert tree.run("verify", "--owner", OWNER, "--renew").returncode == 0
    assert tree.saved(OWNER)["lease"]["expires"] > first.expires


def test_a_watchdog_that_was_killed_is_missed_and_replaced(tree: Tree) -> None:
    first = apply(tree, leased(600))
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not first.watched())
    warned = tree.run("verify", "--owner", OWNER)
    assert (warned.returncode, len(warned.answer["warnings"])) == (0, 1)
    assert tree.run("show").answer["snapshots"][0]["watchdog"] is None
    tree.run("verify", "--owner", OWNER, "--renew")
    second = steer.Lease(**tree.saved(OWNER)["lease"])
    assert second.watched()
    assert tree.run("verify", "--owner", OWNER).answer["warnings"] == []


def test_restore_ends_the_watchdog_at_once(tree: Tree) -> None:
    lease = apply(tree, leased(600))
    shown = tree.run("show").answer["snapshots"][0]
    assert shown["watchdog"] == lease.pid
    assert 0 < shown["lease_seconds_left"] <= 600
    tree.run("restore", "--owner", OWNER)
    eventually(lambda: not lease.watched())


def test_an_apply_without_a_lease_ends_the_watchdog(tree: Tree) -> None:
    lease = apply(tree, leased(600))
    assert apply(tree, leased(None)) is None
    eventually(lambda: not lease.watched())


def test_an_owner_has_one_watchdog(tree: Tree) -> None:
    first, second = apply(tree, leased(600)), apply(tree, leased(300))
    eventually(lambda: not first.watched())
    assert second.watched()


def test_a_failed_apply_leaves_the_lease_as_it_was(tree: Tree) -> None:
    first = apply(tree, leased(600))
    file = tree.queue("eth1", 1) / "rps_flow_cnt"
    file.unlink()
    file.symlink_to("/proc/sys/kernel/random/poolsize")
    before = agents(tree)
    assert tree.run("apply", plan=leased(300)).returncode == 1
    assert steer.Lease(**tree.saved(OWNER)["lease"]) == first
    assert first.watched()
    eventually(lambda: agents(tree) == before)


def agents(tree: Tree) -> set[str]:
    """The process ids of the agents that work on this tree."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(tree.root).encode() in file.read_bytes().split(b"\0"):
                found.add(file.parent.name)
    return found


def test_the_watchdog_of_a_killed_apply_restores(tree: Tree) -> None:
    before = tree.values()
    process, end = tree.half_way(tree.queue("eth1", 1) / "rps_cpus", leased(1))
    process.kill()
    process.communicate(timeout=30)
    os.close(end)
    assert tree.values() != before
    eventually(lambda: tree.values() == before)
    eventually(lambda: not tree.snapshot(OWNER).exists())


def test_the_watchdog_holds_on_to_nothing(tree: Tree) -> None:
    lease = apply(tree, leased(600))
    process = Path(f"/proc/{lease.pid}")
    eventually(lambda: len([*process.joinpath("fd").iterdir()]) == 3)
    assert {str(fd.readlink()) for fd in process.joinpath("fd").iterdir()} == {"/dev/null"}
    assert process.joinpath("cwd").readlink() == Path("/")
    fields = process.joinpath("stat").read_text().rpartition(")")[2].split()
    session = int(fields[3])
    assert session not in (os.getsid(0), lease.pid)  # its own, and it does not lead it
    for namespace in ("net", "mnt"):
        assert (
            process.joinpath("ns", namespace).readlink()
            == Path(f"/proc/self/ns/{namespace}").readlink()
        )
