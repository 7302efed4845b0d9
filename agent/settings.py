"""One setting of the kernel: read, written and read back."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.errors import Gone, SteerError, explain
from agent.files import opened, read_to_end
from agent.kernel import Kernel
from agent.knobs import DEVICE, Knob

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    Change = tuple["Setting", str, str]  # found, wanted


class Setting(NamedTuple):
    """One value of the kernel: its knob, its file, and its place in words."""

    knob: Knob
    path: Path
    where: str
    # Of the folder of the queue or device, and of its device where files only imitate a machine:
    # they tell it from one that has taken its place. Sysctls have neither.
    inode: int = 0
    ifindex: int = 0

    def __str__(self) -> str:
        return f"{self.knob.name} of {self.where}"

    def read(self) -> str:
        """The kernel's text, checked by the knob's codec."""
        raw: bytes = self._open(
            os.O_RDONLY | os.O_NONBLOCK, lambda file: read_to_end(file, 1 << 16)
        )
        return self.text_of(raw)

    def text_of(self, raw: bytes) -> str:
        """What was read, as a value."""
        value = raw.decode("ascii", "replace").strip()
        if not self.knob.codec.fits(value):
            raise SteerError(f"{self}: reads {raw[:40]!r}, which is not a valid value")
        return value

    def put(self, wanted: str, unusable: int) -> None:
        """Write, read back and compare."""
        line = f"{wanted}\n".encode()
        with writable(self.path):
            self._open(os.O_WRONLY | os.O_TRUNC, lambda file: os.write(file, line))
        got = self.read()
        if not self.knob.equal(wanted, got, unusable):
            raise SteerError(f"{self}: {wanted} was written, but the kernel has {got}")

    @contextmanager
    def held(self) -> Iterator[int]:
        """A descriptor to read and write it by, as long as the block runs; it reaches no other device."""
        with writable(self.path):
            file: int = self._open(os.O_RDWR, os.dup)
            try:
                yield file
            finally:
                with suppress(OSError):
                    os.close(file)

    def _open(self, flags: int, work: Callable[[int], Any]) -> Any:
        """Opens the file through the folder whose identity was checked, so never that of a later device."""
        try:
            with opened(self.path.parent, os.O_PATH | os.O_DIRECTORY) as folder:
                self._identify(folder)
                with opened(self.path.name, flags, folder) as file:
                    return work(file)
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
