"""One engine at a time on a stack, by lock files in the place and format of the Pulumi CLI's."""

from __future__ import annotations

import json
import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from analysis import files
from experiments.engines import StackLocked, StackRef, trust
from infra import untrusted

logger = logging.getLogger(__name__)


@contextmanager
def hold(stack: StackRef) -> Iterator[None]:
    """Hold the stack's lock. Raises StackLocked; locks of processes that ended are removed."""
    folder = files.folder(folder_of(stack), 0o700)
    own = folder / f"{uuid.uuid4()}.json"
    _refuse_if_held(folder, own)
    # written beside the folder and moved: the CLI takes every file in the folder for a whole lock
    draft = folder.with_name(own.name)
    draft.write_text(json.dumps(_holder()))
    draft.rename(own)
    try:
        _refuse_if_held(folder, own)
        yield
    finally:
        own.unlink(missing_ok=True)


def refuse_if_held(stack: StackRef) -> None:
    """Raise StackLocked where a process holds the stack; locks of processes that ended are removed."""
    _refuse_if_held(folder_of(stack), None)


def folder_of(stack: StackRef) -> Path:
    return stack.home / ".pulumi/locks/organization" / stack.project / stack.name


def _holder() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "username": trust.user(os.geteuid()),
        "hostname": socket.gethostname(),
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        # Not fields of Pulumi: another process can get the same pid later, or in another container.
        "process": _identity(os.getpid()),
        "pid_namespace": _pid_namespace(),
    }


def _refuse_if_held(folder: Path, own: Path | None) -> None:
    for path in folder.glob("*.json"):
        if path == own:
            continue
        remove = f"rm -- {quote(str(path))}"
        try:
            lock = untrusted.parsed(untrusted.content(path))
            pid, host, since = int(lock["pid"]), str(lock["hostname"]), str(lock["timestamp"])
            holder = str(lock.get("username", "unknown"))
            # locks of the CLI do not name their pid namespace
            here = host == socket.gethostname() and lock.get("pid_namespace") in (
                None,
                _pid_namespace(),
            )
            stale = here and _is_gone(pid, lock.get("process"))
        except FileNotFoundError:  # released meanwhile
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StackLocked(
                f"the stack is locked, but its lock cannot be read ({path}): if no other command "
                f"works on this stack, remove the lock: {remove}"
            ) from error
        if not stale:
            cure = "wait for it, or end it"
            if not here:
                cure = f"if that process, its container or its machine no longer exists, remove the lock: {remove}"
            elif not lock.get("process"):
                cure += f"; if ps -fp {pid} shows another program, remove the lock: {remove}"
            raise StackLocked(
                f"the stack is locked by {holder}, pid {pid} on {host} since {since} ({path}): {cure}"
            )
        logger.warning("removed the lock of pid %s, which has ended: %s", pid, path)
        path.unlink(missing_ok=True)


def _pid_namespace() -> str:
    """The pid namespace: each container of a machine has its own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return ""


def _is_gone(pid: int, process: object) -> bool:
    """Whether the process that took a lock on this machine has ended.

    Times are not compared, because the clock may have been set. Locks of the CLI have no identity: a
    process with their pid counts as their holder.
    """
    if not 0 < pid < 1 << 31:
        raise ValueError(f"{pid} is not a process id")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's; /proc may hide it (hidepid)
        pass
    identity = _identity(pid)
    return bool(process) and identity is not None and process != identity


def _identity(pid: int) -> str | None:
    """Boot and start time of a running process: together with the pid unique."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {status.rpartition(')')[2].split()[19]}"
