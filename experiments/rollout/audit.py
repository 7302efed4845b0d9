"""The local audit log: the lines of all nodes' logs, as JSON lines."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from infra import untrusted

LONGEST = 1 << 16  # of a line


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
            while text := file.readline(LONGEST):
                with suppress(ValueError):  # a line that a full disk has cut
                    line = _Line.model_validate(untrusted.parsed(text))
                    self._last[line.node] = line.n

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
