"""Figures in README and docs are those of the code, of the benchmarks and of the example."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from pathlib import Path
from statistics import fmean

import pytest

from agent import knobs
from agent.knobs import KNOBS
from analysis import choice, compare, dependence, evidence, recommend, sequential, statistics
from analysis.load import load
from analysis.machine import CONDITIONS
from analysis.metrics import BITRATE, METRICS
from analysis.plots import figures
from analysis.recommend import Recommendation
from analysis.statistics import Effect
from analysis.summary import summarise
from analysis.verdict import Contrast, amount, estimate, p_value
from benchmarks import forms, settling, settling_knobs
from experiments.engines.embedded import kubernetes
from experiments.run.matrix import named, plan

ROOT = Path(__file__).resolve().parents[2]
WORDS = {3: "three", 5: "five", 6: "six", 8: "eight", 9: "nine", 10: "ten", 12: "twelve"}


def text(page: str) -> str:
    return " ".join((ROOT / page).read_text().split())


def example() -> list[dict[str, str]]:
    with (ROOT / "docs/example/comparisons.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def contrast(row: dict[str, str]) -> Contrast:
    effect = Effect(*(float(row[name]) for name in ("ratio", "low", "high", "p")))
    return Contrast(row["path"], int(row["replicas"]), row["against"], row["configuration"],
                    effect, float(row["p_holm"]), row["verdict"], row["doubt"])  # type: ignore[arg-type]  # fmt: skip


def recommended() -> Recommendation:
    rows = example()
    found = recommend.recommend(
        [contrast(row) for row in rows if row["family"] == "baseline"],
        [contrast(row) for row in rows if row["family"] == "pairwise"],
        {},
        "baseline",
    )
    assert found is not None
    return found


def test_the_number_of_plots() -> None:
    assert f"{WORDS[len(figures._PLOTS)]} plots" in text("README.md")


def test_the_embedded_engine_s_figures() -> None:
    page = text("experiments/engines/embedded/README.md")
    kept = json.loads((ROOT / "benchmarks/engines.json").read_text())["seconds"]
    own = kept["embedded_in_process"]["configuration"]
    cli = kept["pulumi_in_process"]["configuration"]
    assert f"takes {own:.2f} s, with the CLI {cli:.1f} s" in page
    assert f"{WORDS[len(kubernetes.KINDS)]} Kubernetes kinds" in page


def floor(name: str) -> float:
    cost = METRICS[name].cost
    assert cost is not None
    return cost.floor


@pytest.mark.parametrize(
    "claim",
    [
        f"fewer than {evidence.FEWEST_RUNS} runs",
        f"needs {dependence.FEWEST_BLOCKS} blocks",
        f"not before {sequential.FEWEST} runs",
        f"as much as {statistics.MODERATION} runs",
        f"more than {choice.MARGIN * 100:.0f} % below the baseline",
        f"at least {choice.WORTHWHILE * 100:.0f} %",
        f"{compare.ALLOWANCE * 100:.0f} % for each sweep are assumed",
        f"Exit code {compare.WORSE}",
        f"{compare.INCONCLUSIVE} is",
        f"by {floor('slowest_share'):g}",
        f"and {floor('retransmits_per_gbit'):.0f} more per Gbit",
        f"and {floor('dropped_per_gbit'):.0f} more per Gbit",
    ],
)
def test_the_rules_of_the_statistics(claim: str) -> None:
    assert claim in text("docs/statistics.md")
    for name in ("retransmits_per_gbit", "dropped_per_gbit"):
        cost = METRICS[name].cost
        assert cost is not None and cost.times == 2
    assert "twice the baseline's retransmits" in text("docs/statistics.md")


def percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def test_the_simulated_figures_in_the_text() -> None:
    page = text("docs/statistics.md")
    kept = json.loads((ROOT / "benchmarks/promises.json").read_text())
    stops = kept["coverage_when_until_ci_stops"]
    for name in ("normal noise", "skewed ratios", "the noise of the lab", "measured episodes"):
        assert f"{percent(stops[name])} with {name}" in " ".join(page.split())
    occasion = kept["coverage_of_the_ratio_in_general_by_one_occasion_of_40"]
    assert f"in general in only {percent(occasion)} of cases" in page
    windows = kept["false_positives_with_5_windows_an_episode"]
    assert f"over windows have {percent(windows['t test over windows'])} false positives" in page
    assert f"over episodes {percent(windows['t test over episodes'])}" in page
    lab = kept["coverage_by_episode_on_the_lab"].values()
    assert all(0.93 <= share <= 0.97 for row in lab for share in row.values())
    assert all(share <= 0.05 for share in kept["false_verdict_on_the_lab"].values())
    measured = kept["coverage_by_episode_measured"]
    assert f"the interval covers {percent(measured['rps']['10'])}" in page
    assert f"comes in {percent(kept['false_verdict_measured']['10'])} instead of 5 %" in page
    collapses = kept["coverage_of_the_95_interval"]
    for episodes in ("10", "40"):
        share = collapses[f"noise of the lab, 1 window of 50 at a tenth, {episodes} episodes"]
        assert f"{percent(share)} for {episodes} episodes" in page
    covers = kept["coverage_of_the_95_interval"]
    assert f"coverage stays at {percent(covers['drift 0.95 that all share, 10 blocks'])}" in page
    sequence = percent(covers["drift 0.95, all of A, then all of B, 10 runs"])
    assert f"under the same drift covers {sequence}" in page
    worse = {row["both have a baseline"] for row in kept["compare_to_false_worse"].values()}
    assert {percent(share) for share in worse} == {"2 %"}
    assert '"worse" comes in 2 %' in page
    sound, strong = kept["dependence"]["0"], kept["dependence"]["0.7"]
    assert all(one["found"] < 0.06 for one in sound.values())
    assert strong["6 x 10"]["found"] > 0.9 > 0.7 > strong["6 x 6"]["found"]
    many = [
        shapes[shape] for shapes in kept["dependence"].values() for shape in ("6 x 20", "6 x 40")
    ]
    assert all(one["claimed"] < 0.08 for one in many)
    assert all(one["covered"] > 0.925 or one["withheld"] > 0.9 for one in many)
    assert all(shapes["6 x 40"]["withheld"] < 0.3 for shapes in kept["dependence"].values())


def test_every_condition_is_named() -> None:
    page = text("docs/statistics.md").replace("`", "").casefold()
    assert [name for name in CONDITIONS if name.casefold() not in page] == []


def test_the_measured_quick_sweeps_keep_what_is_promised() -> None:
    kept = json.loads((ROOT / "benchmarks/sweep.json").read_text())["quick"]
    assert "about two minutes" in text("README.md")
    assert max(kept["wall_s"]) < 150
    for name, widths in kept["half_width"]["4 pairs"].items():
        assert max(widths) <= (0.12 if name.startswith("rps") else 0.07), name


def test_what_blocks_the_matrices_have_is_enough_for_a_verdict() -> None:
    for name in ("usual", "quick", "study"):
        assert plan(named(name) | {"seed": 1}).blocks >= evidence.FEWEST_RUNS, name


def test_the_readme_s_table_is_the_example_s() -> None:
    known = {
        (row["configuration"], row["replicas"]): contrast(row)
        for row in example()
        if row["family"] == "baseline"
    }
    rows = re.findall(
        r"^    ([\w-]+) +(\d+) +10 .*?(\d\.\d\dx.*)$", (ROOT / "README.md").read_text(), re.M
    )
    assert len(rows) == 5
    for name, replicas, rest in rows:
        one = known[name, replicas]
        shown = " ".join(rest.split())
        assert shown == f"{amount(one.effect, BITRATE)} {p_value(one.p_holm)}", name


def test_the_example_s_page_says_what_its_figures_support() -> None:
    page = text("docs/example.md")
    chosen = recommended()
    assert chosen.configuration == "pipeline"
    assert f"recommendation is `{chosen.configuration}`" in page
    baseline = [contrast(row) for row in example() if row["family"] == "baseline"]
    at_one = {one.b: one for one in baseline if one.replicas == 1}
    assert {one.b for one in at_one.values() if one.verdict == "worse"} == {
        "rps", "rps-plus", "rfs", "rfs-plus",
    }  # fmt: skip
    low, high = (at_one["rps"].effect.low or 0, at_one["rps"].effect.high or 0)
    loss = estimate(at_one["rps"].effect).removesuffix("x")
    assert f"(`rps` {loss} of the baseline, 95 % interval {low:.2f} to {high:.2f})" in page
    many = [one for one in baseline if one.replicas >= 4]
    assert all(one.verdict == "better" for one in many)
    ratios = sorted(one.effect.estimate or 0 for one in many)
    assert f"{ratios[0]:.2f} to {ratios[-1]:.2f} times" in page
    assert f"{len(baseline)} comparisons" in page


def test_the_example_s_report_is_that_of_its_records(tmp_path: Path) -> None:
    with tarfile.open(ROOT / "docs/example/quick.tar.xz") as kept:
        kept.extractall(tmp_path, filter="data")
    loaded = load(tmp_path / "quick")
    concluded = summarise(loaded.records)
    chosen = concluded.recommendation
    assert chosen is not None and not loaded.faults
    page, report = text("docs/example.md"), (ROOT / "docs/example/report.html").read_text()
    assert f"Recommended: {chosen.configuration}" in report
    assert f"nodes apply {chosen.configuration} --persist" in report
    effects = re.findall(r"\d\.\d\dx \[.*?\]", chosen.sentence)
    quoted = " ".join(re.findall(r"^> (.*)$", (ROOT / "docs/example.md").read_text(), re.M))
    assert f"Recommended: {chosen.configuration}" in quoted
    assert effects and all(one in report and one in quoted for one in effects)
    assert f"{len(loaded.records)} windows of {loaded.records[0].duration:g} s" in page
    assert f"in {len({one.block for one in loaded.records})} blocks" in page
    (faster,) = (
        one.effect
        for one in concluded.pairwise
        if (one.replicas, one.a, one.b, one.verdict) == (4, "pipeline", "rfs", "better")
    )
    assert f"({faster.estimate:.2f}, {faster.low:.2f} to {faster.high:.2f})" in page


def test_every_knob_is_in_the_docs() -> None:
    page = text("docs/agent.md")
    for name in KNOBS:
        assert f"| `{name}` |" in page


def test_steering_and_gro_settle_as_long_as_was_measured() -> None:
    kept = json.loads((ROOT / "benchmarks/settling.json").read_text())
    rows = {(n, name): row for n in ("4 pairs", "16 pairs") for name, row in kept[n].items()}
    changes = {
        knob: [row for (_, name), row in rows.items() if ("gro" in name) == (knob == "gro")]
        for knob in ("rps_cpus", "gro")
    }
    for knob, some in changes.items():
        assert all(row["settled_ms"] <= 1000 * KNOBS[knob].settle for row in some)
    most = {name: max(row["settled_ms"] for row in some) for name, some in changes.items()}
    latest = max(row["interval_ms"][1] for row in changes["gro"])
    page = text("docs/agent.md")
    assert f"(95 % interval up to {latest:.0f} ms)" in page
    assert f"at most {most['rps_cpus']} ms when steering changes and {most['gro']} ms" in page
    first = round(KNOBS["gro"].settle / settling.STEP)
    window = slice(first, first + round(settling_knobs.SPAN / settling.STEP))
    courses = [[float(one) for one in row["course"].split()] for row in changes["gro"]]
    worst = max(abs(fmean(course[window]) - 100) for course in courses)
    assert f"within {worst:.1f} % of its late level" in page


def test_each_knob_settles_as_long_as_its_kind_was_measured() -> None:
    kept = json.loads((ROOT / "benchmarks/settling_knobs.json").read_text())["kinds"]
    kinds = {name: kind for kind, names in settling_knobs.KINDS.items() for name in names}
    live = {name for name, knob in KNOBS.items() if knob.live}
    assert live - kinds.keys() == {"xps_cpus", "rps_default_mask"}  # of what is sent, or made later
    for name, kind in kinds.items():
        needs = kept[kind]["needs"]
        if needs is None:  # the slowest is not settled either, which the page has
            assert KNOBS[name].settle >= knobs.SETTLE_S
        else:
            assert needs <= KNOBS[name].settle
    page = text("docs/agent.md")
    for kind in ("machine", "offloads", "gro", "napi"):
        estimate, low, high = kept[kind]["offset"][
            f"{KNOBS[settling_knobs.KINDS[kind][0]].settle:g}"
        ]
        assert f"{100 * estimate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" in page


def test_the_docs_have_the_figures_of_both_forms_of_the_lab() -> None:
    text = forms.PAGE.read_text()
    assert forms.page(text, forms.kept()) == text
    effect = {"ratio": 1.2, "interval_95": [1.1, 1.3], "verdict": "better"}
    nothing = {"ratio": None, "interval_95": [None, None], "verdict": "inconclusive"}
    one = {"baseline_mbps": 700, "ratios": {"rps": effect, "rfs": nothing}}
    found = {"pairs": 4, "queues": 2, "forms": {"study": one, "stock": one}}
    written = forms.page(text, {"queues": found})
    assert "| `rps` | 1.20 [1.10, 1.30], better | 1.20 [1.10, 1.30], better |" in written
    assert "| `rfs` | inconclusive | inconclusive |" in written
    assert forms.page(written, {"queues": found}) == written
