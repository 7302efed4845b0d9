"""What the statistics promise, tried on data with a known truth: false verdicts, power, coverage.

.venv/bin/python -m benchmarks.promises > benchmarks/promises.json
.venv/bin/python -m benchmarks.promises --docs    # the kept figures into docs/

The unit tests run the same functions with fewer cases and other seeds; docs/reliability.md shows
the figures. Everything is fed to the functions that `report` and `compare` use.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from analysis import compare, comparisons, dependence, evidence, sequential, statistics
from analysis.dependence import Check
from analysis.evidence import Evidence
from analysis.pairing import StateKey
from analysis.statistics import Floats
from analysis.verdict import Contrast
from benchmarks import ROOT, show, tables
from benchmarks.noise import (
    BLOCK_SPREAD,
    LAB,
    MEASURED,
    RHO,
    RUN_SPREAD,
    Noise,
    collapsing,
    lab,
    measured,
    name_of,
    normal,
    one_sided,
    skewed,
    sweep,
    wandering,
)

Case = Callable[..., bool | Floats]

CASES = 4000
# Families by their size: configurations beside the baseline, and replica counts.
FAMILIES = {1: (1, 1), 5: (5, 1), 25: (5, 5)}
SHAPES = ((2, 6), (2, 10), (2, 20), (6, 6), (6, 10), (6, 20), (6, 40))  # configurations, blocks
RHOS = (0.0, 0.2, 0.4, RHO)
SPREADS = (0.0, 0.01, 0.02, 0.03)
EPISODES = (10, 20, 40)
MOST_BLOCKS = 120


def judged(found: Evidence) -> list[Contrast]:
    """The verdicts of the report against the baseline."""
    return comparisons.family(found, comparisons.against_couples(found, "baseline"), 0.95)


def claims(found: Evidence) -> bool:
    return any(one.verdict in ("better", "worse") for one in judged(found))


def family_false(
    rng: np.random.Generator, size: int, blocks: int = 10, noise: Noise = normal
) -> bool:
    """Whether a family without any effect claims one."""
    others, counts = FAMILIES.get(size, (size, 1))
    found = sweep(rng, configurations=others + 1, counts=counts, blocks=blocks, noise=noise)
    return claims(found)


def power_held(rng: np.random.Generator, size: int, blocks: int = 10) -> bool:
    """Whether a sweep finds the difference that an earlier, equal one named as found in 80 %."""
    others, counts = FAMILIES[size]
    again = partial(sweep, rng, configurations=others + 1, counts=counts, blocks=blocks)
    named = judged(again())[0].effect.mde or 0.0
    effect = math.log1p(named) * rng.choice([-1, 1])
    found = judged(again(effects={(0, 1): effect}))[0]
    return found.verdict == ("better" if effect > 0 else "worse")


def found_when_closed(rng: np.random.Generator) -> bool:
    """Whether the check finds dependence where there is none, four of six configurations closed after 10 blocks."""
    logs = normal(rng, (40, 6))
    logs[10:, 1:5] = math.nan
    return dependence.of_residuals(dependence.centred(logs)).found


WANDERS = ("found", "withheld", "claimed", "covered", "claimed without the check")


def wanders(rng: np.random.Generator, shape: tuple[int, int], rho: float) -> Floats:
    """One comparison without an effect whose noise wanders with this correlation: `WANDERS`, 0 or 1 each."""
    noise = partial(wandering, rho=rho)
    found = sweep(rng, configurations=shape[0], blocks=shape[1], noise=noise)
    key = ("overlay", 1, "baseline"), ("overlay", 1, "c1")
    (one,) = comparisons.family(found, [key], 0.95)
    (unchecked,) = comparisons.family(replace(found, check=Check(shape[1], shape[0])), [key], 0.95)
    claimed = [each.verdict in ("better", "worse") for each in (one, unchecked)]
    return np.array(
        [found.check.found, bool(one.doubt), claimed[0], _holds(one.effect, 1.0), claimed[1]]
    )


def covered(rng: np.random.Generator, noise: Noise, blocks: int, drift: Noise = normal) -> bool:
    """Whether the interval of a ratio, paired by block, holds the truth."""
    found = sweep(rng, configurations=2, blocks=blocks, noise=noise, drift=drift)
    keys = list(found.series)
    return _holds(found.effect(keys[0], keys[1], confidence=0.95), 1.0)


def covered_on_the_lab(
    rng: np.random.Generator,
    episodes: int,
    noise: Noise = lab,
    *,
    configurations: int = len(LAB),
    occasion: float = 0.0,
) -> Floats:
    """Whether each interval of the lab's configurations against the baseline holds the truth.

    `occasion` is the spread of each true ratio between occasions; the episodes are of one.
    """
    effects = {(0, number): rng.normal(0, occasion) for number in range(1, configurations)}
    made = sweep(rng, configurations=configurations, blocks=episodes, noise=noise, effects=effects)
    found = judged(made)
    return np.array([_holds(one.effect, 1.0) for one in found])


def windows_false(
    rng: np.random.Generator, *, by_episode: bool, windows: int = 5, episodes: int = 10
) -> Floats:
    """Whether a t test of each configuration of the lab, which does not differ, is significant."""
    logs = lab(rng, (len(LAB), windows * episodes), windows)
    differences = logs[1:] - logs[0]
    if by_episode:
        differences = differences.reshape(-1, episodes, windows).mean(axis=-1)
    return np.asarray(stats.ttest_1samp(differences, 0.0, axis=-1).pvalue < 0.05)


def covered_in_sequence(rng: np.random.Generator, runs: int) -> bool:
    """The same for all runs of A, then all of B, with the drift that blocks would have shared."""
    logs = BLOCK_SPREAD / RUN_SPREAD * wandering(rng, (2 * runs,), 0.95) + normal(rng, (2 * runs,))
    return _holds(
        statistics.ratio(np.exp(logs[:runs]), np.exp(logs[runs:]), paired=False, check=False), 1.0
    )


def stopped_covers(
    rng: np.random.Generator,
    noise: Noise,
    half_width: float,
    configurations: int = len(LAB),
) -> Floats:
    """Whether each interval holds the truth when `--until-ci` ends its configuration."""
    values = np.exp(noise(rng, (configurations, MOST_BLOCKS)))
    keys: list[StateKey] = [("overlay", 1, name_of(number)) for number in range(configurations)]
    made: dict[StateKey, list[int]] = {key: [] for key in keys[1:]}
    effects: dict[StateKey, statistics.Effect] = {}
    left = set(made)
    for block in range(MOST_BLOCKS):
        for number, key in enumerate(keys):
            if key in left:
                made[key].append(block)
            if key in left and block + 1 >= sequential.FEWEST:
                first, second = values[0, made[key]], values[number, made[key]]
                effects[key] = statistics.ratio(first, second, paired=True, check=False)
        left = made.keys() - sequential.precise(effects, half_width)
        if not left:
            break
    return np.array([_holds(effects[key], 1.0) for key in made])


STOPS: dict[str, Case] = {
    "normal noise": partial(stopped_covers, noise=normal, half_width=0.04),
    "skewed ratios": partial(stopped_covers, noise=one_sided, half_width=0.03),
    "skewed ratio, one alone": partial(
        stopped_covers, noise=one_sided, half_width=0.03, configurations=2
    ),
    "the noise of the lab": partial(stopped_covers, noise=lab, half_width=0.07),
    "measured episodes": partial(
        stopped_covers, noise=measured, half_width=0.07, configurations=MEASURED
    ),
}


def two_sweeps_worse(
    rng: np.random.Generator, spread: float, *, baseline: bool, ratio: float = 1.0
) -> bool:
    """Whether `compare --to` says worse; the truth is `ratio`, the sweeps differ by `spread`.

    The spread (standard deviation of each sweep's level) is common to all configurations.
    """
    before, after = (
        sweep(
            rng,
            configurations=2,
            blocks=10,
            occasion=rng.normal(0, spread),
            effects={(0, 0 if not baseline else 1): effect},
        )
        for effect in (0.0, math.log(ratio))
    )
    key = ("overlay", 1, "c1" if baseline else "baseline")
    return compare.two_sweeps(before, after, key, key, "baseline")[0].verdict == "worse"


def _holds(effect: statistics.Effect, truth: float) -> bool:
    return effect.low is not None and effect.high is not None and effect.low <= truth <= effect.high


def rate(case: Case, cases: int, seed: int) -> float:
    """The share of simulated cases in which something happens."""
    return float(np.mean(rates(case, cases, seed)))


def rates(case: Case, cases: int, seed: int) -> Floats:
    """The same for each element of a case."""
    rng = np.random.default_rng(seed)
    return np.asarray(np.mean([np.asarray(case(rng)) for _ in range(cases)], axis=0))


def figures(cases: int = CASES, seed: int = 1) -> dict[str, Any]:
    """Every figure; its Monte Carlo standard error is at most 0.5 / sqrt(cases)."""

    def of(case: Case, *words: Any, **more: Any) -> float:
        return round(rate(lambda rng: case(rng, *words, **more), cases, seed), 3)

    def by_episode(noise: Noise, configurations: int) -> dict[str, dict[str, float]]:
        case = partial(covered_on_the_lab, noise=noise, configurations=configurations)
        shares = [rates(partial(case, episodes=n), cases, seed).tolist() for n in EPISODES]
        names = [*LAB][1:configurations]
        return {
            name: {str(n): round(share, 3) for n, share in zip(EPISODES, own, strict=True)}
            for name, *own in zip(names, *shares, strict=True)
        }

    def by_wandering(shape: tuple[int, int], rho: float) -> dict[str, float]:
        shares = rates(partial(wanders, shape=shape, rho=rho), cases, seed)
        return dict(zip(WANDERS, shares.round(3).tolist(), strict=True))

    def false_by_episode(noise: Noise, configurations: int) -> dict[str, float]:
        return {str(n): of(family_false, configurations - 1, n, noise) for n in EPISODES}

    return {
        "figure": f"shares of {cases} simulated cases each",
        "standard_error": round(0.5 / math.sqrt(cases), 4),
        "power_of_the_difference_named": {str(m): of(power_held, m) for m in FAMILIES},
        "false_verdict_in_a_family": {str(m): of(family_false, m) for m in FAMILIES},
        "dependence": {
            f"{rho:g}": {f"{a} x {b}": by_wandering((a, b), rho) for a, b in SHAPES} for rho in RHOS
        },
        "dependence_found_where_four_of_six_are_closed": of(found_when_closed),
        "coverage_of_the_95_interval": {
            "normal, 6 blocks": of(covered, normal, 6),
            "normal, 10 blocks": of(covered, normal, 10),
            "skewed, 6 blocks": of(covered, skewed, 6),
            "skewed, 10 blocks": of(covered, skewed, 10),
            **{f"skewed ratio, {n} blocks": of(covered, one_sided, n) for n in EPISODES},
            **{
                f"noise of the lab, 1 window of 50 at a tenth, {n} episodes": of(
                    covered_on_the_lab, n, collapsing
                )
                for n in EPISODES
            },
            "drift 0.95 that all share, 10 blocks": of(
                covered, normal, 10, drift=partial(wandering, rho=0.95)
            ),
            "drift 0.95, all of A, then all of B, 10 runs": of(covered_in_sequence, 10),
        },
        "coverage_by_episode_on_the_lab": by_episode(lab, len(LAB)),
        "coverage_by_episode_measured": by_episode(measured, MEASURED),
        "false_verdict_on_the_lab": false_by_episode(lab, len(LAB)),
        "false_verdict_measured": false_by_episode(measured, MEASURED),
        "coverage_of_the_ratio_in_general_by_one_occasion_of_40": of(
            covered_on_the_lab, 40, occasion=0.05
        ),
        "false_positives_with_5_windows_an_episode": {
            "t test over windows": of(windows_false, by_episode=False),
            "t test over episodes": of(windows_false, by_episode=True),
        },
        "coverage_when_until_ci_stops": {name: of(case) for name, case in STOPS.items()},
        "compare_to_false_worse": {
            f"{spread:.0%}".replace("%", " %"): {
                "both have a baseline": of(two_sweeps_worse, spread, baseline=True),
                "3 % assumed": of(two_sweeps_worse, spread, baseline=False),
            }
            for spread in SPREADS
        },
        "compare_to_finds_0.8x_at_2_percent": {
            "both have a baseline": of(two_sweeps_worse, 0.02, baseline=True, ratio=0.8),
            "3 % assumed": of(two_sweeps_worse, 0.02, baseline=False, ratio=0.8),
        },
        "dependence_needs_blocks": dependence.FEWEST_BLOCKS,
        "verdict_needs_runs": evidence.FEWEST_RUNS,
    }


PAGES = (ROOT / "docs/statistics.md", ROOT / "docs/reliability.md")
KEPT = Path(__file__).with_suffix(".json")


def main() -> None:
    """Print every figure as JSON, or write the kept ones into the docs."""
    if sys.argv[1:] == ["--docs"]:
        for path in PAGES:
            path.write_text(tables.page(path.read_text(), json.loads(KEPT.read_text())))
    else:
        show(figures())


if __name__ == "__main__":
    main()
