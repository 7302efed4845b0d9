"""The lock of the machine: who is refused, with what words, and who is not."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.host import lock
from experiments.host.lock import Busy
from infra.errors import Refusal

ROOT = Path(lock.__file__).parents[2]

# Takes the lock, says so, and holds it until its stdin ends.
HOLDER = """
import sys
from pathlib import Path
from experiments.host.lock import Busy, machine
try:
    with machine("sweep in out", Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except Busy as busy:
    print(busy, flush=True)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "busy"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Starts a holder, below other commands where they are given; its first line is waited for."""
    started: list[subprocess.Popen[str]] = []

    def run(*within: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*within, sys.executable, "-c", HOLDER, str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_holder_is_refused_with_the_first_ones_words(path: Path, start: Start) -> None:
    other = start()
    assert first_line(other) == "held"
    with pytest.raises(Busy) as refused, lock.machine("up of rps-4", path):
        pytest.fail("two hold one machine")
    assert re.fullmatch(
        rf"this machine is busy with sweep in out \(pid {other.pid} on {socket.gethostname()}, since"
        r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\): wait for it, or end it",
        str(refused.value),
    )
    assert refused.value.exit_code == 1


def test_the_lock_of_a_killed_process_is_free(path: Path, start: Start) -> None:
    other = start()
    assert first_line(other) == "held"
    other.kill()
    other.wait()
    with lock.machine("up of rps-4", path):
        assert f"up of rps-4 (pid {os.getpid()} on" in path.read_text()
        assert str(other.pid) not in path.read_text()
    assert path.read_text() == ""


def test_free_again_after_a_failure(path: Path, start: Start) -> None:
    with pytest.raises(ZeroDivisionError), lock.machine("up of rps-4", path):
        raise ZeroDivisionError
    assert path.read_text() == ""
    assert first_line(start()) == "held"


def test_what_a_holder_starts_may_work(path: Path, start: Start) -> None:
    """`up` holds the machine, and the measurement it starts, through a shell, takes it again."""
    with lock.machine("up of rps-4", path):
        assert first_line(start()) == "held"
        assert first_line(start("setsid", "sh", "-c", '"$@"; exit', "sh")) == "held"
    assert first_line(start()) == "held"


def test_a_process_with_the_holder_s_pid_elsewhere_is_refused(path: Path, start: Start) -> None:
    """Of another container: the pids of two namespaces say nothing about each other."""
    path.parent.mkdir(mode=0o700)
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(f"up of rps-4 (pid {os.getpid()}, since 2026-11-23 10:15:00)\n0123\n")
        held.flush()
        assert "busy with up of rps-4" in first_line(start())
        assert "busy with" in first_line(start("env", f"{lock.TOKEN}=4567"))
        assert first_line(start("env", f"{lock.TOKEN}=0123")) == "held"


def test_a_sibling_is_no_ancestor(start: Start) -> None:
    assert first_line(start()) == "held"
    assert "this machine is busy with sweep in out" in first_line(start())


def test_only_root_may_read_who_works(path: Path) -> None:
    with lock.machine("up of rps-4", path):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a folder away")
@pytest.mark.parametrize("fault", ["owner", "mode", "link"])
def test_a_folder_that_others_can_write_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(lock, "LOCK", path)
    path.parent.mkdir(mode=0o700)
    with lock.machine("up of rps-4", path):
        pass
    path.unlink()
    if fault == "owner":
        os.chown(path.parent, 12345, 12345)
    elif fault == "mode":
        path.parent.chmod(0o777)
    else:
        path.parent.rename(path.parent.with_name("other"))
        path.parent.symlink_to("other")
    with pytest.raises(Refusal), lock.machine("up of rps-4", path):
        pytest.fail("a lock in a folder of somebody else's")
    assert not path.exists()
