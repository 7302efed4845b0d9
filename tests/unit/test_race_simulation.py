"""What a race reaches, on noise of the lab with a known truth (fixed seeds, fewer cases than benchmarks/race.py)."""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks import race

REPETITIONS = 150


@cache
def got(name: str, minutes: float) -> dict[str, float]:
    scenario, count, _ = race.TABLE[name]
    return race.cases(scenario, count, minutes, REPETITIONS, seed=7)


@pytest.mark.parametrize(
    ("name", "minutes", "least"),
    [
        ("24 lab", 3, 0.94),
        ("24 lab", 1, 0.89),
        ("12 lab", 1, 0.87),
        ("48 lab", 3, 0.97),
        ("24 noisy", 3, 0.89),
    ],
)
def test_what_is_recommended_is_within_3_percent_of_the_best(
    name: str, minutes: float, least: float
) -> None:
    found = got(name, minutes)
    assert found["within"] >= least
    assert found["best_in_set"] >= 0.97
    assert found["loss_held"] >= 0.97
    assert found["covered"] >= 0.89


def test_equal_arms_are_seldom_called_better() -> None:
    found = got("24 equal", 3)
    assert found["better"] <= 0.075
    assert found["best_in_set"] == 1
    assert found["size"] > 20


def test_the_best_baseline_is_the_answer() -> None:
    assert got("24 base best", 3)["baseline"] >= 0.96


@pytest.mark.long
@pytest.mark.parametrize("name", ["24 heavy tails", "24 one very noisy", "24 one +10 %"])
def test_hard_noise_holds(name: str) -> None:
    scenario, count, _ = race.TABLE[name]
    found = race.cases(scenario, count, 3, 1000, seed=8)
    assert found["best_in_set"] >= 0.97
    assert found["covered"] >= 0.92
    assert found["within"] >= 0.93
