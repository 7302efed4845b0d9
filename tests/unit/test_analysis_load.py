"""Reading records: what is wrong is named, the rest is read."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import load as loading
from analysis.load import Fault, Loaded, load, read
from analysis.schema import Record
from benchmarks.synthetic import sweep


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for number, record in enumerate(sweep({"baseline": 1.0, "rps": 1.1}, blocks=2)):
        folder = tmp_path if number % 2 else tmp_path / "records"
        folder.mkdir(exist_ok=True)
        (folder / f"run-{number}.json").write_text(record.model_dump_json(indent=1))
    return tmp_path


def test_reads_both_places_and_nothing_else(good: Path) -> None:
    (good / "plan.json").write_text("{}")
    (good / "run-1.iperf3.json.gz").write_bytes(b"\x1f\x8b")
    (good / "raw").mkdir()
    (good / "raw" / "run-9.json").write_text("{}")
    loaded = load(good)
    assert len(loaded.records) == len(loaded.paths) == 4
    assert loaded.faults == []
    for record, path in zip(loaded.records, loaded.paths, strict=True):
        assert Record.model_validate_json(path.read_text()) == record


TEXT = sweep({"baseline": 1.0}, blocks=1)[0].model_dump_json(indent=1)


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"", 1, "is empty"),
        (b" \n\n", 1, "is empty"),
        (TEXT[: len(TEXT) // 2].encode(), TEXT[: len(TEXT) // 2].count("\n") + 1, "not JSON"),
        (b'{\n"valid": true,\n"stack": "\xff"\n}', 3, "not UTF-8"),
        (b"iperf Done.\n", 1, "not JSON"),
        (b"[1, 2]", None, "not a run record"),
        (b'{"start": {}, "end": {}}', None, "not a run record"),
        (TEXT.replace('"replicas": 4', '"replicas": 0').encode(), None, "replicas"),
        (TEXT.replace('"valid": true', '"valid": true, "x": 1').encode(), None, "x"),
        (TEXT.replace('"schema_version": 2', '"schema_version": 3').encode(), None, "schema"),
        (TEXT.replace('"duration": 5.0', '"duration": NaN').encode(), None, "duration"),
    ],
)
def test_names_what_is_wrong_and_reads_on(
    good: Path, data: bytes, line: int | None, words: str
) -> None:
    (good / "run-bad.json").write_bytes(data)
    loaded = load(good)
    assert len(loaded.records) == 4
    (fault,) = loaded.faults
    assert fault.file.name == "run-bad.json"
    assert fault.line == line
    assert words in fault.message
    assert "run-bad.json" in str(fault)


def test_a_folder_in_place_of_a_record_is_named(good: Path) -> None:
    (good / "run-x.json").mkdir()
    (fault,) = load(good).faults
    assert fault.file.name == "run-x.json"


def test_a_copy_of_a_run_counts_once(good: Path) -> None:
    (good / "run-copy.json").write_bytes((good / "run-1.json").read_bytes())
    loaded = load(good)
    assert len(loaded.records) == 4
    assert "same run as" in loaded.faults[0].message


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_null_is_read_as_null(tmp_path: Path) -> None:
    document = json.loads(TEXT)
    document["pairs"][0]["values"]["bitrate_mbps"] = None
    (tmp_path / "run-1.json").write_text(json.dumps(document))
    assert load(tmp_path).records[0].pairs[0].values["bitrate_mbps"] is None


@given(cut=st.integers(0, len(TEXT) - 2))
def test_no_truncation_passes(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "run-1.json"
    path.write_text(TEXT[:cut])
    assert isinstance(read(path), Fault)


def link_out(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def loop(path: Path) -> None:
    path.symlink_to(path)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def of(**changes: object) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps({**json.loads(TEXT), **changes})) and None


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content) and None


def pair(**values: object) -> dict[str, object]:
    return {"index": 1, "values": {"bitrate_mbps": 1.0, **values}}


HOSTILE: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link out": link_out,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "loop": loop,
    "huge": huge,
    "huge integer": of(pairs=[pair(retransmits=10**4000)]),
    "integer beyond 64 bits": of(pairs=[pair(retransmits=2**64)]),
    "huge index": of(pairs=[{**pair(), "index": 10**30}]),
    "huge rate": of(pairs=[pair(bitrate_mbps=1e300)]),
    "huge duration": of(duration=1e300),
    "deep": text("[" * 2_000_000),
    "deep inside": text(TEXT[:-2] + ', "x": ' + '{"x":' * 300_000),
    "many faults": of(reasons=[1] * 1_000_000),
    "many faults in objects": of(cores=[{}] * 1_000_000),
    "many unknown keys": of(**{f"{number:x}": 1 for number in range(300_000)}),
    "many wrong values": of(
        confounders_before={"xps": {f"{number:x}": 1 for number in range(300_000)}}
    ),
    "lone surrogate": text(TEXT.replace('"baseline"', r'"\ud800"')),
}

# Prints the faults, and the memory that reading took, KiB.
READ = r"""
import re, sys
from pathlib import Path
from typing import Any
from analysis.load import load
loaded = load(Path(sys.argv[1]))
print(len(loaded.records), *(fault.file.name for fault in loaded.faults))
print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_named_and_left_out(good: Path, kind: str) -> None:
    HOSTILE[kind](good / "run-bad.json")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(good)],
        cwd=Path(loading.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told, memory = done.stdout.splitlines()
    assert told == "4 run-bad.json"
    assert int(memory) < 200 * 1024


def test_a_folder_of_records_elsewhere_is_named(
    good: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in (good / "records").iterdir():
        path.rename(elsewhere / path.name)
    (good / "records").rmdir()
    (good / "records").symlink_to(elsewhere)
    loaded = load(good)
    assert len(loaded.records) == 2
    assert all("leads out of" in fault.message for fault in loaded.faults)
    assert len(loaded.faults) == 2


def test_a_link_within_the_directory_is_read(good: Path) -> None:
    (good / "elsewhere").mkdir()
    (good / "run-1.json").rename(good / "elsewhere/it")
    (good / "run-1.json").symlink_to("elsewhere/it")
    assert load(good).faults == []


def written(directory: Path, *documents: dict[str, Any] | str) -> Loaded:
    (directory / "records").mkdir(parents=True)
    for number, document in enumerate(documents):
        text = document if isinstance(document, str) else json.dumps(document)
        (directory / "records" / f"run-{number:05d}.json").write_text(text)
    return load(directory)


def document(**changes: Any) -> dict[str, Any]:
    (record, *_) = sweep({"baseline": 1}, blocks=1)
    return json.loads(record.model_dump_json()) | changes


def test_copies_of_a_run_count_once_with_a_start_and_without(tmp_path: Path) -> None:
    for number, start in enumerate((None, "2025-01-01T00:00:00Z")):
        one = document(start=start)
        loaded = written(tmp_path / str(number), one, one, one)
        assert (len(loaded.records), len(loaded.faults)) == (1, 2)
        assert "run-00000.json" in str(loaded.faults[0])
    renumbered = [document(block=number, order=number) for number in range(3)]
    assert len(written(tmp_path / "renumbered", *renumbered).records) == 1


def twice(field: str) -> dict[str, Any]:
    one = document()
    return one | {field: [one[field][0], *one[field][:-1]]}


@pytest.mark.parametrize(
    "wrong",
    [
        document(reasons=["iperf3 died"]),
        twice("pairs"),
        twice("cores"),
        document(window=0.5, duration=30),
        document(window=300, duration=30),
        json.dumps(document())[:-1] + ', "configuration": "rps"}',
        json.dumps(document()).replace('"index": 1', '"index": 1, "index": 1', 1),
    ],
)
def test_a_record_that_contradicts_itself_is_named_and_left_out(
    wrong: dict[str, Any] | str, tmp_path: Path
) -> None:
    good = document(configuration="rfs", window=5.01)
    loaded = written(tmp_path / "results", wrong, good)
    assert [record.configuration for record in loaded.records] == ["rfs"]
    assert [fault.file.name for fault in loaded.faults] == ["run-00000.json"]


@pytest.mark.parametrize("change", [{"duration": 1e-300}, {"window": 1e-320}])
def test_what_no_clock_measures_is_no_record(change: dict[str, float], tmp_path: Path) -> None:
    assert not written(tmp_path / "results", document(**change)).records


@pytest.mark.parametrize("bitrate", [1e-310, 1e-9])
def test_a_bitrate_below_a_bit_a_second_is_none(bitrate: float, tmp_path: Path) -> None:
    one = document()
    for pair in one["pairs"]:
        pair["values"]["bitrate_mbps"] = bitrate
    assert not written(tmp_path / "results", one).records
