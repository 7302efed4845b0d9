"""The lock of this machine: one `up`, `destroy`, `sweep` or `measure` at a time.

The kernel drops a flock with the process that holds it, so a lock is never stale; the words in
the file are for whoever is refused. Ownership of a converged lab is another thing: see
`infra/lab/claim.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from infra.refusals import Refusal

LOCK = Path("/run/steerlab/busy")


class Busy(Refusal):
    """Another process works on this machine; the message says which and since when."""


@contextlib.contextmanager
def machine(what: str, path: Path = LOCK) -> Iterator[None]:
    """Hold the machine while the block runs; a no-op where an ancestor process holds it.

    Raises `Busy` at once where somebody else does.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0).decode()
            if not _held_by_ancestor(holder):
                raise Busy(f"this machine is busy with {holder.strip()}: wait or end it") from None
            yield
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{what} (pid {os.getpid()}, since {since})\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _held_by_ancestor(holder: str) -> bool:
    pid = os.getpid()
    while pid > 1:
        if f"(pid {pid}," in holder:
            return True
        pid = _parent(pid)
    return False


def _parent(pid: int) -> int:
    """The fourth field of proc_pid_stat(5); the second may hold spaces and parentheses."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])
