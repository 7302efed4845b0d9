"""Records on disk: whole or not at all, and the same bytes from the same run."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from analysis import files
from analysis.load import load
from analysis.schema import Record
from benchmarks.synthetic import sweep
from experiments.run import records


@pytest.fixture
def record() -> Record:
    return sweep({"baseline": 1.0}, blocks=1)[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_record_and_its_traffic_have_the_runs_name(tmp_path: Path, record: Record) -> None:
    raw = [b'{"end": {"x": 1}}', b"", b"iperf3: \xff broken"]
    path = records.write(tmp_path / "records", "00003-rfs-4-overlay", record, raw)
    assert path == tmp_path / "records/run-00003-rfs-4-overlay.json"
    assert names(path.parent) == [
        "run-00003-rfs-4-overlay.json",
        "run-00003-rfs-4-overlay.traffic.json.gz",
    ]
    with gzip.open(path.with_suffix(".traffic.json.gz")) as traffic:
        assert json.load(traffic) == [{"end": {"x": 1}}, "", "iperf3: � broken"]
    assert load(tmp_path).records == [record]
    assert path.stat().st_mode & 0o777 == 0o644  # written by root, read by its user


def test_the_same_run_is_the_same_bytes(tmp_path: Path, record: Record) -> None:
    first, second = (records.write(tmp_path / at, "x", record, [b"{}"]) for at in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    packed = [(tmp_path / at / "run-x.traffic.json.gz").read_bytes() for at in ("a", "b")]
    assert packed[0] == packed[1]
    assert packed[0][4:8] == bytes(4)  # gzip's field for the time


def full(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(*_: Any, **__: Any) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (os, "rename"), (os, "fchmod")])
@pytest.mark.parametrize(("fault", "error"), [(full, OSError), (interrupted, KeyboardInterrupt)])
def test_a_write_that_fails_leaves_nothing_and_keeps_the_old(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    fault: Any,
    error: type[BaseException],
) -> None:
    kept = tmp_path / "kept"
    files.write(kept, b"old")
    monkeypatch.setattr(owner, name, fault)
    for path in (kept, tmp_path / "new"):
        with pytest.raises(error):
            files.write(path, b"new")
    assert names(tmp_path) == ["kept"]
    assert kept.read_bytes() == b"old"


def test_the_record_is_the_last_to_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    """Without room for its traffic a run has no record, and so is made again."""
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"):
        records.write(tmp_path, "x", record, [b"{}"])
    assert names(tmp_path) == []

    monkeypatch.undo()
    rename = os.rename

    def only_traffic(source: str, target: str, **folders: int) -> None:
        return rename(source, target, **folders) if target.endswith(".gz") else full()

    monkeypatch.setattr(os, "rename", only_traffic)
    with pytest.raises(OSError, match="No space"):
        records.write(tmp_path, "x", record, [b"{}"])
    assert names(tmp_path) == ["run-x.traffic.json.gz"]
    assert load(tmp_path).records == []
