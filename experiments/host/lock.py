"""The lock of this machine: one `up`, `destroy`, `sweep` or `measure` at a time.

The kernel releases a flock when its process ends, so a lock is never stale. The text in the file
is for the error messages of other commands. The owner of a lab is recorded in
`infra/lab/claim.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from infra.errors import Refusal

LOCK = Path("/run/steerlab/busy")
# The variable that lets child processes of the holder work under its lock. A pid
# would not do: two containers can have processes with one pid.
TOKEN = "STEERLAB_LOCK"  # noqa: S105 no password


class Busy(Refusal):
    """Another process works on this machine; the message names it and its start time."""


@contextlib.contextmanager
def machine(what: str, path: Path = LOCK) -> Iterator[None]:
    """Hold the machine while the block runs; a no-op in commands that the holder started.

    Raises `Busy` at once where somebody else does.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path == LOCK:
        _refuse_open(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace")
            words, _, token = holder.partition("\n")
            if not token or os.environ.get(TOKEN) != token.strip():
                raise Busy(f"this machine is busy with {words}: wait for it, or end it") from None
            yield
            return
        with _held(descriptor, what):
            yield
    finally:
        os.close(descriptor)


def _refuse_open(folder: Path) -> None:
    """Raise `Refusal` if other users than root could have written, or can write, to the folder."""
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != 0 or seen.st_mode & 0o022:
        raise Refusal(
            f"{folder} must belong to root, and only root may write it: examine its contents, "
            f"then chown root {folder} && chmod 700 {folder}"
        )


@contextlib.contextmanager
def _held(descriptor: int, what: str) -> Iterator[None]:
    """Record the holder of the lock, and let child processes work under it."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    where = f"pid {os.getpid()} on {socket.gethostname()}"
    token = secrets.token_hex(16)
    before = os.environ.get(TOKEN)
    os.environ[TOKEN] = token
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{what} ({where}, since {since})\n{token}\n".encode(), 0)
    try:
        yield
    finally:
        os.ftruncate(descriptor, 0)
        if before is None:
            del os.environ[TOKEN]
        else:
            os.environ[TOKEN] = before
