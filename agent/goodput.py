"""Goodput of receiving processes: the bytes that they have read, and those that wait in their sockets.

`rchar` of /proc/PID/io counts what read(2) returned, which lags behind what has arrived by up to a
socket's buffer; together with what waits it is what TCP has delivered.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack, suppress
from typing import NamedTuple

from agent.errors import CANNOT, SteerError, explain
from agent.files import listing, read_text
from agent.machine import Machine
from agent.plan import POD
from agent.pods import pods_of
from agent.sockdiag import ESTABLISHED, Connection, SockDiag, connections, request


class Reading(NamedTuple):
    """What one receiver had at a moment (monotonic), as the kernel printed it."""

    at: float
    io: list[bytes]  # of each process
    answers: list[bytes]  # of each connection
    error: str  # why there is none


class Receiver:
    """The processes of one pair that receive, and their connections."""

    def __init__(self, name: str, files: dict[int, int], diag: SockDiag) -> None:
        self.name = name
        self._by_pid = files
        self._files: list[int] = []
        self._diag = diag
        self.connections: list[Connection] = []
        self._request = b""

    def connect(self, machine: Machine) -> None:
        """Take the connections that there are now, and of the processes those that have one."""
        sockets = {pid: sockets_of(machine, pid) for pid in self._by_pid}
        every = set().union(*sockets.values())
        self.connections = [one for one in self._diag.established() if one.inode in every]
        self._request = request(self.connections)
        found = {one.inode for one in self.connections}
        self._files = [file for pid, file in self._by_pid.items() if sockets[pid] & found]

    def read(self) -> Reading:
        at = time.monotonic()
        try:
            io = [os.pread(file, 4096, 0) for file in self._files]
            answers = self._diag.look_up(self._request) if self._request else []
        except OSError as error:
            return Reading(at, [], [], explain(error))
        return Reading(at, io, answers, "")


def receiver(machine: Machine, name: str | int, stack: ExitStack) -> Receiver:
    """A receiver by a pid, or by `pod:` and a uid; its descriptors stay open as long as `stack`."""
    pids = [name] if isinstance(name, int) else pids_of_pod(machine, name)
    words = f"receiver {name}"
    files = {}
    try:
        for pid in pids:
            files[pid] = os.open(machine.root / f"proc/{pid}/io", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, files[pid])
        diag = machine.sock_diag(pids[0]) if pids else None
    except OSError as error:
        raise SteerError(f"{words}: {explain(error)}", CANNOT) from None
    if diag is None:
        raise SteerError(f"{words}: no process of it is on this node", CANNOT)
    stack.callback(diag.close)
    return Receiver(words, files, diag)


def pids_of_pod(machine: Machine, name: str) -> list[int]:
    found = []
    for word in listing(machine.root / "proc"):
        if word.isdigit():
            with suppress(OSError):  # it has ended
                groups = read_text(machine.root / f"proc/{word}/cgroup")
                if any(POD + uid == name for uid, _ in pods_of(groups)):
                    found.append(int(word))
    return found


def sockets_of(machine: Machine, pid: int) -> set[int]:
    """The inodes of a process's sockets."""
    folder = machine.root / f"proc/{pid}/fd"
    found = set()
    for name in listing(folder):
        with suppress(OSError):  # closed meanwhile
            match = re.fullmatch(r"socket:\[([0-9]{1,20})\]", os.readlink(folder / name))
            found.update([int(match[1])] if match else [])
    return found


def total(reading: Reading, expected: list[Connection]) -> int:
    """Bytes that had arrived; an error where a process or a connection has ended (pure)."""
    if reading.error:
        raise ValueError(f"it could not be read: {reading.error}")
    rows, _ = connections(reading.answers)
    alive = {row.inode: row.waiting for row in rows if row and row.state == ESTABLISHED}
    ended = [one for one in expected if one.inode not in alive]
    if ended:
        raise ValueError(f"{len(ended)} of its {len(expected)} connections have ended")
    return sum(map(bytes_read, reading.io)) + sum(alive.values())


def bytes_read(io: bytes) -> int:
    """`rchar` of a text of /proc/PID/io (pure)."""
    found = re.search(rb"^rchar: ([0-9]{1,20})$", io, re.MULTILINE)
    if not found:
        raise ValueError(f"{io[:40]!r} has no rchar")
    return int(found[1])


def received(
    first: Reading, last: Reading, expected: list[Connection], least: int = 1
) -> dict[str, float]:
    """Bytes that arrived between two readings, and the seconds between them (pure)."""
    if len(expected) < max(1, least):
        raise ValueError(f"it had {len(expected)} connections at the start, not {max(1, least)}")
    size = total(last, expected) - total(first, expected)
    if size < 0:
        raise ValueError(f"its bytes went back by {-size}")
    return {"bytes": size, "seconds": last.at - first.at}
