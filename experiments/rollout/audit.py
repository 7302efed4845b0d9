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
_BEGIN = re.compile(
    rb'^\{"n": ([0-9]{1,18}), "node": "([ -!#-\[\]-~]{1,253})", "at": "([0-9TZ:.-]{1,40})"',
    re.MULTILINE,
)


class _Line(BaseModel):
    """The parts of a line that are used here; other versions may have more."""

    model_config = ConfigDict(extra="allow")
    n: int
    node: str
    at: str

    @property
    def mark(self) -> str:
        """What tells it from the node's other lines, and from those of a node of this name in another cluster."""
        return f"{self.n}@{self.at}"


_LINES = TypeAdapter(list[_Line])


def _at_once(path: str, flags: int) -> int:
    """Opens a file; a FIFO must not block."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


class AuditLog:
    """A file that lines are appended to, and the marks of each node's lines in it.

    Raises `InvalidInput` where the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, None]] = {}  # the last line last
        try:
            with self._appended(), open(path, "rb", opener=_at_once) as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                    for number, node, at in _BEGIN.findall(file.read(TAIL)):
                        mark = f"{int(number)}@{at.decode()}"
                        self._known.setdefault(node.decode(), {})[mark] = None
        except OSError as error:
            raise InvalidInput(
                f"audit: {path}: {error.strerror}: name another file with --audit"
            ) from None

    def _appended(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return open(self._path, "a", opener=_at_once)

    def last(self, node: str) -> str:
        """The mark of a node's last line, as its agent's `--since`."""
        return next(reversed(self._known.get(node, {})), "0")

    def add(self, node: str, said: Sequence[Any]) -> None:
        """Append lines that a node's agent has printed."""
        with untrusted.reading(f"the audit log of node {node}"):
            lines = _LINES.validate_python(said)
        known = self._known.setdefault(node, {})
        new = [one for one in lines if one.mark not in known]
        if not new:
            return
        text = "".join(f"{json.dumps(one.model_dump())}\n" for one in new)
        with self._lock:
            try:
                with self._appended() as file:
                    file.write(text)
            except OSError as error:
                raise PrerequisiteMissing(f"audit: {self._path}: {error.strerror}") from None
            known.update(dict.fromkeys(one.mark for one in new))
