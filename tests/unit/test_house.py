"""The layout keeps its word: who may import whom, a subject in every first line, short modules."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("analysis", "infra", "experiments", "docker", "benchmarks", "tests")
LONGEST = 420
# One file on purpose: it goes to a node as it is.
LONG = {"docker/steering/steer.py"}
# An arrow points to what a folder may import.
ARROWS = {
    "analysis": {"analysis"},
    "infra": {"infra"},
    "experiments": {"analysis", "experiments", "infra"},
}
# They have what the house has beside the standard library.
ALONE = ("docker/steering/steer.py", "experiments/host/proc_reader.py")


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The first names of all that a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("folder", ARROWS)
def test_arrows_point_one_way(folder: str) -> None:
    own = set(ARROWS)
    for path in modules(folder):
        wrong = (set(imported(path)) & own) - ARROWS[folder]
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


@pytest.mark.parametrize("name", ALONE)
def test_what_goes_to_nodes_needs_python_alone(name: str) -> None:
    assert set(imported(ROOT / name)) <= set(sys.stdlib_module_names)


def test_every_first_line_says_a_subject() -> None:
    for path in modules(*FOLDERS):
        text = path.read_text()
        if text:
            words = ast.get_docstring(ast.parse(text))
            assert words, f"{path.relative_to(ROOT)} does not say what it is about"
            first = next(line for line in text.splitlines() if not line.startswith("#!"))
            assert first.startswith('"""'), path


def test_modules_are_short() -> None:
    for path in modules("analysis", "infra", "experiments", "docker"):
        name = str(path.relative_to(ROOT))
        lines = len(path.read_text().splitlines())
        assert lines <= LONGEST or name in LONG, f"{name} has {lines} lines: split it"


def test_the_page_of_keys_is_the_model_s() -> None:
    from infra import reference

    assert (ROOT / "docs/configuration.md").read_text() == reference.page()


def test_the_page_of_the_record_is_the_model_s() -> None:
    from analysis import reference

    assert (ROOT / "docs/record.md").read_text() == reference.page()
