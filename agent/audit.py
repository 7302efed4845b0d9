"""The audit log of a node: a line for each step of a rollout, and for each value before it is written."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agent.errors import SteerError
from agent.files import opened, read_json
from agent.store import as_bytes

if TYPE_CHECKING:
    from agent.settings import Setting
    from agent.store import Store

FILE, OLD = "audit.jsonl", "audit.jsonl.1"
MOST_BYTES = 1 << 22  # then the log starts again, and the one before it is kept
MOST_LINES = 5000  # of an answer
LONGEST = 1 << 16  # of a line


class Audit:
    """The log, for one process at a time; lines are numbered from 1."""

    def __init__(self, home: Store, who: str, node: str) -> None:
        self._home = home
        self._file, self._old = home.directory / FILE, home.directory / OLD
        self._said = {"who": who, "node": node}
        self.rollout = ""
        self.number = next((line["n"] for line in self._backwards()), 0)

    def step(self, name: str) -> None:
        """Log a step. Raises OSError: without a log nothing is written."""
        self._add({"step": name})

    def write(self, setting: Setting, old: str, new: str) -> None:
        """Log a write that follows. A log that cannot be written must not prevent a restore."""
        with suppress(OSError):
            self._add({"knob": setting.knob.name, "where": setting.where, "old": old, "new": new})

    def since(self, last: str) -> list[dict[str, Any]]:
        """The lines after one with this number and time, `7@2026-11-28T03:21:36.123Z`, the last where there are many.

        All lines where the log has no such one: then it is that of another node, or of one installed anew.
        """
        found: list[dict[str, Any]] = []
        for line in self._backwards():
            if f"{line['n']}@{line.get('at')}" == last or len(found) == MOST_LINES:
                break
            found.append(line)
        return found[::-1]

    def _add(self, what: dict[str, str]) -> None:
        now = time.time()
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03}Z"
        line = {"n": self.number + 1, "at": at, **self._said, "rollout": self.rollout, **what}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        with opened(self._file, flags) as file:
            # a line that a power cut has left unfinished ends here
            os.write(file, b"\n" + as_bytes(json.dumps(line)) + b"\n")
            size = os.fstat(file).st_size
        self.number += 1
        if size > MOST_BYTES:
            os.replace(self._file, self._old)

    def _backwards(self) -> Iterator[dict[str, Any]]:
        """The lines from the last one; what is none is left out."""
        for path in (self._file, self._old):
            text = None
            with suppress(
                OSError, SteerError
            ):  # a log that cannot be read must not prevent a restore
                text = self._home.read(path)
            # an empty line is before each line; what is left of the split is none
            for line in reversed((text or b"").rsplit(b"\n", 2 * MOST_LINES)):
                with suppress(ValueError):
                    found = read_json(line.decode()) if 0 < len(line) < LONGEST else None
                    if isinstance(found, dict) and type(found.get("n")) is int:
                        yield found
