"""Reads a directory of run records; names every file that is not one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from analysis.garbage import uncollected
from analysis.schema import Record


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

    A file that is empty, truncated, not UTF-8, foreign or against the schema becomes a fault and
    the others are read on; so does a second copy of one run. Raises OSError where `directory`
    is not a readable directory. A caller with faults ends with exit code 1.
    """
    loaded = Loaded()
    seen: dict[object, Path] = {}
    files = list(_files(directory))
    with uncollected():
        outcomes = [read(path) for path in files]
    for path, outcome in zip(files, outcomes, strict=True):
        if isinstance(outcome, Record):
            twin = seen.setdefault(_identity(outcome), path) if outcome.start else path
            if twin != path:
                outcome = Fault(path, None, f"is the same run as {twin.name}: left out")
        if isinstance(outcome, Fault):
            loaded.faults.append(outcome)
        else:
            loaded.records.append(outcome)
            loaded.paths.append(path)
    return loaded


def text_of(path: Path) -> bytes | Fault:
    """The bytes of a file of UTF-8 text, or what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Fault(path, None, f"cannot be read: {error.strerror}")
    if not data.strip():
        return Fault(path, 1, "is empty")
    undecodable = _undecodable_line(data)
    return Fault(path, undecodable, "is not UTF-8 text") if undecodable else data


def read(path: Path) -> Record | Fault:
    """One record, or what is wrong with its file."""
    data = text_of(path)
    if isinstance(data, Fault):
        return data
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        return _fault(path, error)


def _undecodable_line(data: bytes) -> int | None:
    """The line of the first byte that is not UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return None


def _files(directory: Path) -> Iterator[Path]:
    for folder in (directory, directory / "records"):
        if folder == directory or folder.is_dir():
            yield from sorted(
                path
                for path in folder.iterdir()
                if path.name.startswith("run-") and path.name.endswith(".json")
            )


def _identity(record: Record) -> object:
    return (record.plan, record.stack, record.configuration, record.replicas, record.path,
            record.block, record.order, record.start)  # fmt: skip


def _fault(path: Path, error: ValidationError) -> Fault:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason = str(first["ctx"]["error"])
        words = reason.split()
        line = int(words[words.index("line") + 1]) if "line" in words else None
        return Fault(path, line, f"is not JSON (truncated?): {reason}")
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return Fault(path, None, f"is not a run record: {where}: {first['msg']}{more}")
