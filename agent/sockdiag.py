"""TCP connections of a network namespace, by NETLINK_SOCK_DIAG; see sock_diag(7).

A netlink socket belongs to the namespace in which it was made, wherever its process goes. What is asked
here takes no lock of a connection. /proc/net/tcp has the same, but each read of it walks the
machine's whole table of connections, which takes milliseconds.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import NamedTuple

_NETLINK_SOCK_DIAG = 4
_ERROR, _DONE, _ALL_FAMILIES, _BY_FAMILY = 2, 3, 18, 20  # linux/netlink.h, inet_diag.h, sock_diag.h
_REQUEST, _DUMP = 1, 0x300
ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_MESSAGE = struct.Struct("=BBBB48sIIIII")  # inet_diag_msg
_OLD_REQUEST = struct.Struct("=BBBB48sII")  # inet_diag_req: asks for both families at once
_ONE_REQUEST = struct.Struct("=BBBxI48s")  # inet_diag_req_v2
_LARGEST = 1 << 16


class Connection(NamedTuple):
    """A connection's inode, its state, bytes that wait to be read, and what finds it again."""

    inode: int
    state: int
    waiting: int
    family: int
    identity: bytes  # inet_diag_sockid: addresses, ports and a cookie that is used once


class SockDiag:
    """The connections of the namespace in which this is made."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
        self._socket.bind((0, 0))
        self._socket.settimeout(2)

    def close(self) -> None:
        self._socket.close()

    def established(self) -> list[Connection]:
        """All that are established; walks the machine's whole table."""
        body = _OLD_REQUEST.pack(0, 0, 0, 0, bytes(48), 1 << ESTABLISHED, 0)
        self._socket.send(_framed(_ALL_FAMILIES, _REQUEST | _DUMP, body))
        found: list[Connection] = []
        ended = False
        while not ended:
            rows, ended = connections([self._socket.recv(_LARGEST)])
            found += [row for row in rows if row]
        return found

    def look_up(self, request: bytes, count: int) -> list[bytes]:
        """The kernel's answers, unread, to a request of `count` connections."""
        self._socket.send(request)
        return [self._socket.recv(4096) for _ in range(count)]


def request(found: list[Connection]) -> bytes:
    """The request for these connections (pure)."""
    bodies = (
        _ONE_REQUEST.pack(one.family, socket.IPPROTO_TCP, 0, 0xFFF, one.identity) for one in found
    )
    return b"".join(_framed(_BY_FAMILY, _REQUEST, body) for body in bodies)


def _framed(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def connections(answers: list[bytes]) -> tuple[list[Connection | None], bool]:
    """The connections of answers, None for one that does not exist; whether they are all (pure)."""
    found: list[Connection | None] = []
    for answer in answers:
        at = 0
        while at + _HEADER.size <= len(answer):
            length, kind, *_ = _HEADER.unpack_from(answer, at)
            body = answer[at + _HEADER.size : at + length]
            at += max(length + 3 & ~3, _HEADER.size)
            if kind == _DONE:
                return found, True
            if kind == _ERROR:
                code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                if code not in (errno.ENOENT, errno.ESTALE):
                    raise OSError(code, f"sock_diag: {os.strerror(code)}")
                found.append(None)
            elif len(body) >= _MESSAGE.size:
                family, state, _, _, identity, _, waiting, _, _, inode = _MESSAGE.unpack_from(body)
                found.append(Connection(inode, state, waiting, family, identity))
    return found, False
