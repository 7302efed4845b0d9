"""TCP connections of a network namespace, by NETLINK_SOCK_DIAG; see sock_diag(7).

A netlink socket belongs to the namespace in which it was made, wherever its process goes. Only `received`
takes the lock of a connection. /proc/net/tcp has the same as the others, but each read of it walks the
machine's whole table of connections, which takes milliseconds.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

_NETLINK_SOCK_DIAG = 4
_ERROR, _DONE, _ALL_FAMILIES, BY_FAMILY = 2, 3, 18, 20  # linux/netlink.h, inet_diag.h, sock_diag.h
_REQUEST, _DUMP = 1, 0x300
ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_U32, _SEQUENCE = struct.Struct("=I"), 8  # nlmsg_len; offset of nlmsg_seq
_MESSAGE = struct.Struct("=BBBB48sIIIII")  # inet_diag_msg
_ATTRIBUTE = struct.Struct("=HH")  # rtattr
_OLD_REQUEST = struct.Struct("=BBBB48sII")  # inet_diag_req: asks for both families at once
_ONE_REQUEST = struct.Struct("=BBBxI48s")  # inet_diag_req_v2
_LARGEST = 1 << 16
_INFO = 2  # INET_DIAG_INFO: a struct tcp_info (linux/tcp.h)
_BYTES_RECEIVED, _U64 = 128, struct.Struct("=Q")  # offset of tcpi_bytes_received, Linux 4.1


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
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def established(self) -> list[Connection]:
        """All that are established; walks the machine's whole table."""
        return [row for answer in self._dump(0) for row in connections([answer])[0] if row]

    def received(self) -> dict[bytes, int]:
        """The bytes that each established connection has received, by its identity; takes their locks."""
        return {k: v for answer in self._dump(1 << _INFO - 1) for k, v in bytes_of(answer).items()}

    def _dump(self, extensions: int) -> Iterator[bytes]:
        body = _OLD_REQUEST.pack(0, 0, 0, extensions, bytes(48), 1 << ESTABLISHED, 0)
        self._ask(framed(_ALL_FAMILIES, body, _DUMP))
        ended = False
        while not ended:
            answer = self._answer()
            yield answer
            ended = connections([answer])[1]

    def look_up(self, messages: bytes) -> list[bytes]:
        """The kernel's answers, not parsed, to messages of one length: one for each of them."""
        return [self._answer() for _ in range(self._ask(messages))]

    def _ask(self, messages: bytes) -> int:
        """Send messages under a new sequence number; returns how many they are."""
        self._sequence = (self._sequence + 1) % (1 << 32)
        numbered = bytearray(messages)
        (length,) = _U32.unpack_from(numbered)
        starts = range(0, len(numbered), length)
        for start in starts:
            _U32.pack_into(numbered, start + _SEQUENCE, self._sequence)
        self._socket.send(numbered)
        return len(starts)

    def _answer(self) -> bytes:
        """The next answer to the last request; answers to earlier requests, which timed out, are dropped."""
        while True:
            answer = self._socket.recv(_LARGEST)
            if _U32.unpack_from(answer, _SEQUENCE)[0] == self._sequence:
                return answer


def request(found: list[Connection]) -> bytes:
    """The messages that look up these connections (pure)."""
    bodies = (
        _ONE_REQUEST.pack(one.family, socket.IPPROTO_TCP, 0, 0xFFF, one.identity) for one in found
    )
    return b"".join(framed(BY_FAMILY, body) for body in bodies)


def framed(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A message without its sequence number (pure)."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 0, 0) + body


def connections(answers: list[bytes]) -> tuple[list[Connection | None], bool]:
    """The connections of answers, None for one that does not exist; whether they are all (pure)."""
    found: list[Connection | None] = []
    for kind, body in (message for answer in answers for message in _messages(answer)):
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


def bytes_of(answer: bytes) -> dict[bytes, int]:
    """The bytes that connections have received, by their identity, where the kernel tells (pure)."""
    found = {}
    for _, body in _messages(answer):
        at = _MESSAGE.size
        while at + _ATTRIBUTE.size <= len(body):
            size, kind = _ATTRIBUTE.unpack_from(body, at)
            value = body[at + _ATTRIBUTE.size : at + size]
            if kind == _INFO and len(value) >= _BYTES_RECEIVED + _U64.size:
                identity = _MESSAGE.unpack_from(body)[4]
                (found[identity],) = _U64.unpack_from(value, _BYTES_RECEIVED)
            at += max(size + 3 & ~3, _ATTRIBUTE.size)
    return found


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the body of each message of an answer."""
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, at)
        yield kind, answer[at + _HEADER.size : at + length]
        at += max(length + 3 & ~3, _HEADER.size)
