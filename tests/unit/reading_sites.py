"""Where the code reads text that something else wrote, found in its syntax, and what runs there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("analysis", "infra", "experiments", "docker")

# Calls that take foreign text, or bytes, or make a number of it.
METHODS = {
    "communicate", "compose", "content", "decode", "decompress", "fromisoformat", "loads",
    "model_validate", "model_validate_json", "parsed", "pread", "read", "read_bytes", "read_text",
    "reader", "readline", "readlines", "readline_stdout", "read_stdout", "safe_load",
    "validate_json", "validate_python", "whole", "words",
}  # fmt: skip
MODULES = {"json": {"load"}, "yaml": {"load"}, "gzip": {"open"}, "os": {"open"}}
NUMBERS = {"int", "float"}


def sites() -> Iterator[tuple[str, str]]:
    """Each function that has such a call: its file and its qualified name."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for where in _in(ast.parse(path.read_text()), ""):
                yield name, where


def _in(node: ast.AST, within: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{within}.{child.name}" if within else child.name
            yield from dict.fromkeys(_in(child, inside))
        elif isinstance(child, ast.Call) and _reads(child):
            yield within or "<module>"
            yield from _in(child, within)
        else:
            yield from _in(child, within)


def _reads(call: ast.Call) -> bool:
    called = call.func
    if isinstance(called, ast.Name):
        constant = bool(call.args) and isinstance(call.args[0], ast.Constant)
        return called.id in NUMBERS and not constant
    if not isinstance(called, ast.Attribute):
        return False
    of = called.value.id if isinstance(called.value, ast.Name) else ""
    return called.attr in METHODS or called.attr in MODULES.get(of, ())


@contextmanager
def traced(found: set[tuple[str, str]]) -> Iterator[None]:
    """Add each function of this repository that the block runs."""

    def seen(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(ROOT)):
            name = frame.f_code.co_qualname.replace(".<locals>", "")
            found.add((str(Path(file).relative_to(ROOT)), name))

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        yield
    finally:
        sys.setprofile(before)
