"""Who may work on a stack: the embedded engine's locks, which are Pulumi's."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
from datetime import UTC, datetime

import pytest
from embedded_project import Project

from experiments.engines import StackLocked, locks


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.write('thing("a")')
    return project


@pytest.fixture
def folder(project):
    folder = project.stack.home / ".pulumi/locks/organization/tried/dev"
    folder.mkdir(parents=True)
    return folder


def lock(folder, **fields):
    holder = {
        "pid": os.getpid(),
        "username": "somebody",
        "hostname": socket.gethostname(),
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        **fields,
    }
    path = folder / "0b5c8a5e-0000-4000-8000-000000000000.json"
    path.write_text(json.dumps(holder))
    return path


def test_held_while_it_runs_and_gone_afterwards(project):
    folder = project.stack.home / ".pulumi/locks/organization/tried/dev"
    seen = []
    project.engine.up(
        project.stack, on_step=lambda _: seen.extend(p.read_text() for p in folder.glob("*"))
    )
    holder = json.loads(seen[0])
    assert holder["pid"] == os.getpid()
    assert holder["hostname"] == socket.gethostname()
    assert holder.keys() >= {"username", "timestamp"}
    assert list(folder.glob("*")) == []


def test_second_engine_is_refused_and_told_who_holds_it(project):
    with locks.hold(project.stack):
        for verb in ("up", "destroy") if project.checkpoint.exists() else ("up",):
            with pytest.raises(StackLocked, match=rf"pid {os.getpid()} on .* since .*\.json"):
                getattr(project.engine, verb)(project.stack)
        assert project.engine.preview(project.stack).changes
    assert project.engine.up(project.stack).changes


def test_other_stack_is_free(project, tmp_path):
    with locks.hold(project.stack):
        other = Project(tmp_path, stack="other")
        assert other.engine.up(other.stack).changes


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hostname": "elsewhere", "pid": 1},
        {"hostname": "elsewhere", "pid": 4_000_000},
        {"process": locks._identity(os.getpid())},
        # taken before the clock was set: by Pulumi, and by this engine
        {"timestamp": "2001-02-03T04:05:06.789012345+01:00"},
        {"timestamp": "2001-02-03T04:05:06Z", "process": locks._identity(os.getpid())},
        # of a container with this one's host name, which counts its processes apart
        {"pid_namespace": "pid:[1]", "process": "boot 17", "pid": 4_000_000},
    ],
)
def test_lock_that_may_be_held_is_respected(project, folder, fields):
    path = lock(folder, **fields)
    with pytest.raises(StackLocked, match=path.name):
        project.engine.up(project.stack)
    assert path.exists()
    assert not project.checkpoint.exists()


def test_the_cure_for_a_lock_of_elsewhere_can_be_pasted(project, folder):
    path = lock(folder, hostname="elsewhere", username="maria")
    with pytest.raises(StackLocked, match=r"maria, pid .* on elsewhere since") as refusal:
        project.engine.up(project.stack)
    cure = str(refusal.value).rpartition(": ")[2]
    subprocess.run(["bash", "-c", cure], check=True)
    assert not path.exists()
    assert project.engine.up(project.stack).changes


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "fields",
    [
        {"pid": dead_pid()},
        {"pid": dead_pid(), "process": "boot 17"},
        {"process": "another boot 17"},
    ],
    ids=["dead", "dead-ours", "other-boot"],
)
def test_stale_lock_is_removed(project, folder, fields):
    path = lock(folder, **fields)
    project.engine.up(project.stack)
    assert not path.exists()


def test_a_process_that_proc_hides_holds_its_lock(project, folder, monkeypatch):
    """Another user's, where /proc is mounted with hidepid."""
    path = lock(folder, process="boot 17")
    monkeypatch.setattr(locks, "_identity", lambda _: None)
    with pytest.raises(StackLocked, match=path.name):
        project.engine.up(project.stack)


def test_the_lock_of_a_reused_pid_names_the_way_out(project, folder):
    path = lock(folder, timestamp="2001-02-03T04:05:06Z")
    with pytest.raises(StackLocked) as refusal:
        project.engine.up(project.stack)
    cure = str(refusal.value).rpartition(": ")[2]
    subprocess.run(["bash", "-c", cure], check=True)
    assert not path.exists()


def test_a_user_without_a_name_is_a_number(project, monkeypatch):
    def nameless(_):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", nameless)
    with locks.hold(project.stack):
        held = next(locks.folder_of(project.stack).glob("*.json")).read_text()
    assert json.loads(held)["username"] == str(os.geteuid())


PIDS = [f'{{"pid": {pid}, "hostname": "{socket.gethostname()}", "timestamp": "x"}}'
        for pid in (0, -1, 1 << 31, 10**30)]  # fmt: skip


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x"}', *PIDS])
def test_unreadable_lock_is_named(project, folder, text):
    path = lock(folder)
    path.write_text(text)
    with pytest.raises(StackLocked, match=path.name):
        project.engine.up(project.stack)
