"""Settings of devices by the ioctl of ethtool (linux/ethtool.h): features, such as GRO, and queues.

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
from typing import NamedTuple, Union

from agent.codecs import REQUESTED as REQUESTED_TEXT
from agent.knobs import EthtoolFeature, EthtoolQueues

SIOCGIFNAME, SIOCETHTOOL, SIOCGSKNS = 0x8910, 0x8946, 0x894C  # linux/sockios.h
GDRVINFO, GSTRINGS, GSSET_INFO, GFEATURES, SFEATURES = 0x03, 0x1B, 0x37, 0x3A, 0x3B
GCHANNELS, SCHANNELS = 0x3C, 0x3D
SS_FEATURES = 4  # the set of strings with the names of the features
NAME_BYTES = 32  # of each string
DRVINFO_BYTES = 196  # of struct ethtool_drvinfo

ASK_QUEUES = struct.pack("=9I", GCHANNELS, *[0] * 8)

REQUESTED = REQUESTED_TEXT.encode()

Access = Union[EthtoolFeature, EthtoolQueues]


class Ethtool:
    """The devices of one network namespace, by the ioctl of ethtool.

    The namespace is that of a socket, and a device is found by its ifindex, so it may be renamed.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._names: list[str] = []

    def namespace(self) -> int:
        """A descriptor of the network namespace."""
        return fcntl.ioctl(self._file, SIOCGSKNS)

    def has(self, index: int, access: Access) -> bool:
        """Whether this kernel has the feature, or this device a number of queues that can be set."""
        if isinstance(access, EthtoolFeature):
            return access.feature in self.features(index)
        try:
            self.call(index, ASK_QUEUES)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return False
            raise
        return True

    def value(self, index: int, access: Access) -> EthtoolValue:
        """A setting of a device."""
        if isinstance(access, EthtoolFeature):
            return Feature(self, index, access.feature)
        return Queues(self, index)

    def driver(self, index: int) -> str:
        """The name of a device's driver, or its kind, such as veth; empty where it has none."""
        try:
            answer = self.call(index, struct.pack("=I", GDRVINFO) + bytes(DRVINFO_BYTES - 4))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return ""
            raise
        return answer[4 : 4 + NAME_BYTES].partition(b"\0")[0].decode("ascii", "replace")

    def features(self, index: int) -> list[str]:
        """The names of all features, in the kernel's order; the same for all devices."""
        if not self._names:
            answer = self.call(index, struct.pack("=IIQI", GSSET_INFO, 0, 1 << SS_FEATURES, 0))
            count: int = struct.unpack_from("=I", answer, 16)[0]
            head = struct.pack("=III", GSTRINGS, SS_FEATURES, count)
            names = self.call(index, head + bytes(NAME_BYTES * count))[len(head) :]
            self._names = [
                name.rstrip(b"\0").decode("ascii", "replace")
                for (name,) in struct.iter_unpack("=32s", names)
            ]
        return self._names

    def call(self, index: int, request: bytes) -> bytes:
        """The kernel's answer, which takes the place of the request."""
        found = fcntl.ioctl(self._file, SIOCGIFNAME, struct.pack("16si20x", b"", index))
        buffer = array.array("B", request)
        address, _ = buffer.buffer_info()
        fcntl.ioctl(self._file, SIOCETHTOOL, struct.pack("16sP16x", found[:16], address))
        return buffer.tobytes()


class Feature(NamedTuple):
    """One feature of one device: what `agent.settings.OpenFile` is of a file."""

    ethtool: Ethtool
    ifindex: int
    name: str

    def read(self) -> bytes:
        """`on`, `off` or REQUESTED.

        That an active feature was not requested is not told: a write could not restore it.
        """
        available, requested, active, _ = self._bits()
        if active:
            return b"on"
        return REQUESTED if requested and available else b"off"

    def write(self, line: bytes) -> None:
        """Request `on` or `off`; REQUESTED is a request, too."""
        number, blocks = self._place()
        words = [0] * (2 * blocks)  # of each block: the bits that change, and their values
        first = 2 * (number // 32)
        words[first] = 1 << number % 32
        words[first + 1] = words[first] if line.strip() in (b"on", REQUESTED) else 0
        self.ethtool.call(self.ifindex, struct.pack(f"=II{2 * blocks}I", SFEATURES, blocks, *words))

    def refusal(self, _: str) -> str:
        """Why no other value can be written; empty if it can."""
        bits = self._bits()
        return "" if bits[0] and not bits[3] else "the device has it fixed"

    def copy(self) -> Feature:
        return self

    def close(self) -> None:
        """The socket belongs to the machine."""

    def _bits(self) -> tuple[int, ...]:
        """Whether it can be changed here, is requested, is active, and can never be changed."""
        number, blocks = self._place()
        request = struct.pack("=II", GFEATURES, blocks) + bytes(16 * blocks)
        answer = self.ethtool.call(self.ifindex, request)
        block = struct.unpack_from("=4I", answer, 8 + 16 * (number // 32))
        return tuple(bits >> number % 32 & 1 for bits in block)

    def _place(self) -> tuple[int, int]:
        """The number of the feature, and the number of blocks of 32 features."""
        names = self.ethtool.features(self.ifindex)
        if self.name not in names:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return names.index(self.name), -(-len(names) // 32)


class Queues(NamedTuple):
    """The receive queues in use of one device: those that also send (combined), and the others."""

    ethtool: Ethtool
    ifindex: int

    def read(self) -> bytes:
        _, _, _, _, _, rx, _, _, combined = self._numbers()
        return b"%d" % (rx + combined)

    def write(self, line: bytes) -> None:
        numbers = self._numbers()
        wanted = int(line)
        if numbers[4]:
            numbers[8] = wanted - numbers[5]
        else:
            numbers[5] = wanted
        self.ethtool.call(self.ifindex, struct.pack("=9I", SCHANNELS, *numbers[1:]))

    def refusal(self, wanted: str) -> str:
        """Why so many queues cannot be set; empty if they can."""
        _, most_rx, _, _, most_combined, rx, *_ = self._numbers()
        least, most = (rx + 1, rx + most_combined) if most_combined else (1, most_rx)
        return "" if least <= int(wanted) <= most else f"the device has {least} to {most}"

    def copy(self) -> Queues:
        return self

    def close(self) -> None:
        """The socket belongs to the machine."""

    def _numbers(self) -> list[int]:
        """struct ethtool_channels: command, most rx, tx, other, combined; rx, tx, other, combined."""
        return list(struct.unpack("=9I", self.ethtool.call(self.ifindex, ASK_QUEUES)))


EthtoolValue = Union[Feature, Queues]


def opened_here() -> int:
    """A socket that reaches the devices of the network namespace that this thread is in."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach()
