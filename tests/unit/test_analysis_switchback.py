"""Checks of switchback: planted carry-over and slow settling are found, and nothing else is."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from analysis import carryover
from analysis.carryover import Shift, SwitchbackChecks
from analysis.episodes import episodes, halves, is_settling
from analysis.plots.episodes import outline
from analysis.report import cells
from analysis.report.pages import write_report
from analysis.schema import Goodput, Pair, Record
from analysis.summary import summarise
from experiments.run.episodes import orders

RATIOS = {
    "baseline": 1.0,
    "rps": 1.2,
    "rfs": 1.4,
    "rfs-plus": 1.4,
    "pipeline": 1.3,
    "rps-plus": 1.1,
}
SETTLE, WINDOW, PERIOD, PART = 0.2, 0.4, 0.61, 0.05


def course(
    rate: float,
    number: int = 0,
    rises: float = 0.0,
    noise: float = 0.05,
    draw: np.random.Generator | None = None,
) -> list[Goodput]:
    """Goodput from a switch to the end of a window; its second half is higher by the share `rises`."""
    steps = round((SETTLE + WINDOW) / PART)
    middle = round((SETTLE + WINDOW / 2) / PART)
    rates = rate * np.exp(draw.normal(0, noise, steps) if draw else np.zeros(steps))
    rates[middle:] *= 1 + rises
    return [
        Goodput(at=1 + number * PERIOD + step * PART, seconds=PART, mbps=each)
        for step, each in enumerate(rates.tolist())
    ]


def switched(
    count: int,
    *,
    after: Mapping[str, float] | None = None,
    rises: Mapping[str, float] | None = None,
    spread: Mapping[str, float] | None = None,
    ratios: Mapping[str, float] = RATIOS,
    pairs: int = 4,
    seed: int = 1,
    read: bool = True,
) -> list[Record]:
    """Episodes in balanced random order.

    `after` are the factors of a configuration on the window that follows it, `rises` those of
    its second halves, `spread` the standard deviations of the logarithms of single windows.
    """
    rng = np.random.default_rng(seed)
    order = orders(list(ratios), random.Random(seed))  # noqa: S311
    records: list[Record] = []
    for block, names in enumerate(islice(order, count)):
        level = np.exp(rng.normal(0, 0.1))
        before = ""
        for number, name in enumerate(names):
            noise = rng.normal(0, (spread or {}).get(name, 0.05))
            factor = ratios[name] * (after or {}).get(before, 1.0)
            rate = float(1000 * level * factor * np.exp(noise))
            rise = (rises or {}).get(name, 0.0)
            parts = course(rate * pairs, number, rise, draw=rng) if read else []
            records.append(
                Record(
                    target="lab", method="switchback", configuration=name, replicas=pairs,
                    valid=True, duration=WINDOW, omit=SETTLE, block=block, order=len(records),
                    seed=seed, plan="synthetic", stack="sweep-x",
                    pairs=[
                        Pair(index=index + 1, values={"bitrate_mbps": rate})
                        for index in range(pairs)
                    ],
                    goodput=parts,
                )
            )  # fmt: skip
            before = name
    return records


def with_latency(
    records: list[Record], after: Mapping[str, float], rises: Mapping[str, float]
) -> list[Record]:
    """The same beside a pair that measures latency; `after` and `rises` are factors of its median."""
    rng = np.random.default_rng(1)
    found, before = [], dict[int | None, str]()
    for record in records:
        median = 50 * after.get(before.get(record.block, ""), 1.0) * np.exp(rng.normal(0, 0.02))
        before[record.block] = record.configuration
        rise = rises.get(record.configuration, 1.0) * np.exp(rng.normal(0, 0.02))
        probe = Pair(
            index=record.replicas + 1, kind="rr", values={"p50_us": float(median)},
            halves=(float(median / rise**0.5), float(median * rise**0.5)),
        )  # fmt: skip
        streams = [pair.model_copy(update={"kind": "stream"}) for pair in record.pairs]
        found.append(record.model_copy(update={"traffic": "mixed", "pairs": [*streams, probe]}))
    return found


def checked(records: list[Record]) -> SwitchbackChecks:
    found = carryover.check(episodes(records), "baseline", 0.95)
    assert found
    return found


def by_name(shifts: list[Shift]) -> dict[str, Shift]:
    return {one.configuration: one for one in shifts}


# carry-over


def test_planted_carry_over_is_found_and_measured() -> None:
    found = checked(switched(30, after={"rfs": 0.90}))
    after = by_name(list(found.carryover))
    assert set(after) == set(RATIOS)
    assert min(after.values(), key=lambda one: one.estimate) == after["rfs"]
    assert after["rfs"].found
    for name, one in after.items():  # relative to the mean of all six
        assert one.estimate == pytest.approx(0.90 ** ((name == "rfs") - 1 / 6), abs=0.03)
    (warning,) = found.warnings()
    assert "rfs at 4 pairs" in warning
    assert carryover.REMEDY in warning


def test_without_carry_over_every_effect_is_within_the_limit() -> None:
    found = checked(switched(120, spread=dict.fromkeys(RATIOS, 0.04)))
    assert all(one.within for one in found.carryover)
    assert found.warnings() == []


def test_few_noisy_episodes_show_neither() -> None:
    found = checked(switched(6, spread=dict.fromkeys(RATIOS, 0.2)))
    assert not any(one.within or one.found for one in found.carryover)


def test_intervals_hold_where_configurations_differ_in_noise() -> None:
    """Over many sweeps without carry-over: coverage, and failures of the whole check."""
    spread = {"rps": 0.18, "rps-plus": 0.15, "baseline": 0.1, "rfs": 0.08, "pipeline": 0.06}
    covered, failed, count = [], 0, 150
    for seed in range(count):
        found = checked(switched(12, spread=spread, seed=seed, read=False))
        covered += [one.low <= 1 <= one.high for one in found.carryover]
        failed += any(one.found for one in found.carryover)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert failed / count <= 0.09


def test_the_window_before_is_that_of_the_episode_even_if_it_does_not_count() -> None:
    records = switched(2)
    records[1] = records[1].model_copy(update={"valid": False, "reasons": ["late"]})
    first, second = episodes(list(reversed(records)))[::-1]
    names = [window.record.configuration for window in first.windows]
    assert [window.preceding for window in first.windows] == [None, *names[:-1]]
    assert [window.counts for window in first.windows] == [True, False, True, True, True, True]
    assert second.windows[0].preceding is None


@pytest.mark.parametrize("count", [1, 2])
def test_effects_that_cannot_be_told_apart_are_not_reported(count: int) -> None:
    two = {"baseline": 1.0, "rfs": 1.4}
    found = checked(switched(40, ratios=dict(list(two.items())[:count])))
    assert found.carryover == []
    assert len(found.sentences()) == 3


def test_isolated_runs_have_no_checks() -> None:
    records = [one.model_copy(update={"method": "isolated"}) for one in switched(3)]
    assert summarise(records).switchback is None
    assert summarise(records).to_json()["switchback"] is None


# halves


def test_a_ratio_that_still_rises_is_found() -> None:
    found = checked(switched(30, rises={"rfs": 0.10}))
    moved = {one.configuration: one for one in found.movements}
    assert set(moved) == set(RATIOS) - {"baseline"}
    assert [name for name, one in moved.items() if one.found] == ["rfs"]
    assert moved["rfs"].estimate == pytest.approx(1.10, abs=0.02)
    assert moved["rfs"].second / moved["rfs"].first == pytest.approx(moved["rfs"].estimate)
    assert moved["rps"].first == pytest.approx(1.2, rel=0.06)
    (warning,) = found.warnings()
    assert "rfs at 4 pairs" in warning


def test_a_rise_that_the_baseline_shares_is_none() -> None:
    found = checked(switched(40, rises=dict.fromkeys(RATIOS, 0.3)))
    assert not any(one.found for one in found.movements)


def test_halves_of_a_window() -> None:
    (record, *_) = switched(1)
    parts = course(1000, rises=0.5)
    whole = record.model_copy(update={"goodput": parts})
    assert halves(whole) == (pytest.approx(1000), pytest.approx(1500))
    assert [is_settling(part, whole) for part in parts] == [True] * 4 + [False] * 8
    # a reading in the middle of neither half belongs to both
    joined = Goodput(at=parts[7].at, seconds=2 * PART, mbps=1250)
    whole = whole.model_copy(update={"goodput": [*parts[:7], joined, *parts[9:]]})
    assert halves(whole) == (pytest.approx(1062.5), pytest.approx(1437.5))
    assert halves(record.model_copy(update={"goodput": []})) is None
    assert halves(record.model_copy(update={"goodput": parts[:3]})) is None
    gap = record.model_copy(update={"goodput": [*parts[:2], *parts[8:]]})
    assert halves(gap) is None


def test_without_readings_the_rest_is_still_checked() -> None:
    found = checked(switched(12, read=False))
    assert found.movements == []
    assert len(found.carryover) == 6


# latency


def test_latency_is_checked_beside_goodput() -> None:
    """What it shows is not in goodput."""
    records = with_latency(switched(30), after={"rps": 1.2}, rises={"rfs": 1.2})
    found = checked(records)
    (after,) = (one for one in found.carryover if one.found and one.estimate > 1)
    (moved,) = (one for one in found.movements if one.found)
    assert [(one.configuration, one.metric) for one in (after, moved)] == [
        ("rps", "p50_us"), ("rfs", "p50_us"),
    ]  # fmt: skip
    assert after.estimate == pytest.approx(1.2 ** (5 / 6), abs=0.03)
    assert moved.estimate == pytest.approx(1.2, abs=0.03)
    assert ["latency" in warning for warning in found.warnings()] == [True, True]
    assert len(cells.checks(summarise(records)).rows) == 2 * len(RATIOS)


def test_latency_without_halves_is_said_to_be_unchecked() -> None:
    """Records of an earlier version."""
    records = with_latency(switched(12), after={}, rises={})
    for record in records:
        record.pairs[-1] = record.pairs[-1].model_copy(update={"halves": None})
    found = checked(records)
    assert {one.metric for one in found.carryover} == {"bitrate_mbps", "p50_us"}
    assert {one.metric for one in found.movements} == {"bitrate_mbps"}
    assert any("latency" in one and "not known" in one for one in found.sentences())


# delays, and the report


def test_late_windows_are_counted() -> None:
    records = switched(3)
    late = {"valid": False, "reasons": ["the window is late"], "causes": ["window"]}
    records[2:4] = [one.model_copy(update=late) for one in records[2:4]]
    records[5] = records[5].model_copy(update={**late, "causes": ["steering"]})
    found = checked(records)
    assert (found.late, found.windows) == (2, 18)
    assert "2 of 18" in found.sentences()[2]


def test_the_report_has_checks_and_figure(tmp_path: Path) -> None:
    records = switched(12, rises={"rfs": 0.2}) + switched(12, pairs=1, seed=2)
    concluded = summarise(records)
    assert concluded.warnings[0] == concluded.switchback.warnings()[0]  # type: ignore[union-attr]
    written = concluded.to_json()["switchback"]
    assert [one["configuration"] for one in written["movements"] if one["found"]] == ["rfs"]
    files = write_report(records, concluded, tmp_path)
    text = files.html.read_text()
    for sentence in concluded.switchback.sentences():  # type: ignore[union-attr]
        assert sentence in text
    drawn = {path.stem: path for path in files.plots if path.suffix == ".svg"}
    svg = drawn["within-episodes"].read_text()
    assert "total bitrate [Mbit/s]" in svg
    assert all(name in svg for name in RATIOS)
    assert svg.count("episode ") >= 4
    patterns = re.findall(r"<pattern.*?</pattern>", svg, re.DOTALL)
    assert len(patterns) >= len(RATIOS) - 1
    assert max(map(len, patterns)) < 2000


def test_the_outline_of_a_window_is_0_in_gaps_only() -> None:
    parts = [Goodput(at=at, seconds=1, mbps=10 * (at + 1)) for at in (0.0, 1.0, 3.0)]
    assert outline(parts) == [
        (0, 0), (0, 10), (1, 10), (1, 20), (2, 20), (2, 0), (3, 0), (3, 40), (4, 40), (4, 0),
    ]  # fmt: skip
