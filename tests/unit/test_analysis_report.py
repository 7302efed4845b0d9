"""The report as files: self-contained, well-formed, and saying the same everywhere."""

import csv
import itertools
import re
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis.load import Fault
from analysis.plots.style import COLOURS, HATCHES, MARKERS, looks
from analysis.report.cells import Table, aligned, markdown, states
from analysis.report.pages import ReportFiles, write_report
from analysis.schema import Record
from analysis.summary import Summary, summarise
from benchmarks.synthetic import sweep

RATIOS = {"baseline": 1.0, "rfs": 1.3, "rps-<b>": 1.1}
PLOTS = {
    "against-baseline", "values", "overlay-host", "softirq-heatmap", "softirq-bars",
    "idle-heatmap", "idle-bars", "softirq-cost", "run-sequence",
}  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[Record]:
    made = sweep(RATIOS, replicas=(1, 4), paths={"overlay": 1, "host": 1.5})
    made[3] = made[3].model_copy(update={"valid": False, "reasons": ["a|b <died>"]})
    return made


@pytest.fixture(scope="module")
def summary(records: list[Record]) -> Summary:
    return summarise(records)


@pytest.fixture(scope="module")
def files(
    records: list[Record], summary: Summary, tmp_path_factory: pytest.TempPathFactory
) -> ReportFiles:
    directory = tmp_path_factory.mktemp("report")
    fault = Fault(Path("run-x.json"), 3, "is not <JSON>")
    return write_report(
        records, summary, directory, faults=[fault], reproduce="sweep --seed 0", title="A & B"
    )


class Page(HTMLParser):
    """What a test asks of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids[str(found["id"])] += 1

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(files: ReportFiles) -> Page:
    return Page(files.html.read_text(encoding="utf-8"))


def test_page_asks_the_network_for_nothing(files: ReportFiles, page: Page) -> None:
    assert not page.every("script") + page.every("link") + page.every("iframe") + page.every("img")
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action"):
            value = attrs.get(name) or ""
            inside = ("#", "plots/", "data:image/png;base64,")
            assert value.startswith(inside) or not value, (tag, name, value)
    text = files.html.read_text(encoding="utf-8")
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_page_can_be_read_by_machines(page: Page) -> None:
    assert page.every("html")[0].get("lang") == "en"
    assert any(attrs.get("name") == "viewport" for attrs in page.every("meta"))
    assert max(page.ids.values()) == 1
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    for svg in page.every("svg"):
        assert svg.get("role") == "img"
        assert svg.get("aria-label")
    for heading in page.every("th"):
        assert heading.get("scope") in ("col", "row")


def test_every_reference_inside_the_page_has_its_target(files: ReportFiles, page: Page) -> None:
    text = files.html.read_text(encoding="utf-8")
    for target in re.findall(r'(?:url\(|href=")#([^)"]+)', text):
        assert page.ids[target] == 1, target


def test_page_holds_every_part_and_escapes_what_it_quotes(
    files: ReportFiles, summary: Summary, page: Page
) -> None:
    text = files.html.read_text(encoding="utf-8")
    assert "A &amp; B" in text
    assert "is not &lt;JSON&gt;" in text
    assert "a|b &lt;died&gt;" in text
    assert "rps-&lt;b&gt;" in text
    assert "<b>" not in text
    assert "sweep --seed 0" in text
    assert len(page.every("svg")) == len(PLOTS)
    assert text.index('class="headline"') < text.index("<svg")
    for part in ("Figures", "Results", "Other metrics", "Against the baseline", "Against each other",
                 "Overlay over host network", "Validity of runs", "Invalid runs", "Warnings",
                 "Machine", "How to reproduce"):  # fmt: skip
        if part != "Warnings" or summary.warnings:
            assert re.search(rf"<h2[^>]*>{part}</h2>", text), part


def test_markdown_says_the_same(files: ReportFiles, summary: Summary) -> None:
    text = files.markdown.read_text(encoding="utf-8")
    assert text.startswith("# A & B\n")
    for sentence in summary.verdict:
        assert sentence.replace("<", "&lt;") in text
    assert "a\\|b &lt;died>" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (files.markdown.parent / line[line.index("(") + 1 : -1]).is_file()


def test_csv_has_every_run_and_every_comparison(
    files: ReportFiles, records: list[Record], summary: Summary
) -> None:
    with files.csv.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(records)
    (invalid,) = [row for row in rows if row["valid"] == "False"]
    assert invalid["bitrate_mbps"] == ""
    assert invalid["reasons"] == "a|b <died>"
    with files.comparisons.open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(summary.contrasts) + len(summary.pairwise)
    with files.cores.open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 12 * 4


def test_every_figure_is_there_in_every_format(files: ReportFiles) -> None:
    names = Counter(path.suffix for path in files.plots)
    assert names == {".svg": len(PLOTS), ".png": len(PLOTS), ".pdf": 1}
    assert {path.stem for path in files.plots if path.suffix != ".pdf"} == PLOTS
    starts = {".svg": b"<?xml", ".pdf": b"%PDF-", ".png": b"\x89PNG"}
    for path in files.plots:
        data = path.read_bytes()
        assert data.startswith(starts[path.suffix])
        if path.suffix == ".svg":
            ET.fromstring(data)  # noqa: S314 (written a moment ago)
        if path.suffix == ".pdf":
            assert data.count(b"/Type /Page ") == len(PLOTS)
            assert b"/Type3" not in data


def test_figures_name_their_axes_with_units(files: ReportFiles) -> None:
    texts = {
        path.stem: " ".join(ET.parse(path).getroot().itertext())  # noqa: S314
        for path in files.plots
        if path.suffix == ".svg"
    }
    for name, label in {
        "against-baseline": "ratio to baseline",
        "values": "[Mbit/s per pair]",
        "overlay-host": "ratio to host network",
        "softirq-bars": "softirq [%]",
        "idle-heatmap": "idle [%]",
        "softirq-cost": "[Mbit/s]",
        "run-sequence": "Mbit/s per pair",
    }.items():
        assert label in texts[name]
    for name in PLOTS - {"softirq-heatmap", "idle-heatmap"}:
        assert all(configuration in texts[name] for configuration in RATIOS), name


def test_same_runs_give_the_same_files(
    records: list[Record], summary: Summary, files: ReportFiles, tmp_path: Path
) -> None:
    again = write_report(records, summary, tmp_path)
    for one, two in zip(files.plots, again.plots, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


@pytest.mark.parametrize("kept", ["nothing", "one run", "no cores", "all invalid"])
def test_poor_data_still_give_a_report(kept: str, tmp_path: Path) -> None:
    records = sweep({"baseline": 1, "rps": 1.1}, blocks=3)
    if kept == "nothing":
        records = []
    elif kept == "one run":
        records = records[:1]
    elif kept == "no cores":
        records = [record.model_copy(update={"cores": []}) for record in records]
    else:
        records = [
            record.model_copy(update={"valid": False, "reasons": ["x"]}) for record in records
        ]
    files = write_report(records, summarise(records), tmp_path)
    text = files.html.read_text(encoding="utf-8")
    assert "headline" in text
    drawn = {path.stem for path in files.plots}
    assert ("softirq-bars" in drawn) == (kept == "one run")
    assert ("against-baseline" in drawn) == (kept == "no cores")
    assert "nan" not in text.lower().replace("nanosec", "")


def test_more_cores_than_bars_can_show_are_a_heat_map(tmp_path: Path) -> None:
    records = sweep({"baseline": 1, "rps": 1.1}, blocks=2, cores=40)
    files = write_report(records, summarise(records), tmp_path)
    drawn = {path.stem for path in files.plots}
    assert "idle-heatmap" in drawn
    assert "idle-bars" not in drawn


def test_looks_differ_without_colour_too() -> None:
    names = [f"c{i}" for i in range(16)]
    found = looks(names)
    assert len({(look.colour, look.marker) for look in found.values()}) == 16
    first = [found[name] for name in names[:8]]
    assert len({look.marker for look in first}) == len({look.hatch for look in first}) == 8
    assert len(set(COLOURS)) == len(set(MARKERS)) == len(set(HATCHES)) == 8


def test_text_tables_align_and_markdown_escapes() -> None:
    table = Table(("a", "bb"), (("x", "1"), ("long", "22|3")), (False, True), (0, 0))
    assert aligned(table).splitlines() == ["a       bb", "x        1", "long  22|3"]
    assert markdown(table).splitlines()[-1] == "| long | 22\\|3 |"


def test_a_narrow_terminal_loses_columns_never_digits(summary: Summary) -> None:
    table = states(summary)
    whole = aligned(table)
    figures = set(re.findall(r"\d+(?:\.\d+)?", whole))
    for width in range(30, 160):
        text = aligned(table, width)
        if width >= 60:
            assert max(map(len, text.splitlines())) <= width
        assert set(re.findall(r"\d+(?:\.\d+)?", text)) <= figures
        assert "replicas" in text.splitlines()[0]
    assert aligned(table, 10_000) == whole
    assert "ratio" in aligned(table, 80).splitlines()[0]


def test_the_winner_comes_with_what_keeps_it(summary: Summary, tmp_path: Path) -> None:
    assert summary.keep == "rfs"
    kept = write_report([], summary, tmp_path / "kept", keep="apply rfs --persist")
    for file in (kept.html, kept.markdown):
        assert "How to keep rfs" in file.read_text()
        assert "apply rfs --persist" in file.read_text()
    silent = write_report([], summary, tmp_path / "silent")
    assert "How to keep" not in silent.html.read_text()


def test_a_page_of_many_configurations_stays_small(tmp_path: Path) -> None:
    records = sweep({"baseline": 1, **{f"c{i}": 1 + 0.01 * i for i in range(60)}}, replicas=(1,))
    made = write_report(records, summarise(records), tmp_path)
    assert not made.plots
    assert made.html.stat().st_size < 200_000
