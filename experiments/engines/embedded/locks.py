"""One engine at a time on a stack: lock files where the Pulumi CLI looks for and leaves its own."""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.engines import StackLocked, StackRef

logger = logging.getLogger(__name__)


@contextmanager
def hold(stack: StackRef) -> Iterator[None]:
    """Hold the stack's lock, or raise StackLocked; a lock whose process is gone is removed."""
    folder = stack.home / ".pulumi/locks/organization" / stack.project / stack.name
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"{uuid.uuid4()}.json"
    _refuse_if_held(folder, own)
    # Written beside the folder and moved: whoever lists the folder never reads half a lock.
    draft = folder.with_name(own.name)
    draft.write_text(json.dumps(_holder()))
    draft.rename(own)
    try:
        _refuse_if_held(folder, own)
        yield
    finally:
        own.unlink(missing_ok=True)


def _holder() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "username": getpass.getuser(),
        "hostname": socket.gethostname(),
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        # Beyond Pulumi's own fields: tells the process from a later one with its pid.
        "process": _identity(os.getpid()),
    }


def _refuse_if_held(folder: Path, own: Path) -> None:
    for path in folder.glob("*.json"):
        if path == own:
            continue
        try:
            lock = json.loads(path.read_bytes())
            pid, host, since = int(lock["pid"]), str(lock["hostname"]), str(lock["timestamp"])
            stale = host == socket.gethostname() and _is_gone(pid, since, lock.get("process"))
        except FileNotFoundError:  # released meanwhile
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StackLocked(f"the stack is locked by an unreadable lock: {path}") from error
        if not stale:
            raise StackLocked(f"the stack is locked by pid {pid} on {host} since {since}: {path}")
        logger.warning("removed the lock of pid %s, which is gone: %s", pid, path)
        path.unlink(missing_ok=True)


def _is_gone(pid: int, since: str, process: object) -> bool:
    """Whether the process that took a lock on this machine no longer runs."""
    identity = _identity(pid)
    if process:
        return process != identity
    return identity is None or datetime.fromisoformat(since) < _boot_time()


def _identity(pid: int) -> str | None:
    """A running process's boot and start time, which no other process with its pid can have."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {status.rpartition(')')[2].split()[19]}"


def _boot_time() -> datetime:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return datetime.fromtimestamp(int(line.split()[1]), UTC)
    raise OSError("/proc/stat has no btime")
