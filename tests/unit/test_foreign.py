"""Files and JSON of others: plain files alone, within bounds, and values that can be worked on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from infra import cores, untrusted
from infra.errors import PrerequisiteMissing


@pytest.mark.parametrize(
    "document",
    ["", "nul", "NaN", "[-Infinity]", "1e999", "9" * 21, "-" + "9" * 21, "[" * 5000, b"\xff",
     '{"a":' * 101 + "1" + "}" * 101, "[" + "1," * untrusted.MOST_VALUES + "1]",
     b" " * (untrusted.MOST_BYTES + 1), '"\t"', "{'a': 1}", "1 2"],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_json_is_a_value_error(document: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        untrusted.parsed(document)


@pytest.mark.parametrize(
    ("document", "value"),
    [("null", None), (b"\xef\xbb\xbf[1]", [1]), ("-18446744073709551615", -(2**64) + 1),
     ('"\\ud83d\\ude00"', "\U0001f600"), ('{"\\ud800": ["\\udcff"]}', {"\ufffd": ["\ufffd"]}),
     ('"\udcff"', "\ufffd"), ("[" * 100 + "]" * 100, ...)],
    ids=range(7),
)  # fmt: skip
def test_every_value_can_be_written_again(document: str | bytes, value: Any) -> None:
    read = untrusted.parsed(document)
    assert value is ... or read == value
    json.dumps(read, ensure_ascii=False).encode()
    assert repr(read)


def test_a_number_that_is_none_costs_no_other_value() -> None:
    read = untrusted.parsed(f"[NaN, -Infinity, 1e999, {'9' * 5000}, 1, 2.5]", strict=False)
    assert read == [None, None, None, None, 1, 2.5]


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"12345")
    assert untrusted.content(tmp_path / "large", 5) == b"12345"
    descriptors = Path("/proc/self/fd")
    before = len([*descriptors.iterdir()])
    for path in (tmp_path / "fifo", tmp_path / "loop", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=str(path)):
            untrusted.content(path)
    with pytest.raises(OSError, match="larger than 4 bytes"):
        untrusted.content(tmp_path / "large", 4)
    with pytest.raises(FileNotFoundError):
        untrusted.content(tmp_path / "none")
    assert len([*descriptors.iterdir()]) == before


@pytest.mark.parametrize("word", ["", "-1", "+1", " 1", "1_0", "²", "٣", "0x1", "1.0", "9" * 21])
def test_a_counter_is_decimal_digits(word: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        untrusted.whole(word)


def test_what_a_parser_stumbles_on_is_said_with_its_place() -> None:
    words = "/proc/stat cannot be read: 'x' is not a whole number"
    with pytest.raises(PrerequisiteMissing, match=words), untrusted.reading("/proc/stat"):
        untrusted.whole("x")
    with pytest.raises(PrerequisiteMissing, match="'a' is missing"), untrusted.reading("it"):
        {}["a"]


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3,8\n", [0, 1, 2, 3, 8]), ("\n", []), ("(null)\n", []), ("8191", [8191])],
)
def test_a_list_of_cpus(text: str, cpus: list[int]) -> None:
    assert cores.listed(text) == cpus


@pytest.mark.parametrize("text", ["0-", "-1", "3-1", "0-8192", "0-999999999999", "0,,1", "a", "²"])
def test_no_list_of_cpus(text: str) -> None:
    with pytest.raises(PrerequisiteMissing, match="the list of CPUs cannot be read"):
        cores.listed(text)
