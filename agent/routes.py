"""The devices of a route, and where a pair ends, by rtnetlink; see rtnetlink(7) and linux/rtnetlink.h.

Like a socket of sock_diag, one of rtnetlink belongs to the namespace in which it was made.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator

from agent.sockdiag import framed

_ERROR, _GET_LINK, _GET_ROUTE = 2, 18, 26
_DESTINATION, _SOURCE, _ARRIVES, _LEAVES, _PREFERRED, _SEVERAL = 1, 2, 3, 4, 7, 9  # RTA_*
_FIB_MATCH = 0x2000  # the entry of the table, with all its next hops (Linux 4.13)
_DEAD = 1  # of a next hop
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_MESSAGE = struct.Struct("=BBBBBBBBI")  # rtmsg
_LINK = struct.Struct("=BxHiII")  # ifinfomsg
_NAMESPACE_OF_LINK = 37  # IFLA_LINK_NETNSID (Linux 4.0)
_ATTRIBUTE = struct.Struct("=HH")
_HOP = struct.Struct("=HBBi")  # rtnexthop
_LARGEST = 1 << 16


class Routes:
    """The routes of one network namespace. Raises OSError where there is none to an address."""

    def __init__(self, file: int) -> None:
        self.file = file

    def devices(self, address: str, source: str = "", arrives: int = 0) -> list[int]:
        """The ifindex of each device that packets to an address leave by; several with several next hops.

        `source` and `arrives`, the ifindex of a device, are those of packets that are forwarded.
        """
        return list(devices_of(self._ask(address, source, arrives, _FIB_MATCH)))

    def source(self, address: str) -> str:
        """The address that packets to this one get; empty where the kernel does not tell."""
        attributes = dict(_attributes(self._ask(address), _MESSAGE.size))
        return address_text(attributes.get(_PREFERRED, b""))

    def leads_elsewhere(self, index: int) -> bool:
        """Whether the other end of a device, its peer or lower device, is in another network namespace."""
        os.write(self.file, framed(_GET_LINK, _LINK.pack(0, 0, index, 0, 0)))
        body = answer_of(os.read(self.file, _LARGEST))
        return any(kind == _NAMESPACE_OF_LINK for kind, _ in _attributes(body, _LINK.size))

    def _ask(self, address: str, source: str = "", arrives: int = 0, flags: int = 0) -> bytes:
        os.write(self.file, route_request(address, source, arrives, flags))
        return answer_of(os.read(self.file, _LARGEST))


def route_request(address: str, source: str = "", arrives: int = 0, flags: int = 0) -> bytes:
    """The question for the route to an address (pure)."""
    family, to = _packed(address)
    attributes = [(_DESTINATION, to)]
    length = 0
    if source:
        other, by = _packed(source)
        if other == family:
            attributes.append((_SOURCE, by))
            length = len(by) * 8
    if arrives:
        attributes.append((_ARRIVES, struct.pack("=I", arrives)))
    head = _MESSAGE.pack(family, len(to) * 8, length, 0, 0, 0, 0, 0, flags)
    rows = (_ATTRIBUTE.pack(_ATTRIBUTE.size + len(v), kind) + v for kind, v in attributes)
    return framed(_GET_ROUTE, head + b"".join(rows))


def answer_of(answer: bytes) -> bytes:
    """The body of the kernel's answer (pure). Raises OSError for the kernel's error."""
    length, kind, *_ = _HEADER.unpack_from(answer)
    body = answer[_HEADER.size : length]
    if kind == _ERROR:
        code = -struct.unpack_from("=i", body)[0]
        raise OSError(code, os.strerror(code))
    return body


def devices_of(body: bytes) -> Iterator[int]:
    """The devices of a route, by ifindex (pure)."""
    for kind, value in _attributes(body, _MESSAGE.size):
        if kind == _LEAVES:
            yield int.from_bytes(value, sys.byteorder)
        elif kind == _SEVERAL:
            yield from _hops(value)


def _hops(rows: bytes) -> Iterator[int]:
    at = 0
    while at + _HOP.size <= len(rows):
        length, flags, _, index = _HOP.unpack_from(rows, at)
        if not flags & _DEAD:
            yield index
        at += max(length + 3 & ~3, _HOP.size)


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        yield kind, body[at + _ATTRIBUTE.size : at + length]
        at += max(length + 3 & ~3, _ATTRIBUTE.size)


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def address_text(address: bytes) -> str:
    """An address as text; empty for anything else (pure)."""
    families = {4: socket.AF_INET, 16: socket.AF_INET6}
    return socket.inet_ntop(families[len(address)], address) if len(address) in families else ""


def routes_here() -> Routes | None:
    """The routes of the network namespace of this thread; None where their socket may not be opened.

    The service that keeps the steering of a node may not; its plan does not need routes.
    """
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        return Routes(opened.detach())
    except OSError:
        return None
