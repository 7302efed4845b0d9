"""The layout keeps its word: who may import whom, a subject in every first line, short modules."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("agent", "analysis", "infra", "experiments", "docker", "benchmarks", "tests")
LONGEST = 420
# Each room may import those of the lines above its own. A package's own modules are its hall.
ROOMS = [
    ["agent"],
    ["infra", "analysis"],
    ["infra.traffic"],
    ["infra.lab", "infra.kubernetes", "analysis.export", "analysis.plots", "analysis.report"],
    ["analysis.study"],
    ["experiments"],
    ["experiments.engines", "experiments.host"],
    ["experiments.targets"],
    ["experiments.run", "experiments.rollout"],
    ["experiments.cli"],
]
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
# The two whose own modules lead into their rooms, and a report that has plots.
DOORS = {
    ("infra", "infra.lab"),
    ("infra", "infra.kubernetes"),
    ("infra", "infra.traffic"),
    ("experiments", "experiments.cli"),
    ("analysis.report", "analysis.plots"),
}
# They have what the house has beside the standard library.
ALONE = [
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "agent").glob("*.py"))),
    "infra/traffic/pingpong.py",
]
SENT_ALONE = ("agent/procstat.py", "infra/traffic/pingpong.py")


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """All that a module imports, also inside functions: `package.module.name` for a from-import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def graph() -> dict[str, set[str]]:
    """Which of our modules each of them imports."""
    paths = {name_of(path): path for path in modules("agent", "analysis", "infra", "experiments")}

    def ours(name: str) -> str | None:
        return next((one for one in (name, name.rpartition(".")[0]) if one in paths), None)

    return {
        name: {found for each in imported(path) if (found := ours(each))} - {name}
        for name, path in paths.items()
    }


def room(module: str) -> str:
    return next(
        one for one in (".".join(module.split(".")[:2]), module.split(".")[0]) if one in LEVELS
    )


def test_no_module_imports_itself_in_a_circle() -> None:
    graphlib.TopologicalSorter(graph()).prepare()


def test_arrows_point_one_way() -> None:
    arrows = {(room(a), room(b)) for a, others in graph().items() for b in others}
    wrong = {(a, b) for a, b in arrows - DOORS if a != b and LEVELS[a] <= LEVELS[b]}
    assert not wrong
    assert not {(a, b) for a, b in arrows if b.startswith("analysis") and a.startswith("infra")}
    assert not {(a, b) for a, b in arrows if b.startswith("infra") and a.startswith("analysis")}


def test_every_folder_is_a_room() -> None:
    folders = {
        f"{folder}.{path.name}"
        for folder in ("agent", "analysis", "infra", "experiments")
        for path in (ROOT / folder).iterdir()
        if (path / "__init__.py").exists()
    }
    assert folders == {room for room in LEVELS if "." in room}


@pytest.mark.parametrize("name", ALONE)
def test_what_goes_to_nodes_needs_python_alone(name: str) -> None:
    found = {module.partition(".")[0] for module in imported(ROOT / name)}
    own = set() if name in SENT_ALONE else {"agent"}
    assert found <= sys.stdlib_module_names | own


def test_every_first_line_says_a_subject() -> None:
    for path in modules(*FOLDERS):
        text = path.read_text()
        if text:
            words = ast.get_docstring(ast.parse(text))
            assert words, f"{path.relative_to(ROOT)} does not say what it is about"
            first = next(line for line in text.splitlines() if not line.startswith("#!"))
            assert first.startswith('"""'), path


def test_modules_are_short() -> None:
    for path in modules("agent", "analysis", "infra", "experiments", "docker"):
        name = str(path.relative_to(ROOT))
        lines = len(path.read_text().splitlines())
        assert lines <= LONGEST, f"{name} has {lines} lines: split it"


def test_the_page_of_keys_is_the_model_s() -> None:
    from infra import reference

    assert (ROOT / "docs/configuration.md").read_text() == reference.page()


def test_the_page_of_the_record_is_the_model_s() -> None:
    from analysis import reference

    assert (ROOT / "docs/record.md").read_text() == reference.page()


def test_the_table_of_knobs_is_the_registry_s() -> None:
    from experiments.host import reference

    text = reference.PAGE.read_text()
    assert reference.page(text) == text
    assert all(f"| `{name}` |" in text for name in reference.KNOBS)


def test_the_table_of_targets_is_that_of_the_benchmarks() -> None:
    """`python -m benchmarks.targets` writes it again."""
    from benchmarks import targets

    text = targets.PAGE.read_text()
    assert targets.page(text) == text
    missed = [one for one in targets.TARGETS if one.result and not one.result.reached]
    assert all(one.missed for one in missed), "explain why it was missed"


def test_the_version_is_one() -> None:
    """Of the program, of the package and of the newest entry of the changelog."""
    import re
    import tomllib

    from experiments import VERSION

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == VERSION
