"""The local audit log: the lines of all nodes' logs, as JSON lines."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from infra import untrusted

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
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


class AuditLog:
    """A file that lines are appended to, and the number of each node's last line in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        with suppress(FileNotFoundError), open(path, "rb", opener=_at_once) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                for number, node in _BEGIN.findall(file.read(TAIL)):
                    self._last[node.decode()] = int(number)

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
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
                file.write(text)
            self._last[node] = lines[-1].n
