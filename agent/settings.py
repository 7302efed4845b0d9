"""One setting of the kernel: read, written and read back."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from agent.errors import Gone, SteerError, explain
from agent.ethtool import Ethtool, EthtoolValue
from agent.files import opened, read_to_end
from agent.kernel import Kernel
from agent.knobs import DEVICE, EthtoolFeature, EthtoolQueues, Knob

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    Change = tuple["Setting", str, str]  # found, wanted


# Called before each write, with the setting, the value that it has and the one that it gets.
witnesses: list[Callable[[Setting, str, str], None]] = []


class OpenFile(NamedTuple):
    """A value by the descriptor of its file."""

    file: int

    def read(self) -> bytes:
        return os.pread(self.file, 1 << 16, 0)

    def write(self, line: bytes) -> None:
        os.pwrite(self.file, line, 0)

    def copy(self) -> OpenFile:
        return OpenFile(os.dup(self.file))

    def close(self) -> None:
        os.close(self.file)


OpenValue = Union[OpenFile, EthtoolValue]


class Setting(NamedTuple):
    """One value of the kernel: its knob, its file, and its place in words."""

    knob: Knob
    path: Path  # of a setting by ethtool: the file with the device's ifindex
    where: str
    # Of the folder of the queue or device, and of its device where files only imitate a machine:
    # they tell it from one that has taken its place. Sysctls have neither.
    inode: int = 0
    ifindex: int = 0
    ethtool: Ethtool | None = None  # of its network namespace

    def __str__(self) -> str:
        return f"{self.knob.name} of {self.where}"

    def read(self) -> str:
        """The kernel's text, checked by the knob's codec."""
        raw: bytes = self._open(os.O_RDONLY | os.O_NONBLOCK, lambda value: value.read())
        return self.text_of(raw)

    def text_of(self, raw: bytes) -> str:
        """What was read, as a value."""
        value = raw.decode("ascii", "replace").strip()
        if not self.knob.codec.fits(value):
            raise SteerError(f"{self}: reads {raw[:40]!r}, which is not a valid value")
        return value

    def put(self, wanted: str, unusable: int, back: bool = False) -> None:
        """Write, read back and compare; `back`: the value is one from before."""
        line = f"{wanted}\n".encode()
        for witness in witnesses:
            witness(self, self.read(), wanted)
        with self._writable():
            self._open(os.O_WRONLY | os.O_TRUNC, lambda value: value.write(line))
        got = self.read()
        equal = self.knob.as_before if back else self.knob.equal
        if not equal(wanted, got, unusable):
            raise SteerError(f"{self}: {wanted} was written, but the kernel has {got}")

    @contextmanager
    def held(self) -> Iterator[OpenValue]:
        """The open value, as long as the block runs; it reaches no other device."""
        with self._writable():
            value: OpenValue = self._open(os.O_RDWR, lambda value: value.copy())
            try:
                yield value
            finally:
                with suppress(OSError):
                    value.close()

    def refusal(self, wanted: str) -> str:
        """Why the device cannot have this value; empty if that is not known."""
        if not self.by_ethtool:
            return ""
        words: str = self._open(os.O_RDONLY, lambda value: value.refusal(wanted))
        return words

    @property
    def by_ethtool(self) -> bool:
        return isinstance(self.knob.access, (EthtoolFeature, EthtoolQueues))

    def _writable(self) -> AbstractContextManager[None]:
        return nullcontext() if self.by_ethtool else writable(self.path)

    def _value(self, file: int) -> OpenValue:
        access = self.knob.access
        if self.ethtool and isinstance(access, (EthtoolFeature, EthtoolQueues)):
            return self.ethtool.value(int(read_to_end(file, 64)), access)
        return OpenFile(file)

    def _open(self, flags: int, work: Callable[[Any], Any]) -> Any:
        """Opens the file through the folder whose identity was checked, so never that of a later device."""
        try:
            with opened(self.path.parent, os.O_PATH | os.O_DIRECTORY) as folder:
                self._identify(folder)
                flags = os.O_RDONLY if self.by_ethtool else flags
                with opened(self.path.name, flags, folder) as file:
                    return work(self._value(file))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                raise Gone(f"{self}: {error.strerror}") from None
            raise SteerError(f"{self}: {error.strerror}") from None

    def _identify(self, folder: int) -> None:
        if self.inode:
            same = os.fstat(folder).st_ino == self.inode
        elif self.ifindex:
            up = "" if self.knob.scope == DEVICE else "../../"
            with opened(f"{up}ifindex", os.O_RDONLY, folder) as file:
                same = read_to_end(file).strip() == b"%d" % self.ifindex
        else:
            return
        if not same:
            raise Gone(f"{self}: another device now has its name")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Let a file of a sysfs be written that a container runtime has made read-only.

    That was for a pod's own view of it, and its mount stays so; all mounts share the file system.
    """
    through = re.match("/proc/self/fd/([0-9]+)/", str(path))
    mount = int(through.group(1)) if through else None
    try:
        locked = mount is not None and os.fstatvfs(mount).f_flag & os.ST_RDONLY
        if mount is None or not locked:
            yield
            return
        kernel = Kernel()
        kernel.reconfigure(mount, b"rw")
    except OSError as error:
        raise SteerError(f"{path.name}: its read-only sysfs: {explain(error)}") from None
    try:
        yield
    finally:
        for _ in range(3):
            with suppress(OSError):  # busy: whoever else writes there does this at its end
                kernel.reconfigure(mount, b"ro")
                break
