"""Reads a directory of run records and reports every other file.

The directory is not trusted: a file is read only if it is a regular file inside the directory,
and only up to the size that a record can have.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from analysis.garbage import uncollected
from analysis.schema import Record

# Largest file that is read, bytes: a record of 1,024 pairs on ten nodes of 256 cores has 3 MB.
LARGEST = 4 * 2**20
# Limit of faults, above which the message has their number instead of the first one.
_MOST_FAULTS = 100
# The window is about as long as the measured seconds; a busy machine reads its end late.
_LONGEST_WINDOW = 2.0
_LATEST_EDGE = 10.0
# Keys of one object: a NIC's interrupts and queues have some thousands.
_MOST_KEYS = 10_000


@dataclass(frozen=True)
class Fault:
    """One file that could not be used: which, at what line where there is one, and why."""

    file: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        where = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}"


@dataclass(frozen=True)
class Loaded:
    """Records, the file of each (same length and order), and the faults of the other files."""

    records: list[Record] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)


def load(directory: Path) -> Loaded:
    """The records `run-*.json` directly under `directory` and its `records/`, sorted by name.

    A file that is empty, truncated, not UTF-8, too large, not a regular file, outside of
    `directory` or against the schema becomes a fault, and so does a second copy of one run; the
    other files are read. Raises OSError where `directory` is not a readable directory. A caller
    with faults ends with exit code 1.
    """
    loaded = Loaded()
    seen: dict[object, Path] = {}
    files = list(_files(directory))
    with uncollected():
        outcomes = [leads_out(path, directory) or read(path) for path in files]
    for path, outcome in zip(files, outcomes, strict=True):
        if isinstance(outcome, Record):
            twin = seen.setdefault(_identity(outcome), path)
            if twin != path:
                outcome = Fault(path, None, f"is the same run as {twin.name}, so it is left out")
        if isinstance(outcome, Fault):
            loaded.faults.append(outcome)
        else:
            loaded.records.append(outcome)
            loaded.paths.append(path)
    return loaded


def text_of(path: Path, largest: int = LARGEST) -> bytes | Fault:
    """The bytes of a file of UTF-8 text, or its fault."""
    try:
        # opening a FIFO or a device must not wait for its other end
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Fault(path, None, "is not a regular file")
            data = file.read(largest + 1)
    except OSError as error:
        return Fault(path, None, f"cannot be read: {error.strerror}")
    if len(data) > largest:
        return Fault(
            path, None, f"is larger than {largest // 2**20} MiB, the most that a record has"
        )
    if not data.strip():
        return Fault(path, 1, "is empty")
    undecodable = _undecodable_line(data)
    return Fault(path, undecodable, "is not UTF-8 text") if undecodable else data


def read(path: Path) -> Record | Fault:
    """The record of a file, or its fault."""
    data = text_of(path)
    if isinstance(data, Fault):
        return data
    try:
        json.loads(data, object_pairs_hook=_plain_object)
        record = Record.model_validate_json(data)
    except json.JSONDecodeError as error:
        return Fault(path, error.lineno, f"is not JSON (truncated?): {error.msg}")
    except RecursionError:
        return Fault(path, None, "is not a run record: too deeply nested")
    except ValidationError as error:
        return _fault(path, error)
    except ValueError as error:
        return Fault(path, None, f"is not a run record: {error}")
    wrong = _contradiction(record)
    return Fault(path, None, f"contradicts itself: {wrong}") if wrong else record


def _plain_object(pairs: list[tuple[str, object]]) -> None:
    """Refuse an object with a repeated key, whose value is ambiguous, or with too many
    keys, which take more memory to refuse one by one than the file has."""
    if len(pairs) > _MOST_KEYS:
        raise ValueError(f"an object has more than {_MOST_KEYS} keys")
    if len(dict(pairs)) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {key!r} is repeated in one object")


def _undecodable_line(data: bytes) -> int | None:
    """The line of the first byte that is not UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return None


def leads_out(path: Path, directory: Path) -> Fault | None:
    """The fault of a symbolic link that leads out of the directory, or to nothing."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "a loop of symbolic links"
        return Fault(path, None, f"cannot be read: {reason}")
    if real.is_relative_to(directory.resolve()):
        return None
    return Fault(path, None, f"leads out of {directory}, to {real}; copy the file instead")


def _files(directory: Path) -> Iterator[Path]:
    for folder in (directory, directory / "records"):
        if folder == directory or folder.is_dir():
            yield from sorted(
                path
                for path in folder.iterdir()
                if path.name.startswith("run-") and path.name.endswith(".json")
            )


def _identity(record: Record) -> object:
    """The key of a run: its start in its stack, or the whole record where it has no start."""
    if record.start is None:
        return record.model_dump_json()
    return (record.stack, record.configuration, record.replicas, record.path, record.start)


def _contradiction(record: Record) -> str:
    """How a record contradicts itself; empty where it does not."""
    twice = [
        f"pair {index}"
        for index, count in Counter(p.index for p in record.pairs).items()
        if count > 1
    ] + [
        f"core {core} of {node}"
        for (node, core), count in Counter((c.node, c.core) for c in record.cores).items()
        if count > 1
    ]
    if record.valid and record.reasons:
        return f"it is valid, but has the reason {record.reasons[0]!r}"
    if twice:
        return f"{twice[0]} appears twice"
    if record.window is not None and not (
        record.duration / _LONGEST_WINDOW
        <= record.window
        <= record.duration * _LONGEST_WINDOW + _LATEST_EDGE
    ):
        return f"its window of {record.window:g} s does not fit {record.duration:g} s measured"
    return ""


def _fault(path: Path, error: ValidationError) -> Fault:
    if error.error_count() > _MOST_FAULTS:
        # to list them all takes more memory than the file
        return Fault(path, None, f"is not a run record: {error.error_count()} faults")
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return Fault(path, None, f"is not a run record: {where}: {first['msg']}{more}")
