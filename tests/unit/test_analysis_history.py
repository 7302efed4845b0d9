"""A history: the rows of each sweep by date, what changed between them, and the effect over all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_analysis_compare import kernel

from analysis.compare import NothingToCompare
from analysis.history import Course, History, Results, history
from analysis.metrics import find
from analysis.report.history import MOST_DRAWN, text_table, write
from analysis.schema import Record
from analysis.summary import summarise
from benchmarks.synthetic import sweep

SHAPE: dict[str, Any] = {"replicas": (1, 4), "blocks": 10, "spread": 0.02}


def at_day(records: Sequence[Record], day: int) -> list[Record]:
    return [
        one.model_copy(update={"start": one.start + timedelta(days=day)})
        for one in records
        if one.start
    ]


def results(name: str, day: int, ratio: float, baseline: str = "baseline") -> Results:
    made = sweep({"baseline": 1, "rfs": ratio, "rps": 1.2}, seed=day, **SHAPE)
    return Results(name, at_day(made, day), baseline)


def course(*sweeps: Results, **more: Any) -> Course:
    (found,) = history(sweeps, configurations=["rfs"], **more).courses
    return found


OLD, NEW = results("old", 3, 1.4), results("new", 40, 1.4)


def without_dates(one: Results, name: str) -> Results:
    return Results(name, [each.model_copy(update={"start": None}) for each in one.records])


IMPORTED = without_dates(NEW, "imported")


def test_rows_are_by_date_and_as_in_the_report_of_each_sweep() -> None:
    found = course(NEW, OLD)
    assert [row.sweep for row in found.rows] == ["old", "new"]
    assert [row.date for row in found.rows] == ["2025-01-04", "2025-02-10"]
    assert (found.path, found.replicas) == ("overlay", 4)
    for row, one in zip(found.rows, (OLD, NEW), strict=True):
        (reported,) = (
            each
            for each in summarise(one.records).contrasts
            if (each.replicas, each.b) == (4, "rfs")
        )
        own = row.contrast
        assert (own.verdict, own.p_holm, own.effect.low, own.effect.mde) == (
            reported.verdict, reported.p_holm, reported.effect.low, reported.effect.mde
        )  # fmt: skip
        assert (row.kernel, row.changed) == ("6.1.0-synthetic", [])


def test_equal_conditions_have_a_common_effect_and_others_none() -> None:
    ratios = (1.30, 1.35, 1.40, 1.45)
    same = [results(f"s{day}", day, ratio) for day, ratio in enumerate(ratios)]
    found = course(*same)
    assert found.mean is not None
    # one value each: the spread between sweeps counts, not that of their 40 runs
    assert (found.mean.n_b, found.mean.freedom) == (4, 3)
    assert found.mean.estimate == pytest.approx(1.374, rel=0.02)
    assert found.mean.low is not None and found.mean.high is not None
    assert found.mean.high / found.mean.low > 1.1
    assert "4 sweeps" in found.sentence(find("bitrate"))
    other = Results("s4", kernel(list(at_day(NEW.records, 5)), "7.0"))
    mixed = course(*same, other)
    assert mixed.mean is None
    assert [row.conditions for row in mixed.rows] == [[], [], [], [], ["kernel"]]
    assert "7.0" in mixed.rows[-1].changed[0]


def test_a_change_is_shown_where_it_happens_and_where_it_is_taken_back() -> None:
    other = Results("between", kernel(list(at_day(results("x", 20, 1.4).records, 0)), "7.0"))
    found = course(OLD, NEW, other)
    assert [(row.sweep, row.conditions) for row in found.rows] == [
        ("old", []), ("between", ["kernel"]), ("new", ["kernel"]),
    ]  # fmt: skip


def test_another_baseline_is_a_condition_and_a_missing_one_is_told() -> None:
    found = course(OLD, Results("new", NEW.records, "rps"))
    assert "compared with" in found.rows[1].conditions
    assert found.rows[1].contrast.a == "rps"
    alone = [one for one in NEW.records if one.configuration != "baseline"]
    found = course(OLD, Results("new", alone))
    assert found.rows[1].contrast.verdict == "inconclusive"
    assert "baseline" in found.rows[1].contrast.doubt
    assert found.mean is None or found.mean.low is None


def test_what_every_sweep_has_is_shown() -> None:
    more = sweep({"baseline": 1, "rfs": 1.4, "own": 1.1}, seed=8, blocks=10)
    found = history([OLD, Results("more", at_day(more, 8))])
    assert [(one.configuration, one.replicas) for one in found.courses] == [("rfs", 4)]
    assert [one.replicas for one in history([OLD, NEW], at=1).courses] == [1, 1]


@pytest.mark.parametrize(
    ("sweeps", "more", "words"),
    [
        ([OLD], {}, "two results directories"),
        ([OLD, OLD], {}, "runs in common"),
        ([IMPORTED, OLD, IMPORTED], {}, "runs in common"),
        ([IMPORTED, Results("a part", IMPORTED.records[:20])], {}, "runs in common"),
        ([OLD, NEW], {"configurations": ["typo"]}, "old has .*rfs-4.*; new has"),
        ([OLD, NEW], {"at": 16}, "at 16 pairs"),
        ([OLD, NEW], {"configurations": ["baseline"]}, "is the baseline of"),
    ],
)
def test_what_cannot_be_shown_is_named(
    sweeps: list[Results], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(NothingToCompare, match=words):
        history(sweeps, **more)


def test_sweeps_without_a_date_come_first() -> None:
    found = course(OLD, IMPORTED)
    assert [(row.sweep, row.date) for row in found.rows] == [
        ("imported", ""), ("old", found.rows[1].date),
    ]  # fmt: skip
    naive = [one.model_copy(update={"start": datetime(2024, 1, 1)}) for one in NEW.records]
    assert course(OLD, Results("naive", naive)).rows[0].start == datetime(2024, 1, 1, tzinfo=UTC)


def test_a_difference_is_shown_in_its_unit() -> None:
    found = history([OLD, NEW], configurations=["rfs"], metric=find("retransmits"))
    effect = found.courses[0].rows[0].contrast.effect
    assert (effect.scale, effect.null) == ("difference", 0.0)
    assert "difference" in found.rows()[0]


@pytest.mark.parametrize("metric", ["bitrate", "retransmits"])
def test_table_csv_and_plot_have_every_row(tmp_path: Path, metric: str) -> None:
    other = Results("=new", kernel(list(NEW.records), "7.0"))
    found = history([OLD, other], metric=find(metric))
    names = {path.name: path for path in write(found, tmp_path / "out")}
    assert names.keys() == {"history.csv", "history.svg", "history.png"}
    rows = list(csv.DictReader(io.StringIO(names["history.csv"].read_text())))
    assert [(row["configuration"], row["sweep"]) for row in rows] == [
        (name, one) for name in ("rfs", "rps") for one in ("old", "'=new")
    ]
    assert [bool(row["changed"]) for row in rows] == [False, True] * 2
    drawn = names["history.svg"].read_text()
    assert all(word in drawn for word in ("2025-01-04", "=new", "7.0", "rfs", "kernel"))
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [row["kernel"] for row in data["rows"]] == ["6.1.0-synthetic", "7.0"] * 2
    assert [one["mean"] for one in data["means"]] == [None, None]


def test_imported_runs_that_are_equal_by_chance_are_not_the_same_runs() -> None:
    chance = [*IMPORTED.records[:1], *without_dates(OLD, "other").records]
    assert len(course(IMPORTED, Results("other", chance)).rows) == 2


def test_a_figure_has_a_most_of_rows(tmp_path: Path) -> None:
    """One with 1000 rows would be higher than 2**16 pixels, the limit of the renderer."""
    (one,) = history([OLD, NEW], configurations=["rfs"]).courses
    several = History(find("bitrate"), [one] * (MOST_DRAWN // 2 + 1))
    (table,) = write(several, tmp_path)
    assert len(table.read_text().splitlines()) == MOST_DRAWN + 3


@pytest.mark.long
def test_the_highest_figure_can_be_drawn(tmp_path: Path) -> None:
    (one,) = history([OLD, NEW], configurations=["rfs"]).courses
    assert len(write(History(find("bitrate"), [one] * (MOST_DRAWN // 2)), tmp_path)) == 3


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits_and_keeps_date_and_effect(width: int) -> None:
    lines = text_table(history([OLD, NEW]), width).splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= width
    assert all("1.4" in line and "2025-" in line for line in lines[1:3])


def test_a_narrow_table_has_the_verdict_before_the_kernel() -> None:
    (head, *_) = text_table(history([OLD, NEW]), 80).splitlines()
    assert "verdict" in head
