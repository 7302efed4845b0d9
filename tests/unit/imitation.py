"""A machine that files only imitate: the agent works on a tree of them and needs no privilege."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.ethtool import Access, Ethtool
from agent.files import exists, listing, opened, read_text
from agent.knobs import DEVICE, NAMESPACE, RX_QUEUE, EthtoolQueues, of_scope
from agent.machine import Machine
from agent.namespaces import Namespace
from agent.routes import Routes
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

    def received(self) -> dict[bytes, int]:
        return {str(one.inode).encode(): one.waiting for one in self.established()}

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


class EthtoolFile:
    """A setting by ethtool as a file. After a value it may have [fixed]."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        with opened(self.path, os.O_RDONLY) as file:
            return os.read(file, 64).replace(b" [fixed]", b"")

    def write(self, line: bytes) -> None:
        with opened(self.path, os.O_WRONLY | os.O_TRUNC) as file:
            os.write(file, line)

    def refusal(self, _: str) -> str:
        return "the device has it fixed" if "[fixed]" in read_text(self.path) else ""

    def copy(self) -> EthtoolFile:
        return self

    def close(self) -> None:
        pass


class QueuesFile(EthtoolFile):
    """The number of receive queues. Those that come have no steering."""

    def write(self, line: bytes) -> None:
        super().write(line)
        queues = self.path.parent / "queues"
        names = {f"rx-{number}" for number in range(int(line))}
        there = {name for name in listing(queues) if name.startswith("rx-")}
        for name in there - names:
            shutil.rmtree(queues / name)
        for name in names - there:
            (queues / name).mkdir()
            for knob in of_scope(RX_QUEUE):
                (queues / name / knob.name).write_text("0\n")

    def refusal(self, wanted: str) -> str:
        return "the device has 1 to 4" if int(wanted) > 4 else ""


class EthtoolFiles(Ethtool):
    """Settings by files in the folder of a device, named as their knobs; its driver by a file, too."""

    def __init__(self, net: Path) -> None:
        self._net = net

    def has(self, index: int, access: Access) -> bool:
        return exists(self._file(index, access))

    def value(self, index: int, access: Access) -> Any:
        file = self._file(index, access)
        return QueuesFile(file) if isinstance(access, EthtoolQueues) else EthtoolFile(file)

    def driver(self, index: int) -> str:
        file = self._folder(index) / "driver"
        return read_text(file).strip() if exists(file) else ""

    def _file(self, index: int, access: Access) -> Path:
        (name,) = (knob.name for knob in of_scope(DEVICE) if knob.access == access)
        return self._folder(index) / name

    def _folder(self, index: int) -> Path:
        for device in listing(self._net):
            number = self._net / device / "ifindex"
            if exists(number) and read_text(number).strip() == str(index):
                return self._net / device
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


class RoutesFile(Routes):
    """Routes by a file, a line `address device ...` for each; with policy `source,device-in,address`.

    The source of packets is that of a line `source address`, and a line `elsewhere` has the devices whose
    other end is in another namespace.
    """

    def __init__(self, file: Path, net: Path) -> None:
        self._table, self._net = file, net

    def devices(self, address: str, source: str = "", arrives: int = 0) -> list[int]:
        by = {int(read_text(self._net / name / "ifindex")): name for name in listing(self._net)}
        policy = f"{source},{by.get(arrives)},{address}"
        lines = dict(self._lines())
        names = lines.get(policy) or lines.get(address)
        if not names:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        return [index for index, name in by.items() if name in names]

    def source(self, _: str) -> str:
        return dict(self._lines()).get("source", [""])[0]

    def leads_elsewhere(self, index: int) -> bool:
        names = dict(self._lines()).get("elsewhere", [])
        return any(read_text(self._net / one / "ifindex").strip() == str(index) for one in names)

    def _lines(self) -> Iterator[tuple[str, list[str]]]:
        text = read_text(self._table) if exists(self._table) else ""
        yield from ((key, names) for key, *names in map(str.split, text.splitlines()))


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
        ethtool, release = EthtoolFiles(net), self.release()
        fib = RoutesFile(base / "fib", net)
        return Namespace(path, cookie, net, table, there, ethtool, fib, False, foreign, release)

    def overwrite(self, value: OpenValue, line: bytes) -> None:
        """In one call, as the kernel does: what was longer keeps its length."""
        if isinstance(value, OpenFile):
            line = line.ljust(os.fstat(value.file).st_size, b"\n")
        value.write(line)

    def sock_diag(self, pid: int) -> SockDiag:
        return Connections(self.root / f"proc/{pid}/connections")

    def sock_diag_in(self, namespace: Namespace) -> SockDiag:
        return Connections(namespace.net.parent / "connections")

    def _inode(self, namespace: Path) -> str:
        return read_text(namespace / "cookie").strip()

    def _kept_by_sockets(self, _: Any) -> Iterator[str]:
        yield from ()

    def _kept(self, processes: Any, *_: Any) -> Iterator[str]:
        yield from (f"{process}/ns/net" for process in processes)


def on(root: Path) -> Callable[..., Machine]:
    """How to look at an imitated machine."""
    return lambda check=lambda: None: Imitation(check, root)
