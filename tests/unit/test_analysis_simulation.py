"""The claims about error rates, tried on data with a known truth (fixed seeds).

The cases are those of benchmarks/promises.py, fewer of them. A rate is held against its claim
within the Monte Carlo error: a two-sided binomial test at 1 %, so a true claim fails in one of a
hundred seeds, and the seeds are fixed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from analysis.evidence import FEWEST_RUNS
from analysis.statistics import Floats, ratio
from benchmarks import promises, tables
from benchmarks.noise import (
    LAB,
    MEASURED,
    RHO,
    Noise,
    lab,
    measured,
    normal,
    skewed,
    sweep,
    wandering,
)

Rng = np.random.Generator
KEPT = json.loads(promises.KEPT.read_text())


def hits(case: Callable[[Rng], bool], cases: int, seed: int) -> int:
    return round(promises.rate(case, cases, seed) * cases)


def within(
    found: int, cases: int, rate: float, against: Literal["two-sided", "less", "greater"]
) -> bool:
    """Whether a count agrees with a rate (or one no lower, no higher) within Monte Carlo error."""
    return bool(stats.binomtest(found, cases, rate, against).pvalue > 0.01)


@pytest.mark.parametrize("size", promises.FAMILIES)
def test_the_difference_named_is_found_in_80_percent(size: int) -> None:
    cases = 400
    found = hits(lambda rng: promises.power_held(rng, size), cases, 20)
    assert within(found, cases, 0.8, "two-sided"), found / cases


def test_an_unadjusted_test_would_not_keep_that_promise() -> None:
    """The difference that one test alone would find, judged in the family of 25."""

    def case(rng: Rng) -> bool:
        alone = promises.judged(sweep(rng, configurations=2))[0].effect.mde or 0.0
        found = sweep(rng, configurations=6, counts=5, effects={(0, 1): math.log1p(alone)})
        return promises.judged(found)[0].verdict == "better"

    assert within(hits(case, 200, 21), 200, 0.5, "greater")


@pytest.mark.parametrize("size", promises.FAMILIES)
def test_a_family_without_any_effect_seldom_claims_one(size: int) -> None:
    cases = 300
    found = hits(lambda rng: promises.family_false(rng, size), cases, 22)
    assert within(found, cases, 0.05, "greater"), found / cases


def test_equally_good_configurations_are_seldom_told_apart() -> None:
    from analysis import comparisons

    def case(rng: Rng) -> bool:
        better = {(0, number): 0.4 for number in range(1, 6)}
        found = sweep(rng, configurations=6, effects=better)
        gained = any(one.verdict == "better" for one in promises.judged(found))
        assert gained or found.check.found
        (couples,) = comparisons.pairwise_couples(found, "baseline")
        pairwise = comparisons.family(found, couples, 0.95)
        return any(one.verdict in ("better", "worse") for one in pairwise)

    assert within(hits(case, 300, 23), 300, 0.05, "greater")


@pytest.mark.parametrize("rho", [0.0, RHO])
@pytest.mark.parametrize("shape", promises.SHAPES)
def test_dependent_blocks_are_judged_as_the_docs_have_it(
    shape: tuple[int, int], rho: float
) -> None:
    """How often dependence is found and withholds the verdict, how often it is missed, and what intervals cover."""
    cases = 400
    rng = np.random.default_rng(24)
    counts = sum(promises.wanders(rng, shape, rho) for _ in range(cases))
    kept = KEPT["dependence"][f"{rho:g}"][f"{shape[0]} x {shape[1]}"]
    for name, count in zip(promises.WANDERS, counts, strict=True):
        assert stats.binomtest(int(count), cases, kept[name]).pvalue > 0.001, (name, count / cases)


@pytest.mark.parametrize("runs", range(2, FEWEST_RUNS))
def test_nothing_is_claimed_from_fewer_runs_than_the_check_needs(runs: int) -> None:
    def case(rng: Rng) -> bool:
        effects = {(0, 1): 1.0, (0, 2): -1.0}
        return promises.claims(sweep(rng, configurations=6, blocks=runs, effects=effects))

    assert hits(case, 50, 27) == 0


@pytest.mark.parametrize("noise", [normal, skewed])
@pytest.mark.parametrize("blocks", [6, 20])
def test_interval_covers_the_truth_as_often_as_it_says(noise: Noise, blocks: int) -> None:
    share = promises.rate(lambda rng: promises.covered(rng, noise, blocks), 1000, 28)
    assert 0.92 <= share <= 0.975


def test_random_blocks_protect_from_drift_and_a_sequence_does_not() -> None:
    shared = partial(wandering, rho=0.95)
    cases = 800
    inside = hits(lambda rng: promises.covered(rng, normal, 10, shared), cases, 29)
    assert within(inside, cases, 0.95, "two-sided"), inside / cases
    assert promises.rate(lambda rng: promises.covered_in_sequence(rng, 10), cases, 30) < 0.75


def test_pairing_by_block_pays_where_blocks_differ() -> None:
    rng = np.random.default_rng(11)
    shared = rng.normal(0, 0.15, 12)

    def side() -> Floats:
        return np.exp(shared + normal(rng, (12,)))

    a, b = side(), side()
    paired, unpaired = ratio(a, b, paired=True), ratio(a, b, paired=False)
    assert paired.low and paired.high and unpaired.low and unpaired.high
    assert math.log(paired.high / paired.low) < 0.6 * math.log(unpaired.high / unpaired.low)


@pytest.mark.parametrize("spread", promises.SPREADS)
@pytest.mark.parametrize("baseline", [True, False])
def test_two_sweeps_without_a_change_are_seldom_called_worse(spread: float, baseline: bool) -> None:
    cases = 600
    found = hits(lambda rng: promises.two_sweeps_worse(rng, spread, baseline=baseline), cases, 31)
    assert within(found, cases, 0.05, "greater"), found / cases


@pytest.mark.parametrize("baseline", [True, False])
def test_two_sweeps_with_a_change_are_told_apart(baseline: bool) -> None:
    share = promises.rate(
        lambda rng: promises.two_sweeps_worse(rng, 0.02, baseline=baseline, ratio=0.8), 200, 32
    )
    assert share > 0.75


@pytest.mark.parametrize("episodes", promises.EPISODES)
def test_intervals_by_episode_cover_on_the_lab(episodes: int) -> None:
    """93 to 97 %, for each configuration and together."""
    cases = 300
    shares = promises.rates(lambda rng: promises.covered_on_the_lab(rng, episodes), cases, 34)
    for share in shares:
        assert within(round(share * cases), cases, 0.93, "less"), shares
        assert within(round(share * cases), cases, 0.97, "greater"), shares
    assert 0.93 <= float(np.mean(shares)) <= 0.97


@pytest.mark.parametrize("episodes", promises.EPISODES)
def test_intervals_cover_measured_episodes_as_often_as_the_docs_have_it(episodes: int) -> None:
    cases = 300
    shares = promises.rates(
        lambda rng: promises.covered_on_the_lab(rng, episodes, measured, configurations=MEASURED),
        cases,
        37,
    )
    kept = KEPT["coverage_by_episode_measured"].values()
    for share, row in zip(shares, kept, strict=True):
        assert within(round(share * cases), cases, row[str(episodes)], "two-sided"), shares
    size, claimed = MEASURED - 1, KEPT["false_verdict_measured"][str(episodes)]
    found = hits(lambda rng: promises.family_false(rng, size, episodes, measured), 300, 38)
    assert within(found, cases, claimed, "two-sided"), found / cases


@pytest.mark.parametrize("episodes", promises.EPISODES)
def test_the_family_of_the_lab_seldom_claims_an_effect(episodes: int) -> None:
    cases, size = 300, len(LAB) - 1
    found = hits(lambda rng: promises.family_false(rng, size, episodes, lab), cases, 35)
    assert within(found, cases, 0.05, "greater"), found / cases


def test_the_unit_is_the_episode_and_not_the_window() -> None:
    by_window, by_episode = (
        promises.rate(lambda rng, by=by: promises.windows_false(rng, by_episode=by), 1000, 36)
        for by in (False, True)
    )
    assert by_window > 0.12
    assert 0.03 < by_episode < 0.07


@pytest.mark.parametrize("name", promises.STOPS)
def test_stopping_early_costs_the_coverage_that_the_docs_have(name: str) -> None:
    """Ratios of one table share a baseline, so its share counts as one case."""
    cases = 200
    claimed = KEPT["coverage_when_until_ci_stops"][name]
    share = promises.rate(promises.STOPS[name], cases, 33)
    assert within(round(share * cases), cases, claimed, "two-sided"), share
    assert share > 0.91


@pytest.mark.parametrize("path", promises.PAGES, ids=lambda path: path.name)
def test_the_docs_have_the_kept_figures(path: Path) -> None:
    text = path.read_text()
    assert "benchmarks/promises.py:" in text
    assert tables.page(text, KEPT) == text


@pytest.mark.long
def test_the_figures_kept_are_those_of_the_program() -> None:
    """With other seeds: each share agrees with the kept one within both Monte Carlo errors."""
    cases = 2000
    again = promises.figures(cases, seed=2)

    def pairs(kept: object, other: object, name: str = "") -> list[tuple[str, float, float]]:
        if isinstance(kept, dict) and isinstance(other, dict):
            return [pair for key in kept for pair in pairs(kept[key], other[key], f"{name}/{key}")]
        if isinstance(kept, float) and isinstance(other, float):
            return [(name, kept, other)]
        return []

    for name, kept, other in pairs(KEPT, again):
        if not name.endswith("standard_error"):
            share = max(0.005, min(0.995, (kept + other) / 2))
            error = math.sqrt(share * (1 - share) * (1 / promises.CASES + 1 / cases))
            assert abs(kept - other) < 4 * error, name
