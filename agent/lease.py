"""The lease: how long steering stays in force without a renewal."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from agent.processes import start_time
from agent.snapshot import Lease
from agent.store import Damaged, Store


def watch_file(store: Store, owner: str) -> Path:
    """The file with the process of `watch`, as `pid start-time`."""
    return store.path(owner, ".watch")


def standing_watch(store: Store, owner: str) -> tuple[int, str] | None:
    try:
        raw = store.read(watch_file(store, owner))
        word, start = (raw or b"").decode().split()
        pid = int(word)
    except (Damaged, ValueError):
        return None
    return (pid, start) if start_time(pid) == start else None


def end_watchdog(store: Store, owner: str, lease: Lease) -> None:
    """Called under the lock, so never while the watchdog restores."""
    mine = lease.pid == os.getpid() or standing_watch(store, owner) == (lease.pid, lease.start)
    if not mine and lease.watched():
        with suppress(ProcessLookupError):
            os.kill(lease.pid, signal.SIGTERM)
