"""YAML as people write it: what is read as it stands, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra import yaml_files
from infra.errors import InvalidInput


def read(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "one.yaml"
    path.write_bytes(content)
    return yaml_files.read(path, "own")


@pytest.mark.parametrize(
    ("content", "document"),
    [
        (b"\xef\xbb\xbfa: b\n", {"a": "b"}),
        (b"a:\r\n  b: 1\r\n", {"a": {"b": 1}}),
        (b"day: 2026-11-23\n", {"day": "2026-11-23"}),
        (b"at: 2026-11-23T10:00:00Z\n", {"at": "2026-11-23T10:00:00Z"}),
        (b"at: !!timestamp 2026-11-23\n", {"at": "2026-11-23"}),
        (b"time: 12:30\nratio: 1:30.5\n", {"time": "12:30", "ratio": "1:30.5"}),
        (b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        (b"a: &a [1]\nb: *a\n", {"a": [1], "b": [1]}),
        (b"", None),
    ],
)  # fmt: skip
def test_it_is_read_as_it_stands(tmp_path: Path, content: bytes, document: Any) -> None:
    assert read(tmp_path, content) == document


def doubled(levels: int, joined: str) -> bytes:
    """A document that its aliases multiply by ten at each level."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        ten = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {joined.format(ten)}")
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "content",
    [
        "a: b\n".encode("utf-16"),
        "a: b\n".encode("utf-32"),
        b"a: \xff\n",
        b"a:\n\tb: 1\n",
        b"a: 1\na: 2\n",
        b"a: &a [*a]\n",
        b"a: &a {b: *a}\n",
        doubled(30, "[{}]"),
        doubled(30, "{{<<: [{}]}}"),
        b"[" * 100_000,
        b"# " + b"x" * yaml_files.MOST_BYTES,
        b"a: 1\n---\nb: 2\n",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read(tmp_path, content)
    assert str(tmp_path / "one.yaml") in str(refusal.value)
    assert "\n" not in str(refusal.value)
