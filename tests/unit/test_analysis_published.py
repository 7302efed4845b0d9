"""The study's text and tables: on text made here, and on the published data where it is."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from study_text import write_text

from analysis.load import load
from analysis.study.check import Recipe
from analysis.study.published import Reanalysis, import_study, reanalyse, write_records
from analysis.study.tables import key
from analysis.study.text import Damaged, parse

STUDY = Path(__file__).parents[3] / "shared" / "published"
study = pytest.mark.skipif(
    not STUDY.is_dir(), reason="the published data are not beside this repository"
)

TEXT = write_text([[100, 200], [110, 190], [120, 210]], cores=3)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 7))
@settings(deadline=None, max_examples=30)
def test_any_number_of_experiments_pairs_and_cores(
    experiments: int, pairs: int, cores: int, width: int
) -> None:
    bitrates = [[100 * i + j for j in range(pairs)] for i in range(1, experiments + 1)]
    found = parse(write_text(bitrates, cores, width), pairs)
    assert [one.bitrates for one in found] == bitrates
    assert all(set(one.cores) == set(range(cores)) for one in found)
    assert all(
        {"soft", "idle", "steal"} <= set(core) for one in found for core in one.cores.values()
    )


@given(st.data())
@settings(deadline=None, max_examples=120)
def test_no_truncation_passes(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(TEXT.rstrip()) - 1))
    with pytest.raises(Damaged) as raised:
        parse(TEXT[:cut], 2)
    assert 0 <= raised.value.line <= TEXT[:cut].count("\n") + 1


@given(st.data())
@settings(deadline=None, max_examples=120)
def test_no_lost_or_swapped_line_passes_unnoticed(data: st.DataObject) -> None:
    lines = TEXT.splitlines()
    telling = [
        i for i, line in enumerate(lines) if line and "all" not in line and "CPU" not in line
    ]
    lost = data.draw(st.sampled_from(telling))
    with pytest.raises(Damaged):
        parse("\n".join(lines[:lost] + lines[lost + 1 :]), 2)
    other = data.draw(st.sampled_from(telling))
    if lines[lost] != lines[other]:
        lines[lost], lines[other] = lines[other], lines[lost]
        with pytest.raises(Damaged):
            parse("\n".join(lines), 2)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("Experiment 2 completed.", "Experiment 3 completed.", 6, "completion of experiment 2"),
        ("\n110\n", "\nunable to connect\n", 7, "pair 1 of 2 in experiment 2"),
        ("\n110\n", "\n111\n", None, "grid has 110 for pair 1 in experiment 2"),
        ("%soft", "%what", 13, "heading"),
        ("Numbers grid:", "Grid:", None, "numbers grid"),
        ("Core 2 soft", "Core 7 soft", None, "a list of a core"),
        ("Core 1 idle", "Core 0 idle", None, "once"),
    ],
)
def test_damage_is_named_with_its_line(old: str, new: str, line: int | None, words: str) -> None:
    assert TEXT.count(old) >= 1
    with pytest.raises(Damaged, match=words) as raised:
        parse(TEXT.replace(old, new, 1), 2)
    if line is not None:
        assert raised.value.line == line


def test_more_pairs_than_the_name_says_are_found() -> None:
    with pytest.raises(Damaged, match="CPU averages"):
        parse(TEXT, 1)
    with pytest.raises(Damaged, match="pair 3 of 3"):
        parse(TEXT, 3)


def test_names_with_dashes_and_digits_and_every_fault_named(tmp_path: Path) -> None:
    (tmp_path / "rps-7-2.txt").write_text(TEXT)
    (tmp_path / "rfs-2.txt").write_text(TEXT[:300])
    (tmp_path / "empty-2.txt").write_text("")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "a-2.txt").write_bytes(b"Running experiment 1...\n\xff\xfe")
    (tmp_path / "c-2.txt").write_text("iperf Done.\n")
    loaded = import_study(tmp_path)
    assert {(r.configuration, r.replicas, r.source) for r in loaded.records} == {
        ("rps-7", 2, "rps-7-2.txt")
    }
    assert [record.order for record in loaded.records] == [0, 1, 2]
    assert {fault.file.name: fault.line for fault in loaded.faults} == {
        "rfs-2.txt": TEXT[:300].count("\n") + 1,
        "empty-2.txt": 1,
        "notes.txt": None,
        "a-2.txt": 2,
        "c-2.txt": 1,
    }


def test_imported_records_are_written_and_read_back(tmp_path: Path) -> None:
    (tmp_path / "rps-2.txt").write_text(TEXT)
    loaded = import_study(tmp_path)
    written = write_records(loaded, tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.faults == []
    assert again.records == loaded.records
    assert again.paths == written
    with pytest.raises(FileExistsError):
        write_records(loaded, tmp_path / "out")


@pytest.mark.parametrize(
    ("label", "name"),
    [("RPS-7+", "rps-plus-7"), ("RFS+", "rfs-plus"), ("Baseline", "baseline"), ("RPS-7", "rps-7")],
)
def test_labels_are_matched_by_rule(label: str, name: str) -> None:
    assert key(label) == key(name)
    assert key("RPS-7") != key("RPS-7+") != key("RPS+")


BITRATES = {
    "baseline": [[100, 200], [110, 190], [120, 215], [90, 205]],
    "rps": [[140, 220], [150, 205], [145, 200], [160, 230]],
    "rps-plus-9": [[170, 240], [165, 235], [190, 260], [180, 244]],
}
LABELS = {"baseline": "Baseline", "rps": "RPS", "rps-plus-9": "RPS-9+"}


def by_run(name: str) -> tuple[float, float]:
    unit = np.mean(BITRATES["baseline"])
    runs = np.mean(BITRATES[name], axis=1) / unit
    half = stats.t.ppf(0.975, len(runs) - 1) * stats.sem(runs)
    return float(runs.mean()), float(half)


def make_study(directory: Path, *, intervals: dict[str, float] | None = None) -> None:
    for number, (name, bitrates) in enumerate(BITRATES.items()):
        text = write_text(bitrates, cores=2, width=4, seed=number)
        (directory / f"{name}-2.txt").write_text(text)
    means = {name: by_run(name)[0] for name in BITRATES}
    halves = intervals or {name: by_run(name)[1] for name in BITRATES}
    for table, values in (("finalized", means), ("confidence", halves)):
        head = ",".join(["Replicas", *(LABELS[name] for name in values), "Absent"])
        row = ",".join(["2 Replicas", *(f"{value:.10f}" for value in values.values()), "1.234"])
        (directory / f"{table}_bitrate.csv").write_text(f"{head}\n{row}")
    loaded = import_study(directory)
    rows = ["Type,Core 0,Core 1"]
    for name in BITRATES:
        soft = [
            np.mean([r.cores[core].soft for r in loaded.records if r.configuration == name])
            for core in (0, 1)
        ]
        rows.append(",".join([LABELS[name], *(f"{value:.4f}" for value in soft)]))
    (directory / "finalized_2_soft.csv").write_text("\n".join(rows) + "\nAbsent,1.5,2.5\n")


def statuses(found: Reanalysis, table: str) -> Counter[str]:
    return Counter(one.status for one in found.cells if one.cell.table == table)


def test_sound_tables_reproduce_and_absent_text_is_said(tmp_path: Path) -> None:
    make_study(tmp_path)
    found = reanalyse(tmp_path)
    assert found.faults == []
    assert found.counts() == {"reproduced": 12, "no raw text": 4}
    assert "reproduced" in found.text()
    json.dumps(found.to_json(), allow_nan=False)


def test_another_grouping_is_found_and_the_interval_corrected(tmp_path: Path) -> None:
    unit = np.mean(BITRATES["baseline"])
    recipe = Recipe(4, "columns")
    wrong = {
        name: recipe.half_width(np.array(values) / unit) or math.nan
        for name, values in BITRATES.items()
    }
    make_study(tmp_path, intervals=wrong)
    found = reanalyse(tmp_path)
    assert statuses(found, "confidence_bitrate.csv")["other computation"] == 3
    for one in found.cells:
        if one.status == "other computation":
            name = next(n for n, label in LABELS.items() if label == one.cell.label)
            assert one.sound == pytest.approx(by_run(name)[1])
            assert "rows of 4, averaged over columns" in one.why
    assert "rows of 4" in found.text()


def test_shifted_rows_are_found(tmp_path: Path) -> None:
    make_study(tmp_path)
    path = tmp_path / "finalized_2_soft.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    for row in range(1, len(rows) - 1):
        rows[row][1] = rows[row + 1][1]
    path.write_text("\n".join(",".join(row) for row in rows))
    found = [one for one in reanalyse(tmp_path).cells if one.cell.table == path.name]
    whys = {one.cell.label: one.why for one in found if one.cell.column == "Core 0"}
    assert "number of RPS: shifted up by 1 row" in whys["Baseline"]
    assert "number of RPS-9+" in whys["RPS"]
    assert "number of Absent" in whys["RPS-9+"]
    assert all(one.status == "reproduced" for one in found if one.cell.column == "Core 1"
               and one.cell.label != "Absent")  # fmt: skip


def test_a_number_from_nowhere_is_not_explained_away(tmp_path: Path) -> None:
    make_study(tmp_path)
    path = tmp_path / "finalized_2_soft.csv"
    lines = path.read_text().splitlines()
    lines[2] = f"{LABELS['rps']},87.6543,{lines[2].split(',')[2]}"
    path.write_text("\n".join(lines))
    (one,) = [one for one in reanalyse(tmp_path).cells if one.status == "not reproduced"]
    assert "explains it" in one.why


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("finalized_bitrate.csv", "", 1),
        ("finalized_bitrate.csv", "Replicas,A\n2 Replicas,1,2\n", 2),
        ("finalized_bitrate.csv", "Replicas,A\n1 R,1\ntwo,1\n", 3),
        ("finalized_2_soft.csv", "Type,Core 0\nA,1\nB,n/a\n", 3),
        ("other.csv", "a,b\n", None),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, name: str, text: str, line: int | None) -> None:
    (tmp_path / name).write_text(text)
    (fault,) = reanalyse(tmp_path).faults
    assert (fault.file.name, fault.line) == (name, line)


def test_two_spellings_of_one_configuration_are_named(tmp_path: Path) -> None:
    for name in ("rps-plus-7-2.txt", "rps-7-plus-2.txt"):
        (tmp_path / name).write_text(TEXT)
    (fault,) = reanalyse(tmp_path).faults
    assert "another spelling of rps-7-plus" in fault.message


def test_an_empty_directory_has_nothing_to_say(tmp_path: Path) -> None:
    found = reanalyse(tmp_path)
    assert found.cells == []
    assert "no valid run" in found.text()


@pytest.fixture(scope="module")
def published() -> Reanalysis:
    return reanalyse(STUDY)


@study
def test_published_cells_reproduce_as_far_as_the_raw_text_goes(published: Reanalysis) -> None:
    assert published.faults == []
    sound = {"reproduced": 20, "no raw text": 8}
    for table in ("confidence_16_idle", "confidence_16_soft", "confidence_1_idle",
                  "confidence_1_soft", "finalized_16_idle", "finalized_16_soft",
                  "finalized_1_idle"):  # fmt: skip
        assert statuses(published, f"{table}.csv") == sound
    assert statuses(published, "finalized_bitrate.csv") == {"reproduced": 15, "no raw text": 20}


@study
def test_published_shift_is_found_and_corrected(published: Reanalysis) -> None:
    wrong = [
        one
        for one in published.cells
        if one.cell.table == "finalized_1_soft.csv" and one.status == "not reproduced"
    ]
    assert {(one.cell.label, one.cell.core) for one in wrong} == {
        (label, core) for label in ("Baseline", "RPS") for core in (0, 1, 2)
    }
    assert all("RPS: shifted up by 1 row" in one.why for one in wrong if one.cell.row == 0)
    assert all("RPS-7" in one.why for one in wrong if one.cell.row == 1)
    assert [one.sound for one in wrong[:3]] == pytest.approx([0.1275, 0.0665, 3.0945])


@study
def test_published_grouping_is_found_and_corrected(published: Reanalysis) -> None:
    table = "confidence_bitrate.csv"
    assert statuses(published, table) == {
        "reproduced": 5, "other computation": 10, "no raw text": 20,
    }  # fmt: skip
    other = [one for one in published.cells if one.status == "other computation"]
    assert {one.cell.replicas for one in other} == {4, 16}
    assert all("rows of 20, averaged over columns" in one.why for one in other)
    corrected = {one.cell.label: one.sound for one in other if one.cell.replicas == 16}
    assert corrected["Baseline"] == pytest.approx(0.0365, abs=5e-5)
    assert corrected["RFS+"] == pytest.approx(0.0365, abs=5e-5)


@study
def test_published_runs_support_less_than_was_said(published: Reanalysis) -> None:
    states = {(one.replicas, one.configuration): one for one in published.summary.states}
    assert states[16, "baseline"].lag1 == pytest.approx(0.69, abs=0.005)
    change = states[16, "baseline"].drift.change
    assert change is not None and 0.18 < change < 0.26
    rivals = next(
        one
        for one in published.summary.pairwise
        if {one.a, one.b} == {"rfs-plus", "rps-plus"} and one.replicas == 16
    )
    assert rivals.effect.p == pytest.approx(0.35, abs=0.02)
    against = [one for one in published.summary.contrasts if one.replicas == 16]
    assert {one.verdict for one in against} == {"inconclusive"}
    assert all("not randomised" in one.doubt for one in against)
    assert published.summary.keep is None


@study
def test_published_subset_works_without_the_baseline(tmp_path: Path) -> None:
    for name in ("rps-4.txt", "finalized_bitrate.csv", "finalized_1_soft.csv"):
        (tmp_path / name).write_bytes((STUDY / name).read_bytes())
    found = reanalyse(tmp_path)
    assert set(found.counts()) == {"no raw text"}
    assert "Nothing is compared" in found.summary.verdict[0]
