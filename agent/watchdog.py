"""The watchdog: waits for the end of a lease and restores."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from functools import partial
from typing import Any

from agent.errors import CANNOT, SteerError, explain
from agent.files import listing, read_text
from agent.lease import end_watchdog, standing_watch, watch_file
from agent.machine import Machine
from agent.plan import Plan
from agent.processes import boot_time, start_time
from agent.restore import put_back, restore
from agent.signals import Signals
from agent.snapshot import Lease, Snapshot
from agent.store import Store

LAST_TRIES = 5
WATCH_NAP = 5.0
WATCHDOG_NAP = 60.0  # at most: sleep() stops while the machine is suspended, a lease does not


def start_lease(machine: Machine, plan: Plan) -> Lease | None:
    if plan.lease_seconds is None:
        return None
    process = start_watchdog(machine, plan.owner)
    return Lease(plan.lease_seconds, round(boot_time() + plan.lease_seconds, 3), *process)


def start_watchdog(machine: Machine, owner: str) -> tuple[int, str]:
    """Fork a detached watchdog if none runs; returns its process id and start time.

    It first waits for the lock, which the caller holds, and ends if the file then does not name
    it. So it also ends when apply failed or was killed.
    """
    standing = standing_watch(machine.store, owner)
    if standing:
        return standing
    readable, writable = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    answer = detach(writable)
                    os.write(answer, b"%d" % os.getpid())
                    os.close(answer)
                    watch(machine, owner)
            finally:
                os._exit(0)
        os.close(writable)
        writable = -1
        os.waitpid(child, 0)
        word = os.read(readable, 32)
    finally:
        for end in (readable, writable):
            with suppress(OSError):
                os.close(end)
    start = start_time(int(word)) if word else None
    if start is None:
        raise SteerError("the watchdog of the lease did not start; nothing was changed")
    return int(word), start


def detach(answer: int) -> int:
    """Close all inherited descriptors except `answer`: pipes, the lock, namespaces."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir("/")
    answer = fcntl.fcntl(answer, fcntl.F_DUPFD_CLOEXEC, 3)
    last = max(int(name) for name in listing("/proc/self/fd"))
    os.closerange(0, answer)
    os.closerange(answer + 1, last + 1)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
        os.open(os.devnull, flags)
    return answer


def watch(machine: Machine, owner: str) -> None:
    """Restore when the lease expires; end when the file no longer names this process."""
    me = myself()
    while (nap := attend(machine, owner, me, standing=False)) is not None:
        time.sleep(nap)


def stand_watch(machine: Machine, owner: str, signals: Signals) -> dict[str, Any]:
    """Watch an owner's leases until a signal arrives, and then restore.

    For containers of a Job, in which a forked watchdog would end with the Job.
    """
    me, store = myself(), machine.store
    with store.locked():
        standing = standing_watch(store, owner)
        if standing and standing != me:
            raise SteerError(f"pid {standing[0]} already watches owner {owner}", CANNOT)
        store.write(watch_file(store, owner), f"{me[0]} {me[1]}")
    # from the handler: this process may wait for the lock of the episode
    signals.then = partial(end_episode, store, owner)
    while not signals.caught:
        nap = attend(machine, owner, me, standing=True)
        signals.wait(WATCH_NAP if nap is None else nap)
    end_episode(store, owner)
    answer = last_restore(machine, owner, signals)
    with suppress(OSError):
        os.unlink(watch_file(store, owner))
    return answer


def end_episode(store: Store, owner: str) -> None:
    """End the owner's episode, whose process ends with the container of this one; it then restores."""
    with suppress(Exception):
        snapshot = store.load(owner)
        if snapshot and is_episode(snapshot.pid):
            os.kill(snapshot.pid, signal.SIGTERM)


def is_episode(pid: int) -> bool:
    words = read_text(f"/proc/{pid}/cmdline").split("\0")
    return "switchback" in words or "session" in words


def myself() -> tuple[int, str]:
    return os.getpid(), start_time(os.getpid()) or ""


def attend(machine: Machine, owner: str, me: tuple[int, str], *, standing: bool) -> float | None:
    """Check the lease once; returns the seconds to sleep, None if there is no lease any more."""
    longest = WATCH_NAP if standing else WATCHDOG_NAP
    try:
        left = _look(machine, owner, me, standing=standing)
    except Exception as error:  # an error must not end the watch
        machine.store.trace(owner, explain(error))
        return longest
    return None if left is None else min(left, longest)


def _look(machine: Machine, owner: str, me: tuple[int, str], *, standing: bool) -> float | None:
    """Seconds until the lease expires; restores if it has expired."""
    with machine.afresh() as now, now.store.locked():
        snapshot = now.store.load(owner)
        lease = snapshot and snapshot.lease
        if not snapshot or not lease:
            return None
        if (lease.pid, lease.start) != me:
            if not standing:
                return None
            end_watchdog(now.store, owner, lease)
            lease = lease._replace(pid=me[0], start=me[1])
            snapshot = snapshot._replace(lease=lease)
            now.store.save(snapshot)
        now.store.forget_trace(owner)
        left = lease.expires - boot_time()
        if left > 0:
            return left
        return None if lapse(now, snapshot) else WATCHDOG_NAP


def lapse(machine: Machine, snapshot: Snapshot) -> bool:
    """Restore after a lease has expired; whether all is done. Messages go to a file."""
    answer = put_back(machine, snapshot)
    words = [*answer["failed"], *answer["left"], *answer["warnings"]]
    if words:
        said = f"the lease expired: {'; '.join(words)}"
        machine.store.trace(snapshot.owner, said)
    return not answer["failed"]


def last_restore(machine: Machine, owner: str, signals: Signals) -> dict[str, Any]:
    """The last restore of a watch that ends: failures are retried.

    An episode that holds the lock is ended as soon as its snapshot has its process id: when the watch was
    told to end, the episode may still have been in preparation.
    """
    for attempt in reversed(range(LAST_TRIES)):
        try:
            with machine.afresh() as now:
                now.check = partial(end_episode, now.store, owner)
                answer = restore(now, owner)
            if not answer["failed"] or not attempt:
                return answer
        except Exception:
            if not attempt:
                raise
        signals.wait(1)
    raise AssertionError("there is a last attempt")
