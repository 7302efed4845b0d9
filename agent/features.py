"""Features of devices, such as GRO, by the ioctl of ethtool (linux/ethtool.h).

A device has requested features and active ones. The kernel derives the active ones, so a requested
feature may be off: because of another feature that it depends on, or of the driver.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from typing import NamedTuple

SIOCGIFNAME, SIOCETHTOOL = 0x8910, 0x8946  # linux/sockios.h
GSTRINGS, GSSET_INFO, GFEATURES, SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
SS_FEATURES = 4  # the set of strings with the names of the features
NAME_BYTES = 32  # of each string

# The value of a feature that is off and was requested, as `ethtool -k` prints it.
REQUESTED = b"off [requested on]"


class Features:
    """The features of the devices of one network namespace.

    The namespace is that of a socket, and a device is found by its ifindex, so it may be renamed.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._names: list[bytes] = []

    def has(self, index: int, feature: str) -> bool:
        """Whether this kernel has the feature."""
        if not self._names:
            self._names = self._strings(index)
        return feature.encode() in self._names

    def read(self, index: int, feature: str) -> bytes:
        """`on`, `off` or REQUESTED.

        That an active feature was not requested is not told: a write could not restore it.
        """
        number, blocks = self._place(index, feature)
        answer = self._call(index, struct.pack("=II", GFEATURES, blocks) + bytes(16 * blocks))
        block = struct.unpack_from("=4I", answer, 8 + 16 * (number // 32))
        available, requested, active, _ = (bits >> number % 32 & 1 for bits in block)
        if active:
            return b"on"
        return REQUESTED if requested and available else b"off"

    def write(self, index: int, feature: str, line: bytes) -> None:
        """Request `on` or `off`; REQUESTED is a request, too."""
        number, blocks = self._place(index, feature)
        words = [0] * (2 * blocks)  # of each block: the bits that change, and their values
        first = 2 * (number // 32)
        words[first] = 1 << number % 32
        words[first + 1] = words[first] if line.strip() in (b"on", REQUESTED) else 0
        self._call(index, struct.pack(f"=II{2 * blocks}I", SFEATURES, blocks, *words))

    def _place(self, index: int, feature: str) -> tuple[int, int]:
        """The number of a feature, and the number of blocks of 32 features."""
        if not self.has(index, feature):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return self._names.index(feature.encode()), -(-len(self._names) // 32)

    def _strings(self, index: int) -> list[bytes]:
        """The names of all features, the same for all devices of a kernel."""
        answer = self._call(index, struct.pack("=IIQI", GSSET_INFO, 0, 1 << SS_FEATURES, 0))
        count: int = struct.unpack_from("=I", answer, 16)[0]
        head = struct.pack("=III", GSTRINGS, SS_FEATURES, count)
        answer = self._call(index, head + bytes(NAME_BYTES * count))
        return [name.rstrip(b"\0") for (name,) in struct.iter_unpack("=32s", answer[len(head) :])]

    def _call(self, index: int, request: bytes) -> bytes:
        """The kernel's answer, which takes the place of the request."""
        found = fcntl.ioctl(self._file, SIOCGIFNAME, struct.pack("16si20x", b"", index))
        buffer = array.array("B", request)
        address, _ = buffer.buffer_info()
        fcntl.ioctl(self._file, SIOCETHTOOL, struct.pack("16sP16x", found[:16], address))
        return buffer.tobytes()


class Feature(NamedTuple):
    """One feature of one device: what `agent.settings.OpenFile` is of a file."""

    features: Features
    ifindex: int
    name: str

    def read(self) -> bytes:
        return self.features.read(self.ifindex, self.name)

    def write(self, line: bytes) -> None:
        self.features.write(self.ifindex, self.name, line)

    def copy(self) -> Feature:
        return self

    def close(self) -> None:
        """The socket belongs to the machine."""


def opened_here() -> int:
    """A socket that reaches the devices of the network namespace that this thread is in."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach()
