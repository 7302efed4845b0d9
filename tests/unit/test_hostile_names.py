"""Names and texts that records carry reach reports, tables and figures as text, nothing else."""

from __future__ import annotations

import csv
import os
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import files
from analysis.load import Fault
from analysis.plaintext import one_line, visible
from analysis.report import grid
from analysis.report.grid import Table
from analysis.report.pages import write_report
from analysis.schema import Record
from analysis.summary import summarise
from benchmarks.synthetic import sweep

NAMES = (
    "$x^2$ $\\frac{a}{b}$",
    "_hidden",
    "=cmd|'/C calc'!A0",
    "<script>alert(1)</script>",
    '" onload="alert(1)',
    "[a](javascript:alert(1))",
    "```\n# heading",
    "\x1b[31mred\x1b[0m",
    "a|b",
    "*bold* `code` [bold]rich[/]",
    "right\u202eleft",
)


@pytest.fixture(scope="module")
def hostile() -> list[Record]:
    """A sweep whose configuration, machine, node and reasons are all such names."""
    records = []
    for position, name in enumerate(NAMES):
        for record in sweep({"baseline": 1.0, "other": 1.3}, blocks=3, seed=position):
            called = name if record.configuration == "other" else "baseline"
            machine = record.machine.model_copy(update={"kernel": name, "cpu": name})
            cores = [core.model_copy(update={"node": name}) for core in record.cores]
            records.append(
                record.model_copy(
                    update={"configuration": called, "machine": machine, "cores": cores}
                )
            )
    records[0] = records[0].model_copy(update={"valid": False, "reasons": list(NAMES)})
    return records


@pytest.fixture(scope="module")
def made(hostile: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hostile")
    fault = Fault(Path("run-\udcff\x1b.json"), None, "```\n# not a record")
    write_report(hostile, summarise(hostile), directory, faults=[fault], reproduce="a\n```\nb")
    return directory


def test_no_control_character_is_written(made: Path) -> None:
    for name in (
        "report.html",
        "report.md",
        *(f"plots/{p.name}" for p in made.glob("plots/*.svg")),
    ):
        text = (made / name).read_text(encoding="utf-8")
        assert visible(text) == text, name


def test_the_page_has_no_element_of_a_name(made: Path) -> None:
    text = (made / "report.html").read_text(encoding="utf-8")
    page = HTMLParser()
    found: list[str] = []
    page.handle_starttag = lambda tag, attributes: found.extend(  # type: ignore[method-assign]
        [tag, *(name for name, _ in attributes)]
    )
    page.feed(text)
    assert found.count("script") == 1  # the page's own
    assert not {"onload", "a](javascript:alert(1))"} & set(found)
    assert "&lt;script&gt;" in text


def test_a_figure_shows_names_as_they_are(made: Path) -> None:
    text = " ".join(ET.parse(made / "plots/values.svg").getroot().itertext())  # noqa: S314
    for name in NAMES:
        assert one_line(name) in text


@pytest.mark.usefixtures("sketched")
def test_markdown_has_its_own_headings_alone(made: Path, tmp_path: Path) -> None:
    text = (made / "report.md").read_text(encoding="utf-8")
    plain = sweep(dict.fromkeys(("baseline", "a", "b", "c"), 1.0), blocks=3)
    plain[0] = plain[0].model_copy(update={"valid": False, "reasons": ["x"]})
    fault = Fault(Path("x"), None, "x")
    write_report(plain, summarise(plain), tmp_path, faults=[fault], reproduce="x")
    own = {line for line in (tmp_path / "report.md").read_text().splitlines() if line[:1] == "#"}
    headings = {line for line in text.splitlines() if line[:1] == "#"}
    assert headings - own - {"# heading"} <= {"## Caveats", "## Invalid runs"}
    assert [line for line in text.splitlines() if line.startswith("# ")][1:] == []
    assert "](javascript" not in text
    assert "\\*bold\\* \\`code\\`" in text
    fences = [line for line in text.splitlines() if line.startswith("```")]
    assert fences == ["````", "```", "````"]  # the middle one is the text's


def test_a_table_keeps_its_columns() -> None:
    table = Table(("a", "b"), tuple((name, "1") for name in NAMES), (False, True), (0, 0))
    lines = grid.markdown(table).splitlines()
    assert len(lines) == len(NAMES) + 2
    for line in lines:
        assert line.replace("\\|", "").count("|") == 3


def test_csv_has_no_formula(made: Path) -> None:
    for path in made.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.reader(stream):
                assert not [cell for cell in row if cell.startswith(("=", "+", "@"))], path.name


def test_numbers_stay_numbers(made: Path) -> None:
    with (made / "comparisons.csv").open(encoding="utf-8", newline="") as stream:
        assert all(float(row["ratio"]) > 0 for row in csv.DictReader(stream) if row["ratio"])


@pytest.mark.parametrize(
    "name", ["report.html", "report.md", "report.csv", "comparisons.csv", "plots/values.svg"]
)
def test_a_link_in_the_results_is_replaced_not_followed(
    hostile: list[Record], tmp_path: Path, name: str
) -> None:
    precious, results = tmp_path / "precious", tmp_path / "results"
    precious.write_text("mine")
    (results / "plots").mkdir(parents=True)
    (results / name).symlink_to(precious)
    write_report(hostile[:12], summarise(hostile[:12]), results)
    assert precious.read_text() == "mine"
    assert not (results / name).is_symlink()


def test_a_folder_in_the_results_that_is_a_link_is_refused(
    hostile: list[Record], tmp_path: Path
) -> None:
    elsewhere, results = tmp_path / "elsewhere", tmp_path / "results"
    elsewhere.mkdir()
    results.mkdir()
    (results / "plots").symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        write_report(hostile[:12], summarise(hostile[:12]), results)
    assert list(elsewhere.iterdir()) == []


def test_the_folder_that_is_named_may_be_a_link(hostile: list[Record], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    write_report(hostile[:12], summarise(hostile[:12]), tmp_path / "results")
    assert (tmp_path / "disk" / "report.html").is_file()


def test_a_file_of_results_is_readable_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write(tmp_path / "x", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
