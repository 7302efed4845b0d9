"""A machine that files only imitate: the agent works on a tree of them and needs no privilege."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.features import Features
from agent.files import exists, listing, opened, read_text
from agent.knobs import DEVICE, NAMESPACE, EthtoolFeature, of_scope
from agent.machine import Machine
from agent.namespaces import Namespace
from agent.settings import OpenFile, OpenValue
from agent.sockdiag import Connection, SockDiag, request


class Connections(SockDiag):
    """Connections by a file, a line `inode waiting` for each."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def close(self) -> None:
        pass

    def established(self) -> list[Connection]:
        rows = (line.split() for line in read_text(self._file).splitlines())
        return [Connection(int(inode), 1, int(size), 2, b"") for inode, size in rows]

    def look_up(self, messages: bytes) -> list[bytes]:
        count = len(messages) // len(request([Connection(0, 0, 0, 0, b"")]))
        found = [answer(one.inode, one.waiting) for one in self.established()]
        return [*found, *[absent()] * count][:count]


def answer(inode: int, waiting: int, state: int = 1) -> bytes:
    """What sock_diag answers of a connection."""
    body = struct.pack("=BBBB48sIIIII", 2, state, 0, 0, bytes(48), 0, waiting, 0, 0, inode)
    return struct.pack("=IHHII", 16 + len(body), 20, 0, 0, 0) + body


def absent(code: int = errno.ENOENT) -> bytes:
    return struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -code)


class FeatureFiles(Features):
    """Features by files in the folder of a device, named as their knobs."""

    def __init__(self, net: Path) -> None:
        self._net = net

    def has(self, index: int, feature: str) -> bool:
        return exists(self._path(index, feature))

    def read(self, index: int, feature: str) -> bytes:
        with opened(self._path(index, feature), os.O_RDONLY) as file:
            return os.read(file, 64)

    def write(self, index: int, feature: str, line: bytes) -> None:
        with opened(self._path(index, feature), os.O_WRONLY | os.O_TRUNC) as file:
            os.write(file, line)

    def _path(self, index: int, feature: str) -> Path:
        for device in listing(self._net):
            number = self._net / device / "ifindex"
            if exists(number) and read_text(number).strip() == str(index):
                return self._net / device / FEATURES[feature]
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


FEATURES = {
    knob.access.feature: knob.name
    for knob in of_scope(DEVICE)
    if isinstance(knob.access, EthtoolFeature)
}


class Imitation(Machine):
    """The files under a root; a folder with a file `cookie` is a network namespace."""

    NEEDS = ""

    def require(self) -> None:
        self.root = self.root.resolve()  # the watchdog leaves the current folder
        if not self.root.exists():
            raise SystemExit  # the test is over

    @contextmanager
    def _inside(self) -> Iterator[Callable[[str | None, str | None], Namespace | None]]:
        yield self._imitation

    def _imitation(self, path: str | None, place: str | None) -> Namespace | None:
        base = self.root / place.lstrip("/") if place else self.root
        has_cookie = exists(base / "cookie")
        if not has_cookie and path:
            return None
        cookie = read_text(base / "cookie").strip() if has_cookie else "own"
        routes = base / "proc/net/route"
        table = read_text(routes) if exists(routes) else ""
        foreign = exists(base / "foreign")
        net = base / "sys/class/net"
        files = {knob.name: base / "proc/sys" / knob.access.path for knob in of_scope(NAMESPACE)}
        there = {name: file for name, file in files.items() if exists(file)}
        return Namespace(path, cookie, net, table, there, FeatureFiles(net), False, foreign)

    def overwrite(self, value: OpenValue, line: bytes) -> None:
        """In one call, as the kernel does: what was longer keeps its length."""
        if isinstance(value, OpenFile):
            line = line.ljust(os.fstat(value.file).st_size, b"\n")
        value.write(line)

    def sock_diag(self, pid: int) -> SockDiag:
        return Connections(self.root / f"proc/{pid}/connections")

    def _inode(self, namespace: Path) -> str:
        return read_text(namespace / "cookie").strip()

    def _kept_by_sockets(self, _: Any) -> Iterator[str]:
        yield from ()

    def _kept(self, processes: Any, *_: Any) -> Iterator[str]:
        yield from (f"{process}/ns/net" for process in processes)


def on(root: Path) -> Callable[..., Machine]:
    """How to look at an imitated machine."""
    return lambda check=lambda: None: Imitation(check, root)
