"""Files and JSON from other programs: read within limits, with clear errors."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.errors import PrerequisiteMissing

# More than any document of this project; parsing a smaller one takes less than 200 MB.
MOST_BYTES = 12 << 20
MOST_VALUES = 300_000
MOST_LEVELS = 100
# Digits of an integer: 64 bits have 20, the range of a float 309.
_MOST_DIGITS = 20
FLOAT_DIGITS = 309
# Of /proc/cpuinfo on the largest machines.
_MOST_LINES = 300_000
_TOO_DEEP = f"it is nested more than {MOST_LEVELS} levels deep"
# Only documents with such numbers get hooks for numbers, which triple the time.
_LARGE = re.compile(rf"[0-9]{{{_MOST_DIGITS + 1}}}|[0-9][eE]")
_DIGITS = re.compile(r"[0-9]{1,20}")
# A surrogate, or the escape of one.
_HALF = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")


def content(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file. Raises OSError, also for a directory, a FIFO or a device."""
    # opening a FIFO or a device must not block
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes", str(path))
    return data


def words(path: Path) -> str:
    """The text of a kernel file or another small file; bytes that are not UTF-8 are replaced."""
    return content(path).decode(errors="replace")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn errors of a parser into a `PrerequisiteMissing`: `what` cannot be read."""
    try:
        yield
    except (ValueError, LookupError) as error:
        missing = isinstance(error, LookupError)
        why = f"{error} is missing" if missing else " ".join(str(error).split())
        raise PrerequisiteMissing(f"{what} cannot be read: {why[:300]}") from None


def whole(word: str) -> int:
    """A whole number in decimal digits, the format of kernel counters. Raises ValueError."""
    if not _DIGITS.fullmatch(word):
        raise ValueError(f"{word[:40]!r} is not a whole number")
    return int(word)


def lines(text: str) -> list[str]:
    """The lines of a kernel text, which end in a line feed. Raises ValueError."""
    if text.count("\n") > _MOST_LINES:
        raise ValueError(f"it has more than {_MOST_LINES} lines")
    return text.removesuffix("\n").split("\n")


def parsed(
    document: str | bytes,
    *,
    strict: bool = True,
    digits: int = _MOST_DIGITS,
    most: int = MOST_BYTES,
) -> Any:
    """The value of a JSON document. Raises ValueError only.

    Documents that are too large or too deep are refused. NaN, integers with more than `digits` digits
    and numbers outside the range of a float are refused where `strict`, else None. Half a surrogate
    pair, which cannot be encoded, is replaced.
    """
    if len(document) > most:
        raise ValueError(f"it is larger than {most} bytes")
    text = document.decode("utf-8-sig") if isinstance(document, bytes) else document
    if sum(text.count(sign) for sign in ",[{") > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values")
    try:
        hooks: dict[str, Any] = {"parse_constant": lambda word: _odd(word, strict)}
        if _LARGE.search(text):
            hooks["parse_int"] = lambda word: _int(word, digits, strict)
            hooks["parse_float"] = lambda word: _float(word, strict)
        value = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if not _shallow(value):
        raise ValueError(_TOO_DEEP)
    return _whole(value) if _HALF.search(text) else value


def _int(word: str, digits: int, strict: bool) -> Any:
    if len(word.lstrip("-")) <= digits:
        return int(word)
    return _odd(word, strict)


def _float(word: str, strict: bool) -> Any:
    number = float(word)
    return number if math.isfinite(number) else _odd(word, strict)


def _odd(word: str, strict: bool) -> Any:
    if strict:
        raise ValueError(f"{word[:_MOST_DIGITS]} is out of the range of numbers")
    return None


def _shallow(value: Any) -> bool:
    """Whether no part of the value is too deep for a recursive function."""
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return True
    return False


def _whole(value: Any) -> Any:
    """The value with each lone surrogate replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value
