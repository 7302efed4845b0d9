"""A place where a reader is tried: its folder, and the bounds of its time and memory."""

from __future__ import annotations

import gc
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from readers import Reader

SECONDS = 2.0  # of the processor; two busy hyperthreads of one core make it half as fast
MEMORY = 200 * 2**20
TIMEOUT_S = 20  # real seconds, for a reader that waits


TIMES = 3  # a slow answer is asked for again: what shares the processor makes it slower


class TooSlow(AssertionError):
    """A reader took too long."""


class Hung(BaseException):
    """A reader that did not return; no reader may catch it."""


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where the block takes too long or too much memory.

    Time is that of the processor: others use it too.
    """

    def hung(*_: object) -> None:
        raise Hung(f"it did not return within {TIMEOUT_S} s")

    gc.disable()  # the garbage of the tests is not the reader's
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak(), time.process_time()
    former = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        gc.enable()
    seconds, more = time.process_time() - start, peak() - before
    assert more < MEMORY, f"it took {more >> 20} MB"
    if seconds >= SECONDS:
        raise TooSlow(f"it took {seconds:.1f} s")


def peak() -> int:
    """The most memory of this process since it was last asked to forget, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


class Desk:
    """A folder as a reader expects it, in which its document is replaced again and again."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        reader.around(self.folder)
        self.path = self.folder / (reader.file or "document")
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def read(self, data: bytes) -> object:
        """What the reader says of a document: a value, or an error of its own."""
        if self.reader.file is None:
            return self.ask(data)
        self.clear()
        self.path.write_bytes(data)
        return self.ask(self.folder)

    def clear(self) -> None:
        """Make room for another document, or for something that is none."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        with suppress(FileNotFoundError):
            self.path.unlink()

    def ask(self, what: Any) -> object:
        for _ in range(TIMES - 1):
            with suppress(TooSlow):
                return self._ask(what)
        return self._ask(what)

    def _ask(self, what: Any) -> object:
        with bounded():
            try:
                return self.reader.read(what)
            except self.reader.errors as error:
                assert str(error).strip(), "an error without words"
                return error

    def close(self) -> None:
        shutil.rmtree(self.folder)
