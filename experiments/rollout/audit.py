"""The local audit log: the lines of all nodes' logs, as JSON lines."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, TypeAdapter

from infra import untrusted
from infra.errors import InvalidInput, PrerequisiteMissing

TAIL = 1 << 25  # bytes of a log that are looked at
# The beginning of each line that `add` writes.
_BEGIN = re.compile(rb'^\{"n": ([0-9]{1,18}), "node": "([ -!#-\[\]-~]{1,253})"', re.MULTILINE)


class _Line(BaseModel):
    """The parts of a line that are used here; other versions may have more."""

    model_config = ConfigDict(extra="allow")
    n: int
    node: str


_LINES = TypeAdapter(list[_Line])


def _at_once(path: str, flags: int) -> int:
    """Opens a file; a FIFO must not block."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


class AuditLog:
    """A file that lines are appended to, and the number of each node's last line in it.

    Raises `InvalidInput` where the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        try:
            with self._appended(), open(path, "rb", opener=_at_once) as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                    for number, node in _BEGIN.findall(file.read(TAIL)):
                        self._last[node.decode()] = int(number)
        except OSError as error:
            raise InvalidInput(
                f"audit: {path}: {error.strerror}: name another file with --audit"
            ) from None

    def _appended(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return open(self._path, "a", opener=_at_once)

    def last(self, node: str) -> int:
        return self._last.get(node, 0)

    def add(self, node: str, said: Sequence[Any]) -> None:
        """Append lines that a node's agent has printed."""
        with untrusted.reading(f"the audit log of node {node}"):
            lines = _LINES.validate_python(said)
        if not lines:
            return
        text = "".join(f"{json.dumps(one.model_dump())}\n" for one in lines)
        with self._lock:
            try:
                with self._appended() as file:
                    file.write(text)
            except OSError as error:
                raise PrerequisiteMissing(f"audit: {self._path}: {error.strerror}") from None
            self._last[node] = lines[-1].n
