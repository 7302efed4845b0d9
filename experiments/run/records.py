"""Run records on disk: whole or not at all, with the clients' raw output compressed beside them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis import files
from analysis.schema import Record
from infra import untrusted


def write(directory: Path, name: str, record: Record, raw: Sequence[bytes] = ()) -> Path:
    """Write `run-NAME.json` and any `run-NAME.traffic.json.gz`; the record's path is returned.

    The record is written last: if it exists, the other file of its run also exists.
    """
    files.folder(directory)
    if raw:
        compressed = gzip.compress(json.dumps([_traffic(one) for one in raw]).encode(), mtime=0)
        files.write(directory / f"run-{name}.traffic.json.gz", compressed)
    path = directory / f"run-{name}.json"
    files.write(path, (record.model_dump_json(indent=1) + "\n").encode())
    return path


def _traffic(raw: bytes) -> Any:
    """The output of a client: its JSON, or its text if it is not JSON."""
    try:
        return untrusted.parsed(raw)
    except ValueError:
        return raw.decode(errors="replace")
