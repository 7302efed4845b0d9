"""Every reader gives a value or an error of its own kind: for any bytes, soon, in little memory."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import readers_agent  # noqa: F401 they join the others
from foreign_documents import RAW
from hypothesis import HealthCheck, given, settings
from readers import READERS, Reader

SECONDS = 1.0
MEMORY = 200 * 2**20
FEW, MANY = 100, 10_000


class Hung(BaseException):
    """A reader that did not return; no reader may catch it."""


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where the block takes too long or too much memory.

    Time is that of the processor, since others use it too; a block that waits is ended by a clock.
    """

    def hung(*_: object) -> None:
        raise Hung("it did not return within 20 s")

    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak(), time.process_time()
    former = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, 20)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    seconds, more = time.process_time() - start, peak() - before
    assert seconds < SECONDS, f"it took {seconds:.1f} s"
    assert more < MEMORY, f"it took {more >> 20} MB"


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
        if self.reader.file is None:
            return self._asked(data)
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(data)
        return self._asked(self.folder)

    def _asked(self, what: Any) -> object:
        with bounded():
            try:
                return self.reader.read(what)
            except self.reader.errors as error:
                assert str(error).strip(), "an error without words"
                return error

    def close(self) -> None:
        shutil.rmtree(self.folder)


@pytest.fixture
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(request.param)
    yield desk
    desk.close()


of_every_reader = pytest.mark.parametrize("desk", READERS, ids=str, indirect=True)


def fuzz(desk: Desk, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples == FEW,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=desk.reader.documents | RAW)
    def every(data: bytes) -> None:
        desk.read(data)

    every()


@of_every_reader
def test_a_valid_document_is_read(desk: Desk) -> None:
    for data in desk.reader.valid:
        answer = desk.read(data)
        assert not isinstance(answer, Exception), answer


@of_every_reader
def test_any_document_has_an_answer(desk: Desk) -> None:
    fuzz(desk, FEW)


@pytest.mark.long
@of_every_reader
def test_many_documents_have_answers(desk: Desk) -> None:
    fuzz(desk, MANY)
