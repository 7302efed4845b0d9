"""Where network namespaces are mounted: the lines of /proc/PID/mountinfo."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.files import opened


def lines_of(path: Path, word: str, deadline: float) -> Iterator[str]:
    """The lines of a file of any length that have a word in them."""
    rest, sign = b"", word.encode()
    with opened(path, os.O_RDONLY) as file:
        while time.monotonic() < deadline:
            part = os.read(file, 1 << 18)
            block, _, rest = (rest + part).rpartition(b"\n") if part else (rest, b"", b"")
            for line in block.split(b"\n") if sign in block else ():
                if sign in line:
                    yield line.decode("utf-8", "surrogateescape")
            if not part:
                return


def namespace_mounts(lines: Iterable[str]) -> list[str]:
    """Where network namespaces are mounted, of the lines of /proc/PID/mountinfo."""
    rows = [line.split(" ") for line in lines if " - nsfs " in line]
    octal = re.compile(r"\\([0-7]{3})")
    return [
        octal.sub(lambda match: chr(int(match.group(1), 8)), row[4])
        for row in rows
        if row[3].startswith("net:[")
    ]
