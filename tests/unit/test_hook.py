"""The entry that a stack's commands call: JSON out, also where it refuses; the exit code says which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.errors import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
GUARD = {
    "stack": "rfs-4", "node": "n", "hostname": "n", "address": "192.0.2.1", "boot_id": "b",
    "kubeconfig": "/no/such/file", "context": "", "image": "i:1", "ssh": None,
}  # fmt: skip

CLAIM = {"stack": "rfs-4", "kubeconfig": "/no/such/file", "context": ""}


def hook(words: str, stdin: str, left: Path) -> tuple[int, Any, str]:
    """Exit code, answer and stderr; `left` is where a refusal's code goes."""
    left.touch()
    done = subprocess.run(
        [sys.executable, "-I", ROOT / "experiments/__main__.py", *words.split()],
        input=stdin, capture_output=True, text=True, check=False, cwd="/",
        env={**os.environ, VARIABLE: str(left)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(
    ("words", "stdin", "code", "named"),
    [
        ("hook", "{}", 2, "measure, claim, release, check, secrets, apply, restore"),
        ("hook claim", "{}", 2, "claim"),
        ("hook claim", json.dumps(CLAIM), 3, "/no/such/file"),
        ("hook release", json.dumps(CLAIM), 3, "/no/such/file"),
        ("hook check", json.dumps(CLAIM), 3, "/no/such/file"),
        ("hook secrets", "{}", 2, "Secrets"),
        ("hook destroy", "{}", 2, "destroy"),
        ("hook measure", "", 2, "stdin"),
        ("hook measure", "{}", 2, "measurement"),
        ("hook restore", "[]", 2, "node"),
        ("hook apply", json.dumps({"guard": GUARD}), 2, "plan"),
        ("hook restore", json.dumps({"guard": GUARD}), 3, "/no/such/file"),
        # as the stacks of the first version call it when they go
        ("nodes restore --declared", json.dumps({"guard": GUARD}), 3, "/no/such/file"),
    ],
)
def test_a_refusal_is_an_object(
    tmp_path: Path, words: str, stdin: str, code: int, named: str
) -> None:
    ended, answer, said = hook(words, stdin, tmp_path / "left")
    assert (ended, answer["error"]["code"]) == (code, code)
    assert named in answer["error"]["message"]
    assert answer["error"]["message"] in said
    assert (tmp_path / "left").read_text() == f"{code}\n"
