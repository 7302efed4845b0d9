"""On a narrow terminal less is shown, and nothing of it is cut."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.synthetic import sweep as synthetic
from experiments.cli import app, sweep

ROOT = Path(__file__).resolve().parents[2]


def said(width: int, *words: str) -> str:
    done = CliRunner().invoke(app, words, env={"COLUMNS": str(width)})
    assert done.exit_code == 0, done.output
    return done.stdout


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_is_whole_at_60_columns(
    monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...]
) -> None:
    runner = CliRunner()
    short, long = (runner.invoke(app, [*path, flag]).output for flag in ("-h", "--help"))
    assert short == long
    monkeypatch.setenv("COLUMNS", "60")
    help_names = {"help_option_names": ["-h", "--help"]}
    context = ALL[path].make_context("./steerlab", [], resilient_parsing=True, **help_names)
    text = ALL[path].get_help(context)
    assert "…" not in text
    assert not re.search(r"\w\.\.\.$", text, re.MULTILINE)
    for option in (one for one in ALL[path].params if not getattr(one, "hidden", False)):
        assert all(name in text for name in option.opts if name.startswith("-"))
    options = text.partition("Options:")[2].splitlines()
    assert max((len(line) for line in options), default=0) <= 60


def test_the_version_is_the_project_s() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert said(80, "--version") == f"steerlab {version[1]}\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("results")
    (directory / "records").mkdir()
    truth = {"baseline": 1.0, "rfs-plus": 1.3, "a-rather-long-name-of-somebody-s-own": 0.8}
    for record in synthetic(truth, replicas=(1, 16), blocks=8):
        (directory / f"records/run-{record.order}.json").write_text(record.model_dump_json())
    return directory


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("width", [60, 80])
def test_the_table_fits_and_no_number_is_cut(results: Path, width: int) -> None:
    table = said(width, "report", str(results)).rpartition("\n\n")[2].splitlines()
    assert len(table) == 7
    assert max(map(len, table)) <= width
    for line in table[1:]:
        assert re.search(r"\b(1|\d\.\d\dx)(\s|$)", line), "it has its ratio, whole"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_progress_is_one_line_that_is_not_cut(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(sweep, "err", console)
    monkeypatch.setattr(sweep, "drawn", lambda: True)
    with sweep._bar() as bar:
        bar.add_task(
            "block 19 rps-plus x 16", total=700, completed=123, last="last 1604 Mbit/s a pair"
        )
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    assert "123/700" in shown
    assert "rps-plus x 16" in shown


def test_a_plan_is_a_screen_and_all_of_it_for_who_asks() -> None:
    words = ("sweep", "--matrix", "study", "--plan")
    assert len(said(80, *words).splitlines()) < 24
    assert len(said(80, *words, "--verbose").splitlines()) > 400
    assert max(map(len, said(80, *words).splitlines())) <= 80
