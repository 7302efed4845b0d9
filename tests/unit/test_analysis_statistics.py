"""Intervals, tests and dependence against known answers and properties."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis import statistics
from analysis.statistics import detectable, drift, holm, lag1, ratio, with_power

A = np.array([102.0, 98, 105, 97, 101, 99])
B = np.array([121.0, 119, 130, 118, 125, 117])


def test_paired_ratio_is_the_t_interval_of_log_ratios() -> None:
    effect = ratio(A, B, paired=True)
    logs = np.log(B / A)
    half = stats.t.ppf(0.975, 5) * logs.std(ddof=1) / math.sqrt(6)
    assert effect.estimate == pytest.approx(math.exp(logs.mean()))
    assert effect.low == pytest.approx(math.exp(logs.mean() - half))
    assert effect.high == pytest.approx(math.exp(logs.mean() + half))
    assert effect.median == pytest.approx(math.exp(np.median(logs)))
    assert effect.p == pytest.approx(stats.ttest_rel(np.log(B), np.log(A)).pvalue)


def test_unpaired_ratio_is_welch_on_logs_and_has_the_baseline_s_spread() -> None:
    effect = ratio(A, B, paired=False)
    va, vb = np.log(A).var(ddof=1) / 6, np.log(B).var(ddof=1) / 6
    freedom = (va + vb) ** 2 / (va**2 / 5 + vb**2 / 5)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(va + vb)
    centre = np.log(B).mean() - np.log(A).mean()
    assert effect.low == pytest.approx(math.exp(centre - half))
    assert effect.high == pytest.approx(math.exp(centre + half))
    noisier = ratio(np.exp(3 * (np.log(A) - np.log(A).mean())) * 100, B, paired=False)
    assert noisier.high is not None and effect.high is not None
    assert noisier.low is not None and effect.low is not None
    assert noisier.high / noisier.low > effect.high / effect.low


def test_a_side_without_spread_leaves_the_interval_to_the_other() -> None:
    effect = statistics.difference(np.zeros(10), [*[0.0] * 9, 1920.0], paired=False)
    half = stats.t.ppf(0.975, 9) * 192
    assert (effect.estimate, effect.problem) == (192, None)
    assert (effect.low, effect.high) == pytest.approx((192 - half, 192 + half))
    one_sided = ratio([5.0, 5.0], [7.0, 8.0], paired=False)
    assert one_sided.problem is None and one_sided.freedom == pytest.approx(1)


def test_bootstrap_agrees_with_the_t_interval_on_many_normal_blocks() -> None:
    rng = np.random.default_rng(1)
    a = np.exp(rng.normal(0, 0.05, 100))
    for paired in (True, False):
        effect = ratio(a, 1.1 * np.exp(rng.normal(0, 0.05, 100)), paired=paired)
        assert effect.check is not None
        assert effect.check == pytest.approx((effect.low, effect.high), rel=0.01)


def test_block_bootstrap_sees_what_neighbours_share() -> None:
    rng = np.random.default_rng(2)
    a = np.exp(np.repeat(rng.normal(0, 0.1, 20), 3))
    b = np.exp(np.repeat(rng.normal(0, 0.1, 20), 3))
    effect = ratio(a, b, paired=False)
    assert effect.check and effect.low and effect.high
    assert effect.check[1] / effect.check[0] > effect.high / effect.low


positive = st.floats(1.0, 1e4)


@given(
    st.lists(st.tuples(positive, positive), min_size=3, max_size=12),
    st.floats(1e-3, 1e3),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_scale_invariance(values: list[tuple[float, float]], scale: float, paired: bool) -> None:
    a, b = (np.array(side) for side in zip(*values, strict=True))
    one = ratio(a, b, paired=paired, check=False)
    two = ratio(a * scale, b * scale, paired=paired, check=False)
    assume(one.p is not None and one.p > 1e-12)
    assert two.estimate == pytest.approx(one.estimate)
    assert two.low == pytest.approx(one.low, rel=1e-6)
    assert two.high == pytest.approx(one.high, rel=1e-6)
    assert two.p == pytest.approx(one.p, rel=1e-5)


@given(st.lists(st.tuples(positive, positive), min_size=3, max_size=12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_other_way_round_is_the_reciprocal(
    values: list[tuple[float, float]], paired: bool
) -> None:
    a, b = (np.array(side) for side in zip(*values, strict=True))
    there, back = ratio(a, b, paired=paired, check=False), ratio(b, a, paired=paired, check=False)
    assume(there.low is not None and there.high is not None and there.high < 1e100)
    assert there.estimate and back.estimate and there.low and back.high
    assert there.estimate * back.estimate == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1, rel=1e-6)


@given(st.permutations(range(8)), st.booleans())
@settings(deadline=None)
def test_order_of_runs_moves_nothing_but_dependence(order: list[int], paired: bool) -> None:
    rng = np.random.default_rng(3)
    a, b = np.exp(rng.normal(0, 0.1, 8)), np.exp(rng.normal(0.1, 0.1, 8))
    one, two = ratio(a, b, paired=paired), ratio(a[order], b[order], paired=paired)
    assert (two.estimate, two.low, two.high, two.p, two.error) == pytest.approx(
        (one.estimate, one.low, one.high, one.p, one.error)
    )


@pytest.mark.parametrize(
    ("a", "b", "paired", "problem"),
    [
        ([], [], True, "no runs"),
        ([1.0], [2.0], True, "one shared block"),
        ([1.0], [2.0, 3.0], False, "one run"),
        ([1.0, 2.0], [2.0, 4.0], True, "no spread"),
        ([5.0, 5.0], [7.0, 7.0], False, "no spread"),
        ([0.0, 1.0], [1.0, 2.0], True, "has 0"),
    ],
)
def test_what_cannot_be_said_is_not_said(
    a: list[float], b: list[float], paired: bool, problem: str
) -> None:
    effect = ratio(a, b, paired=paired)
    assert (effect.low, effect.high, effect.p, effect.mde) == (None, None, None, None)
    assert problem in (effect.problem or "")


def test_wild_runs_give_wide_but_finite_intervals() -> None:
    effect = ratio([1e-150, 1e150], [1e150, 1e-150], paired=True)
    assert effect.high is not None and math.isfinite(effect.high)
    mde = with_power(effect, family=25).mde
    assert mde is not None and math.isfinite(mde)
    assert effect.p == pytest.approx(1)


def test_holm_is_holm_s() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.5]) == [0.02, None, 0.5]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_between_raw_and_bonferroni_and_keeps_order(values: list[float]) -> None:
    adjusted = holm(list(values))
    assert all(p is not None for p in adjusted)
    for raw, p in zip(values, adjusted, strict=True):
        assert p is not None
        assert raw <= p <= min(1, raw * len(values)) + 1e-12
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(np.array(adjusted, dtype=float)[order]) >= 0)


def test_detectable_effect_shrinks_towards_the_normal_one() -> None:
    found = [detectable(freedom) for freedom in (2, 5, 19, 1000)]
    assert found == sorted(found, reverse=True)
    normal = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert found[-1] == pytest.approx(normal, rel=0.01)


def test_a_family_needs_larger_effects_than_a_single_comparison() -> None:
    effect = ratio(A, B, paired=True)
    found = [with_power(effect, family=size).mde for size in (1, 5, 25)]
    assert all(one is not None for one in found)
    assert found == sorted(found, key=lambda one: one or 0)
    withheld = with_power(effect, family=1, kept=0.95).mde
    assert withheld is not None and found[0] is not None and withheld > found[0]
    assert with_power(ratio([1.0], [2.0], paired=True), family=1).mde is None


def test_an_allowance_widens_the_interval_by_its_variance() -> None:
    plain, wide = (ratio(A, B, paired=False, allowance=size) for size in (0.0, 0.5))
    assert plain.error is not None and wide.error is not None
    assert wide.error == pytest.approx(math.hypot(plain.error, 0.5))
    assert wide.p is not None and plain.p is not None and wide.p > plain.p


def test_values_are_on_logarithms_for_a_ratio_unless_one_is_0() -> None:
    values = np.array([1.0, math.e])
    assert [list(statistics.scaled(values, of)[0]) for of in ("ratio", "difference")] == [
        [0.0, 1.0], [1.0, math.e],
    ]  # fmt: skip
    assert [statistics.scaled(one, "ratio")[1] for one in (values, values - 1)] == [True, False]


def test_lag1_is_the_usual_estimate() -> None:
    values = np.array([1.0, 3, 2, 5, 4, 6])
    centred = values - values.mean()
    expected = (centred[1:] * centred[:-1]).sum() / (centred**2).sum()
    assert lag1(values) == pytest.approx(expected)


def test_lag1_needs_three_runs_and_spread() -> None:
    assert lag1(np.array([1.0, 2.0])) is None
    assert lag1(np.array([4.0, 4.0, 4.0])) is None


def test_drift_is_the_change_over_the_sequence() -> None:
    found = drift(np.exp(np.linspace(0, math.log(1.2), 10)))
    assert found.change == pytest.approx(0.2)
    assert found.p is not None and found.p < 1e-4
    assert drift(np.array([3.0, 3.0, 3.0])).change is None
    assert drift(np.array([0.0, 1.0, 2.0])).change is None


def test_spread_leaves_out_nan_and_knows_no_spread_of_one() -> None:
    import pandas as pd

    frame = pd.DataFrame({"k": list("aaab"), "v": [1.0, 3.0, math.nan, 5.0]})
    table = statistics.spread(frame.groupby("k")["v"])
    assert table.loc["a", "mean"] == 2
    assert table.loc["a", "half"] == pytest.approx(stats.t.ppf(0.975, 1) * 1.0)
    assert list(table["half"].isna()) == [False, True]
