"""The claims about error rates, tried on data with a known truth (fixed seeds)."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from analysis import families, sequential, statistics, verdict
from analysis.compare import compare
from analysis.pairing import Series, StateKey
from analysis.schema import Pair, Record
from analysis.statistics import Floats, ratio

Noise = Callable[[np.random.Generator, int], Floats]


def normal(rng: np.random.Generator, runs: int) -> Floats:
    return rng.normal(0, 0.06, runs)


def skewed(rng: np.random.Generator, runs: int) -> Floats:
    """A long tail of slow runs: skewness -1.4 on the logs, mean zero."""
    return 0.06 * (math.sqrt(2) - rng.gamma(2.0, 1 / math.sqrt(2), runs))


def within(
    hits: int, repeats: int, rate: float, against: Literal["two-sided", "less", "greater"]
) -> bool:
    """Whether a count agrees with a rate (or one no lower, no higher) within Monte Carlo error."""
    return stats.binomtest(hits, repeats, rate, against).pvalue > 0.01


def pair_of_arms(
    rng: np.random.Generator, noise: Noise, runs: int, truth: float, *, blocks: bool
) -> tuple[Floats, Floats]:
    shared = rng.normal(0, 0.15, runs) if blocks else np.zeros(runs)
    a = 1000 * np.exp(shared + noise(rng, runs))
    return a, 1000 * truth * np.exp(shared + 0.7 * noise(rng, runs))


@pytest.mark.parametrize(
    ("noise", "runs", "blocks"),
    [
        (normal, 6, True),
        (normal, 20, True),
        (normal, 20, False),
        (skewed, 6, True),
        (skewed, 20, True),
        (skewed, 20, False),
    ],
)
def test_interval_covers_the_truth_as_often_as_it_says(
    noise: Noise, runs: int, blocks: bool
) -> None:
    rng = np.random.default_rng(10)
    truth, hits, repeats = 1.2, 0, 1500
    for _ in range(repeats):
        a, b = pair_of_arms(rng, noise, runs, truth, blocks=blocks)
        effect = ratio(a, b, paired=blocks, check=False)
        assert effect.low is not None and effect.high is not None
        hits += effect.low <= truth <= effect.high
    assert 0.93 <= hits / repeats <= 0.97


def test_pairing_by_block_pays_where_blocks_differ() -> None:
    rng = np.random.default_rng(11)
    a, b = pair_of_arms(rng, normal, 12, 1.2, blocks=True)
    paired, unpaired = ratio(a, b, paired=True), ratio(a, b, paired=False)
    assert paired.low and paired.high and unpaired.low and unpaired.high
    assert math.log(paired.high / paired.low) < 0.6 * math.log(unpaired.high / unpaired.low)


NAMES = ("one", "two", "three", "four", "five")


def family(rng: np.random.Generator, ratios: dict[str, float]) -> dict[StateKey, Series]:
    """Two replica counts x the configurations x 6 blocks."""
    found: dict[StateKey, Series] = {}
    for replicas in (1, 4):
        shared = rng.normal(0, 0.1, 6)
        for name, factor in ratios.items():
            values = factor * 1000 * np.exp(shared + rng.normal(0, 0.06, 6))
            found["overlay", replicas, name] = Series(values, tuple(range(6)))
    return found


def judged(bitrates: dict[StateKey, Series]) -> tuple[list[str], list[str]]:
    keys = list(bitrates)
    contrasts = families.against(bitrates, keys, "baseline", 0.95, check=False)
    pairwise = families.pairwise(bitrates, keys, "baseline", 0.95)
    return (
        [one.verdict for one in contrasts],
        [one.verdict for one in pairwise if one.replicas == 4],
    )


CLAIMS = {"better", "worse"}


def test_a_family_without_any_effect_seldom_claims_one() -> None:
    rng, repeats = np.random.default_rng(12), 250
    same = dict.fromkeys(("baseline", *NAMES), 1.0)
    claims = sum(bool(CLAIMS & set(judged(family(rng, same))[0])) for _ in range(repeats))
    assert within(claims, repeats, 0.05, "greater")


def test_equally_good_configurations_are_seldom_told_apart() -> None:
    rng, repeats = np.random.default_rng(13), 200
    alike = {"baseline": 1.0} | dict.fromkeys(NAMES, 1.5)
    found = [judged(family(rng, alike)) for _ in range(repeats)]
    assert all("better" in contrasts for contrasts, _ in found)
    claims = sum(bool(CLAIMS & set(pairwise)) for _, pairwise in found)
    assert within(claims, repeats, 0.05, "greater")


def dependent(rng: np.random.Generator, rho: float, runs: int) -> Floats:
    steps = rng.normal(0, math.sqrt(1 - rho**2), runs)
    values = np.empty(runs)
    values[0] = rng.normal()
    for i in range(1, runs):
        values[i] = rho * values[i - 1] + steps[i]
    return np.exp(0.05 * values)


def test_dependent_runs_break_the_interval_and_the_verdict_says_so() -> None:
    rng, repeats, runs = np.random.default_rng(14), 200, 30
    effects = [
        ratio(dependent(rng, 0.7, runs), dependent(rng, 0.7, runs), paired=False, check=False)
        for _ in range(repeats)
    ]
    covered = np.mean([one.low is not None and one.low <= 1 <= (one.high or 0) for one in effects])
    assert covered < 0.75
    above = [one for one in effects if (one.dependence.lag1 or 0) > statistics.LAG1_LIMIT]
    assert len(above) > 0.95 * repeats
    withheld = [verdict.judge(one, one.p) == "not established" for one in above]
    assert np.mean(withheld) > 0.95
    claims = [verdict.judge(one, one.p) in CLAIMS for one in effects]
    assert np.mean(claims) < 0.05 < np.mean([one.p is not None and one.p < 0.05 for one in effects])


def runs_of(rng: np.random.Generator, name: str, factor: float, shared: Floats) -> list[Record]:
    return [
        Record(
            target="lab",
            configuration=name,
            replicas=1,
            valid=True,
            duration=1,
            block=block,
            pairs=[Pair(index=1, bitrate_mbps=float(value))],
        )
        for block, value in enumerate(1000 * factor * np.exp(shared + rng.normal(0, 0.05, 8)))
    ]


@pytest.mark.parametrize("one_sweep", [True, False])
def test_gate_catches_the_printed_regression_and_leaves_equals_alone(one_sweep: bool) -> None:
    """Blocks of one sweep, and two sweeps; the regression is what an earlier equal pair printed."""
    rng, repeats = np.random.default_rng(15), 250
    caught = flagged = 0

    def gate(factor: float) -> tuple[bool, float]:
        shared = rng.normal(0, 0.1 if one_sweep else 0.0, 8)
        before = runs_of(rng, "a", 1.0, shared)
        after = runs_of(rng, "b" if one_sweep else "a", factor, shared)
        if one_sweep:
            before = after = before + after
        answer = compare(before, after, "a", "b" if one_sweep else "a")
        assert answer.effect.method == ("paired" if one_sweep else "unpaired")
        assert answer.mde is not None
        return answer.exit_code == 4, answer.mde

    for _ in range(repeats):
        flag, least = gate(1.0)
        flagged += flag
        caught += gate(1 / (1 + least))[0]
    assert within(caught, repeats, 0.8, "two-sided")
    assert flagged / repeats <= 0.05


@pytest.mark.parametrize("blocks", [True, False])
def test_stopping_early_costs_little_coverage(blocks: bool) -> None:
    rng, truth, repeats, hits = np.random.default_rng(16), 1.2, 200, 0
    lengths = []
    for _ in range(repeats):
        a, b = pair_of_arms(rng, normal, 120, truth, blocks=blocks)
        for runs in range(sequential.FEWEST, 121):
            effect = ratio(a[:runs], b[:runs], paired=blocks, check=False)
            if sequential.enough(effect, 0.04):
                break
        assert effect.low is not None and effect.high is not None
        hits += effect.low <= truth <= effect.high
        lengths.append(runs)
    assert 8 < np.mean(lengths) < 40
    assert within(hits, repeats, 0.93, "less")
    assert within(hits, repeats, 0.97, "greater")
