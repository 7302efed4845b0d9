"""Reads files of the kernel and of the agent, within limits."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

# Of a JSON text: thousands of queues, and less than 200 MB when it is read.
MAX_TEXT, MAX_VALUES, MAX_LEVELS = 2**24, 500_000, 100
LIMITS = {",[{": MAX_VALUES}
LONGEST_FILE = 1 << 26
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH)
DENIED = (errno.EACCES, errno.EPERM)


@contextmanager
def opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        yield file
    finally:
        with suppress(OSError):  # the kernel frees a descriptor even where close fails
            os.close(file)


def read_to_end(file: int, longest: int = LONGEST_FILE) -> bytes:
    """All of a file: one read may return only a part of it."""
    parts: list[bytes] = []
    while sum(map(len, parts)) <= longest:
        part = os.read(file, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def read_text(path: Path | str) -> str:
    """The text of a file. Names of devices, processes and cgroups can be any bytes."""
    with opened(path, os.O_RDONLY | os.O_NONBLOCK) as file:
        return read_to_end(file).decode("utf-8", "surrogateescape")


def listing(path: Path | str) -> list[str]:
    """The names in a folder; none where it does not exist."""
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise


def exists(path: Path | str) -> bool:
    """Whether a path exists; unlike `Path.exists` it raises other errors."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in ABSENT:
            return False
        raise
    return True


def read_json(
    text: str, longest: int = MAX_TEXT, limits: Mapping[str, int] = MappingProxyType(LIMITS)
) -> Any:
    """The value of a JSON text; ValueError for any other, and for one too large to work on."""
    counts = ((sum(map(text.count, signs)), most) for signs, most in limits.items())
    if len(text) > longest or any(count > most for count, most in counts):
        raise ValueError("too long")
    try:
        value = json.loads(text, parse_constant=refuse_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_LEVELS):
        lists = [item for item in level if isinstance(item, list)]
        lists += [list(item.values()) for item in level if isinstance(item, dict)]
        level = list(chain.from_iterable(lists))
    if level:
        raise ValueError("it is nested too deeply")
    return value


def refuse_number(word: str) -> None:
    raise ValueError(f"{word} is not a valid number in JSON")
