"""Run records on disk: whole or not at all, with iperf3's raw JSON compressed beside them."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from analysis.schema import Record


def write(directory: Path, name: str, record: Record, raw: Sequence[bytes]) -> Path:
    """Write `run-NAME.json` and `run-NAME.iperf3.json.gz`; the record's path is returned.

    The record is the last to appear: where it stands, everything of its run does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    traffic = [
        json.loads(text) if _is_json(text) else text.decode(errors="replace") for text in raw
    ]
    compressed = gzip.compress(json.dumps(traffic).encode(), mtime=0)
    atomically(directory / f"run-{name}.iperf3.json.gz", compressed)
    path = directory / f"run-{name}.json"
    atomically(path, (record.model_dump_json(indent=1) + "\n").encode())
    return path


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a power cut, finds the old one or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
