"""The report as files: self-contained, well-formed, and the same in each of them."""

import base64
import csv
import hashlib
import html
import itertools
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analysis.limits import parse_all
from analysis.load import Fault
from analysis.plots.style import COLOURS, HATCHES, MARKERS, looks
from analysis.report.answer import Answer, Command, Commands, answer, block, chosen
from analysis.report.cells import states
from analysis.report.grid import Table, aligned, markdown
from analysis.report.pages import ReportFiles, write_report
from analysis.schema import Record
from analysis.summary import Summary, summarise
from benchmarks.synthetic import mixed, sweep, valued

RATIOS = {"baseline": 1.0, "rfs": 1.3, "rps-<b>": 1.1}
PLOTS = {
    "against-baseline", "values", "overlay-host", "softirq-heatmap", "softirq-bars",
    "idle-heatmap", "idle-bars", "softirq-cost", "run-sequence", "latency-rate",
    "latency-distribution",
}  # fmt: skip
P99 = {"rfs": 1.5, "rps-<b>": 0.9}
COMMANDS = Commands((Command("Try it", "apply <rfs> --lease 2h"), Command("Undo", "restore")))


def measured(**options: Any) -> list[Record]:
    """Runs of `RATIOS` with latency, by default at 1 and 4 pairs."""
    factors = {
        name: {"bitrate_mbps": ratio, "p99_us": P99.get(name, 1.0)}
        for name, ratio in RATIOS.items()
    }
    return mixed(factors, **{"replicas": (1, 4), "blocks": 8, "cores": 4, **options})


@pytest.fixture(scope="module")
def records() -> list[Record]:
    made = measured()
    last = made[-1].start
    assert last is not None
    for record in measured(seed=1):  # later, and so with other values
        order = len(made)
        start = last + timedelta(seconds=5 * order)
        made.append(record.model_copy(update={"path": "host", "order": order, "start": start}))
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
        records, summary, directory, answer=answer(summary, COMMANDS, [fault]), faults=[fault],
        reproduce="sweep --seed 0", title="A & B",
    )  # fmt: skip


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
    assert page.every("script") == [{}]  # no src
    assert not page.every("link") + page.every("iframe") + page.every("img")
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action"):
            value = attrs.get(name) or ""
            inside = ("#", "plots/", "data:image/png;base64,")
            assert value.startswith(inside) or not value, (tag, name, value)
    text = files.html.read_text(encoding="utf-8")
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_page_may_run_its_own_script_alone(files: ReportFiles, page: Page) -> None:
    text = files.html.read_text(encoding="utf-8")
    script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [one["content"] for one in page.every("meta") if "http-equiv" in one]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


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


def test_page_holds_every_part_and_escapes_what_it_quotes(files: ReportFiles, page: Page) -> None:
    text = files.html.read_text(encoding="utf-8")
    assert "A &amp; B" in text
    assert "is not &lt;JSON&gt;" in text
    assert "a|b &lt;died&gt;" in text
    assert "rps-&lt;b&gt;" in text
    assert "<b>" not in text
    assert "sweep --seed 0" in text
    assert len(page.every("svg")) == len(PLOTS)
    assert not [path for path in page.every("path") if re.search(r"\.\d{3}", str(path["d"]))]
    assert "rotate(-90" in text and "rotate(-0" not in text
    parts = ("Results", "Figures", "Caveats", "Files left out", "Other metrics",
             "Against the baseline", "Against each other", "Overlay over host network",
             "Validity of runs", "Invalid runs", "Machine", "How to reproduce")  # fmt: skip
    places = [re.search(rf"<h2[^>]*>{part}</h2>", text) for part in parts]
    assert None not in places
    assert sorted(found.start() for found in places if found) == [
        found.start() for found in places if found
    ]


def test_the_answer_comes_first_and_whole(files: ReportFiles, summary: Summary) -> None:
    found = answer(summary, COMMANDS)
    assert found.tradeoff is not None
    assert found.why
    for file, undo, end in (
        (files.html, ">restore<", "<svg"),
        (files.markdown, "restore", "| MDE"),
    ):
        text = file.read_text(encoding="utf-8")
        order = [
            text.index("Recommended: "), text.index("p99 latency 1."), text.index("p99 latency ["),
            text.index("core 0"), text.index("--lease 2h"), text.index(undo), text.index(end),
        ]  # fmt: skip
        assert order == sorted(order)


def tradeoff(found: Answer) -> dict[str, dict[str, str]]:
    """The rows of the trade-off by the title of the metric, and the texts by column."""
    assert found.tradeoff is not None
    return {
        row[0].partition(" [")[0]: dict(zip(found.tradeoff.head, row, strict=True))
        for row in found.tradeoff.rows
    }


def test_the_answer_has_what_it_buys_and_what_it_costs(summary: Summary) -> None:
    found = answer(summary)
    rows = tradeoff(found)
    for count, place in ((1, "1 pair"), (4, "4 pairs")):
        row = summary.tradeoff.row("overlay", count, "rfs")
        assert row is not None
        for metric, title in (("bitrate_mbps", "bitrate"), ("p99_us", "p99 latency")):
            effect = row.contrasts[metric].effect
            assert effect.low is not None and effect.low > 1
            assert rows[title][place].startswith(f"{effect.estimate:.2f}x [{effect.low:.2f},")
    assert " → " in rows["p99 latency"]["baseline → rfs"]
    assert rows["bitrate"]["4 pairs"] in found.sentence
    (costs,) = [one for one in found.details if one.startswith("Costs")]
    assert "p99 latency 1." in costs


def test_one_metric_alone_is_no_trade_off() -> None:
    records = [one.model_copy(update={"cores": []}) for one in sweep(RATIOS)]
    found = answer(summarise(records))
    assert (found.tradeoff, found.why) == (None, [])
    assert "rfs" in found.sentence
    assert "bitrate" in found.basis


def test_a_choice_by_the_number_of_pairs_has_the_effects_of_each() -> None:
    records = sweep({"baseline": 1, "a": 1.3, "b": 0.8}, replicas=(1,), blocks=8)
    records += sweep({"baseline": 1, "a": 0.8, "b": 1.3}, replicas=(4,), blocks=8)
    summary = summarise(records)
    assert chosen(summary) == ["a", "b"]
    rows = tradeoff(answer(summary))
    assert {"1 pair, a", "4 pairs, b"} <= rows["bitrate"].keys()


@pytest.mark.parametrize(("baseline", "kept"), [("baseline", None), ("rfs", "rfs")])
def test_a_steered_baseline_that_is_recommended_is_to_be_set(
    baseline: str, kept: str | None
) -> None:
    records = sweep({baseline: 1, "rps": 0.8}, blocks=8)
    summary = summarise(records, baseline=baseline)
    assert summary.recommendation is not None
    assert summary.recommendation.configuration == baseline
    assert summary.keep == summary.to_json()["keep"] == kept
    assert chosen(summary) == ([kept] if kept else [])


def test_what_is_not_certain_to_be_within_a_limit_has_its_effects_and_no_command() -> None:
    factors = {"baseline": {}, "rfs": {"bitrate_mbps": 1.3, "p99_us": 1.08}}
    limits = parse_all(["p99_us=+8%"])
    several = (summarise(mixed(factors, blocks=12, seed=seed), limits=limits) for seed in range(6))
    summary = next(one for one in several if one.recommendation and one.recommendation.tentative)
    assert summary.recommendation is not None
    assert chosen(summary) == []
    assert summary.recommendation.tentative == "rfs"
    assert "rfs" in answer(summary).sentence
    assert tradeoff(answer(summary))["p99 latency"]["4 pairs"]
    at_one_count = replace(summary.recommendation, by_count={16: "rfs"})
    assert chosen(replace(summary, recommendation=at_one_count)) == []


def test_the_caveat_of_what_is_recommended_comes_first_and_hides_no_warning() -> None:
    """A cost that one run in ten has, of two configurations."""
    records = [
        one.model_copy(update={
            "pairs": [valued(pair, retransmits=9000) for pair in one.pairs]
            if one.configuration != "baseline" and one.block == 3 else one.pairs,
            "warnings": ["a warning"],
        })
        for one in sweep({"baseline": 1, "rps": 1.3, "rfs": 1.8}, blocks=10)
    ]  # fmt: skip
    summary = summarise(records)
    found = answer(summary)
    assert chosen(summary) == ["rfs"]
    of_rfs, of_rps = summary.caveats
    assert of_rfs.startswith("rfs at ") and "retransmits" in of_rfs
    assert (found.warnings, found.more) == ([of_rfs, *summary.warnings], 1)
    without = answer(replace(summary, warnings=[]))
    assert (without.warnings, without.more) == ([of_rfs, of_rps], 0)
    twice = answer(replace(summary, caveats=[], warnings=summary.warnings * 3))
    assert (twice.warnings, twice.more) == (summary.warnings * 2, 1)


def test_nothing_to_set_has_no_effects() -> None:
    summary = summarise(mixed({"baseline": {}, "a": {}}, blocks=8))
    found = answer(summary)
    assert chosen(summary) == []
    assert "baseline" in found.sentence
    assert found.tradeoff is None


def test_a_purpose_is_beside_its_command_where_there_is_room() -> None:
    assert block(COMMANDS, 80).splitlines() == [
        "apply <rfs> --lease 2h  # Try it", "restore                 # Undo",
    ]  # fmt: skip
    assert block(COMMANDS, 25).splitlines()[:2] == ["# Try it", "apply <rfs> --lease 2h"]


def test_points_name_their_configuration_and_values(
    files: ReportFiles, page: Page, summary: Summary
) -> None:
    named = {attrs["data-of"] for tag, attrs in page.tags if tag == "g" and "data-of" in attrs}
    assert named == set(RATIOS)
    tips = [str(attrs["data-tip"]) for attrs in page.every("use") if "data-tip" in attrs]
    (contrast,) = [
        one for one in summary.contrasts if (one.path, one.replicas, one.b) == ("host", 4, "rfs")
    ]
    wanted = f"rfs, 4 pairs: {contrast.effect.estimate:.2f} [{contrast.effect.low:.2f}"
    assert len([tip for tip in tips if tip.startswith(wanted)]) == 1
    text = files.html.read_text(encoding="utf-8")
    for name, look in looks(["baseline", "rfs", "rps-<b>"]).items():
        own = re.findall(rf'<use data-tip="{html.escape(name)}[,:][^>]*>', text)
        assert own
        assert all(look.colour.lower() in use for use in own)


def test_markdown_says_the_same(files: ReportFiles, summary: Summary) -> None:
    text = files.markdown.read_text(encoding="utf-8")
    assert text.startswith("# A & B\n")
    assert summary.recommendation is not None
    for sentence in (*summary.recommendation.sentences, *summary.verdict[1:]):
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
        "latency-rate": "p99 latency [microseconds]",
        "latency-distribution": "99.9",
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
    assert set("".join(HATCHES)) <= set("/\\|-+x")  # lines: dots and circles make an SVG large


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


@pytest.mark.usefixtures("sketched")
def test_no_command_comes_with_its_reason(summary: Summary, tmp_path: Path) -> None:
    reason = "There is no command that sets <rfs>."
    made = write_report([], summary, tmp_path, answer=answer(summary, Commands(reason=reason)))
    assert "sets &lt;rfs&gt;." in made.html.read_text()
    assert "sets &lt;rfs>." in made.markdown.read_text()


def test_a_page_of_many_configurations_stays_small(tmp_path: Path) -> None:
    records = sweep({"baseline": 1, **{f"c{i}": 1 + 0.01 * i for i in range(60)}}, replicas=(1,))
    made = write_report(records, summarise(records), tmp_path)
    assert not made.plots
    assert made.html.stat().st_size < 200_000


@pytest.mark.usefixtures("sketched")
def test_runs_without_a_tunnel_have_the_figures_of_runs_through_one(tmp_path: Path) -> None:
    found = {}
    for path in ("overlay", "direct"):
        records = [
            one.model_copy(update={"path": path}) for one in measured(replicas=(4,), blocks=6)
        ]
        summary = summarise(records)
        written = write_report(
            records, summary, tmp_path / path, answer=answer(summary, COMMANDS, []), faults=[],
            reproduce="sweep", title="x",
        )  # fmt: skip
        found[path] = {file.name for file in written.plots}
        assert summary.recommendation is not None
        assert ("without a tunnel" in written.html.read_text()) is (path == "direct")
    assert found["direct"] == found["overlay"]
