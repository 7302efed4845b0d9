"""Counters of the kernel at one time, read through descriptors that stay open."""

from __future__ import annotations

import os
import resource
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

FILES = {"stat": "stat", "softirqs": "softirqs", "softnet": "net/softnet_stat"}
_PART = 1 << 17
_MOST = 1 << 22
# A file that is made of rows ends a read where a page is full of them; none is longer than this.
_SHORT = 3500


class Sample(NamedTuple):
    """The texts of FILES and this process's CPU time, at a moment (monotonic)."""

    at: float
    own_cpu: float
    texts: dict[str, bytes]

    def document(self) -> dict[str, Any]:
        """For JSON; of /proc/stat the cores alone, of /proc/softirqs those of the network."""
        texts = {name: text.decode(errors="replace") for name, text in self.texts.items()}
        texts["stat"] = _lines(texts["stat"], "cpu")
        header, _, rows = texts["softirqs"].partition("\n")
        texts["softirqs"] = f"{header}\n{_lines(rows, 'NET_')}"
        return {
            "at": self.at,
            "own_cpu": self.own_cpu,
            "tasks": [],
            "own": None,
            "tick": os.sysconf("SC_CLK_TCK"),
            **texts,
        }


def _lines(text: str, start: str) -> str:
    return "".join(f"{line}\n" for line in text.split("\n") if line.lstrip().startswith(start))


class Counters:
    """The files of FILES, open as long as `stack`."""

    def __init__(self, proc: Path, stack: ExitStack) -> None:
        self._files = {
            name: os.open(proc / path, os.O_RDONLY | os.O_CLOEXEC) for name, path in FILES.items()
        }
        for file in self._files.values():
            stack.callback(os.close, file)

    def read(self) -> Sample:
        at = time.monotonic()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        texts = {name: whole_text(file) for name, file in self._files.items()}
        return Sample(at, usage.ru_utime + usage.ru_stime, texts)


def whole_text(file: int) -> bytes:
    """All of a file of /proc, from its start."""
    parts: list[bytes] = []
    size = 0
    while size < _MOST:
        part = os.pread(file, _PART, size)
        parts.append(part)
        size += len(part)
        if len(part) < _SHORT:
            break
    return b"".join(parts)
