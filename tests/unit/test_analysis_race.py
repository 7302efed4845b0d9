"""E-values, the race, its limits, and the confirmation: what they compute and decide."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from analysis import limits
from analysis.evalues import PRIOR, Moderation, Sums, error, log_e, radius
from analysis.race import AHEAD, FEWEST, Aims, Costs, Race
from analysis.race_limits import Excesses, excess
from analysis.tuning import COMBINE, LENGTH, Step, Tuning

COSTS = Costs(0.7, 0.3)


def sums(values: Sequence[float]) -> Sums:
    found = Sums.empty(1)
    for value in values:
        found.add(slice(None), np.array([value]))
    return found


def marginal(
    values: Sequence[float], own: Moderation, *, one_sided: bool, mean: float = 0.0
) -> float:
    """The likelihood ratio of the prior to the hypothesis "the mean is `mean`", by integration.

    The variance has a scaled inverse chi-squared density of `own`, or 1 / variance without one.
    """
    x = np.asarray(values) - mean
    log_sigma, delta = np.linspace(math.log(0.01), math.log(50), 1500), np.linspace(-8, 8, 2001)
    sigma, effect = np.exp(log_sigma)[:, None], delta[None, :]
    n, total, squares = len(x), x.sum(), float(np.sum(x**2)) + float(own.squares)
    rest = squares - 2 * total * effect * sigma + n * (effect * sigma) ** 2
    likelihood = np.exp(-rest / (2 * sigma**2) - (n + own.weight) * log_sigma[:, None])
    prior = stats.norm.pdf(delta, scale=1 / math.sqrt(PRIOR))
    if one_sided:
        prior = np.where(delta > 0, 2 * prior, np.where(delta == 0, prior, 0.0))
    alternative = np.trapezoid(np.trapezoid(likelihood * prior, delta, axis=1), log_sigma)
    null = np.trapezoid(likelihood[:, len(delta) // 2], log_sigma)
    return float(alternative / null)


@pytest.mark.parametrize("own", [Moderation(), Moderation(4.0, 3.0)])
@pytest.mark.parametrize("values", [(0.9, 1.4, 0.3, 1.1), (-0.5, 0.4, -0.9)])
def test_the_e_value_is_the_ratio_of_the_likelihoods(
    own: Moderation, values: tuple[float, ...]
) -> None:
    expected = marginal(values, own, one_sided=True)
    assert math.exp(log_e(sums(values), own)[0]) == pytest.approx(expected, rel=1e-3)


def test_the_confidence_sequence_ends_where_the_two_sided_test_rejects() -> None:
    own, values = Moderation(4.0, 3.0), (0.9, 1.4, 0.3, 1.1, 0.8, 0.7)
    half = radius(sums(values), own, 0.05)[0]
    at_its_end = marginal(values, own, one_sided=False, mean=float(np.mean(values) + half))
    assert at_its_end == pytest.approx(20, rel=1e-3)


def test_few_values_bound_nothing() -> None:
    assert radius(sums([0.1]), Moderation(), 0.05)[0] == math.inf
    assert log_e(Sums.empty(2), Moderation(4.0, 0.1)).tolist() == [0.0, 0.0]


def test_without_a_difference_an_e_value_seldom_ever_reaches_its_level() -> None:
    rng = np.random.default_rng(1)
    found = Sums.empty(4000)
    ever = np.zeros(4000, dtype=bool)
    for _ in range(60):
        found.add(slice(None), rng.normal(size=4000))
        ever |= log_e(found, Moderation()) >= math.log(20)
    assert 0.01 < ever.mean() <= 0.05


def test_the_standard_error_is_moderated() -> None:
    found = sums([1.0, 3.0])
    assert error(found, Moderation())[0] == pytest.approx(1.0)
    assert error(found, Moderation(4.0, 4.0))[0] == pytest.approx(math.sqrt(6 / 5 / 2))


def raced(race: Race, truth: Sequence[float], episodes: int, spread: float = 0.02) -> Race:
    rng = np.random.default_rng(0)
    for _ in range(episodes):
        arms = race.next(1e6, COSTS)
        if not arms:
            break
        level = rng.normal()
        race.add(arms, [truth[arm] + level + rng.normal(0, spread) for arm in arms])
    return race


def test_worse_arms_leave_and_the_best_stays() -> None:
    standing = raced(Race([0, 1, 1, 2]), [0.0, 0.5, 0.1, 0.49], 8).standing()
    assert set(standing.open) <= {1, 3}
    assert standing.leader in (1, 3)
    assert standing.recommended == 1
    assert standing.resolved
    assert standing.loss <= math.log(1.03)


def test_the_simplest_of_equal_arms_is_recommended_and_the_baseline_is_the_simplest() -> None:
    assert raced(Race([0, 1, 1, 2]), [0.0, 0.2, 0.0, 0.2], 30, 0.05).standing().recommended == 1
    assert raced(Race([0, 1, 1, 2]), [0.0, 0.0, 0.0, 0.0], 30, 0.05).standing().recommended == 0


def test_nothing_leaves_and_nothing_is_bounded_before_three_episodes() -> None:
    race = Race([0, 1, 1])
    for number in range(FEWEST):
        assert race.standing().loss == math.inf
        assert len(race.standing().open) == 3
        race.add([0, 1, 2], [0.0, 1.0, 2.0 + 0.01 * number])
    assert race.standing().open == (2,)


def test_a_single_comparison_is_moderated_by_nothing() -> None:
    """With 2 arms the pooled variance is that of their own difference."""
    rng = np.random.default_rng(3)
    gone = 0
    for _ in range(300):
        race = Race([0, 1])
        for _ in range(12):
            race.add([0, 1], rng.normal(size=2))
        gone += len(race.standing().open) < 2
    assert gone <= 300 * 0.1  # each of both may leave with 5 %


def uncertain(arms: Sequence[int], episode: int) -> list[float]:
    """Logs that rise with the arm, and noise that cancels over two episodes but shows no arm to be worse."""
    return [0.01 * arm + 0.3 * (-1) ** (arm // 2 + episode) for arm in arms]


def test_the_first_episodes_measure_all_and_later_ones_what_time_leaves() -> None:
    race = Race([0, *[1] * 9])
    for episode in range(FEWEST + 1):
        assert sorted(race.next(1000, COSTS)) == list(range(10))
        race.add(list(range(10)), uncertain(range(10), episode))
    assert race.next(AHEAD * COSTS.of(5) + 0.01, COSTS) == [9, 8, 7, 6, 5, 4]
    assert race.next(AHEAD * COSTS.of(1), COSTS) == [9, 8, 7, 6]
    assert race.next(COSTS.of(4) - 0.01, COSTS) == []


def test_what_is_left_out_takes_turns_beside_the_best() -> None:
    race = Race([0, *[1] * 9])
    for episode in range(FEWEST + 1):
        race.add(list(range(10)), uncertain(range(10), episode))
    visits = []
    for _ in range(7):
        *_, turn = race.next(AHEAD * COSTS.of(1), COSTS)
        visits.append(turn)
        race.add([9, 8, 7, turn], [0.09, 0.08, 0.07, 0.01 * turn])
    assert sorted(visits) == list(range(7))


def test_an_arm_that_only_took_turns_is_not_called_near_the_best() -> None:
    race = raced(Race([0, 1, 2]), [0.0, 0.2, 0.2], FEWEST)
    for _ in range(2 * FEWEST + 1):
        race.add([0, 2], [0.0, 0.2])
    standing = race.standing()
    assert standing.leader == 2
    assert standing.recommended == 2


def test_arms_that_join_are_measured_at_once_beside_the_best() -> None:
    race = raced(Race([0, 1, 1], most=5), [0.0, 0.2, 0.21], 6)
    assert race.join([2, 2]) == [3, 4]
    arms = race.next(AHEAD * COSTS.of(1) + 5, COSTS)
    assert {3, 4} <= set(arms)
    assert {1, 2} & set(arms)
    with pytest.raises(ValueError, match="6 arms"):
        race.join([3])


def test_a_better_arm_that_joins_late_wins() -> None:
    race = raced(Race([0, 1, 1], most=4), [0.0, 0.2, 0.21], 10)
    race.join([2])
    standing = raced(race, [0.0, 0.2, 0.21, 0.5], 8).standing()
    assert standing.open == (3,)
    assert standing.recommended == 3


def limit(text: str) -> limits.Limit:
    return limits.parse(text)


@pytest.mark.parametrize(
    ("text", "value", "baseline", "expected"),
    [
        ("p99_us=+10%", 120.0, 100.0, math.log(1.2 / 1.1)),
        ("p99_us=+10%", 100.0, 100.0, -math.log(1.1)),
        ("p99_us=200", 100.0, 50.0, -math.log(2)),
        ("p99_us=+50", 120.0, 100.0, -30.0),
        ("bitrate=-5%", 90.0, 100.0, math.log(0.95 / 0.9)),
        ("retransmits_per_gbit=+50", 120.0, 50.0, 20.0),
        ("retransmits_per_gbit=50", 20.0, 90.0, -30.0),
    ],
)
def test_an_excess_is_positive_beyond_the_limit(
    text: str, value: float, baseline: float, expected: float
) -> None:
    assert excess(limit(text), value, baseline) == pytest.approx(expected)


def with_limit(excesses: Sequence[float], episodes: int = 12, spread: float = 0.05) -> Race:
    """Three arms of which each is better than the one before, with their mean excesses."""
    rng = np.random.default_rng(0)
    race = Race([0, 1, 1], limits=1)
    for _ in range(episodes):
        arms = race.next(1e6, COSTS)
        assert 0 in arms
        row = [excesses[arm] + (rng.normal(0, spread) if arm else 0.0) for arm in arms]
        race.add(arms, [0.3 * arm + rng.normal(0, 0.02) for arm in arms], [row])
    return race


def test_an_arm_that_exceeds_a_limit_is_out_and_beats_nobody() -> None:
    standing = with_limit([-0.1, -0.1, 0.2]).standing()
    assert 2 not in standing.open
    assert standing.recommended == 1


def test_an_arm_that_may_exceed_a_limit_beats_nobody_and_is_not_recommended() -> None:
    standing = with_limit([-0.1, -0.4, 0.15], spread=0.3).standing()
    assert {1, 2} <= set(standing.open)
    assert standing.recommended == 1


def test_a_baseline_that_exceeds_a_limit_is_out() -> None:
    """As with p99_us=-10%: it is certain, because the baseline does not differ from itself."""
    standing = with_limit([0.1, -0.1, 0.2]).standing()
    assert standing.open == (1,)


def test_what_never_varied_is_certain() -> None:
    found = Excesses(1, 2)
    for _ in range(3):
        found.add([0, 1], [[0.0, 2.0]])
    assert found.kept().tolist() == [math.inf, -math.inf]
    assert found.exceeded(0.05).tolist() == [False, True]
    assert found.likely(1.0).tolist() == [True, False]


def steps(tuning: Tuning, truth: Sequence[float], spread: float = 0.03) -> list[Step]:
    rng = np.random.default_rng(0)
    made, used = [], 0.0
    while step := tuning.step(used):
        used += tuning.costs.of(step.total)
        made.append(step)
        tuning.add(step, [truth[arm] + rng.normal(0, spread) for arm in step.arms])
    assert used <= tuning.budget
    return made


def test_a_race_is_followed_by_a_confirmation_with_fresh_episodes() -> None:
    tuning = Tuning(Race([0, 1, 1]), COSTS, 60)
    made = steps(tuning, [0.0, 0.5, 0.1])
    fresh = [step for step in made if step.phase == "confirmation"]
    assert len(fresh) == tuning.planned >= 10
    assert {step.arms for step in fresh} == {(1, 0)}
    assert {step.length for step in fresh} == {LENGTH}
    answer = tuning.answer()
    assert answer.arm == 1
    assert answer.ratio
    assert answer.ratio.n_a == len(fresh)
    assert answer.ratio.low
    assert answer.ratio.high
    assert answer.ratio.low < math.exp(0.5) < answer.ratio.high


def test_the_baseline_needs_no_confirmation() -> None:
    tuning = Tuning(Race([0, 1, 1]), COSTS, 60)
    assert all(step.phase == "race" for step in steps(tuning, [0.0, -0.5, -0.1]))
    answer = tuning.answer()
    assert (answer.arm, answer.ratio) == (0, None)
    assert answer.standing.loss <= math.log(1.03)


def test_a_gain_that_is_not_confirmed_is_not_applied() -> None:
    tuning = Tuning(Race([0, 1, 1]), COSTS, 60)
    steps(tuning, [0.0, 0.5, 0.1])
    unsure = Tuning(tuning.race, COSTS, 60)
    unsure.confirm(10)
    for number in range(10):
        step = unsure.step(0)
        assert step
        unsure.add(step, [0.1 * (-1) ** number, 0.0])
    answer = unsure.answer()
    assert answer.standing.recommended == 1
    assert answer.arm == 0


def test_an_interrupted_confirmation_has_a_wider_interval() -> None:
    whole, part = (Tuning(raced(Race([0, 1, 1]), [0.0, 0.5, 0.1], 5), COSTS, 60) for _ in "12")
    rng = np.random.default_rng(5)
    logs = [[0.5 + rng.normal(0, 0.05), 0.0] for _ in range(10)]
    for tuning, planned in ((whole, 10), (part, 20)):
        tuning.confirm(planned)
        for one in logs:
            step = tuning.step(0)
            assert step
            tuning.add(step, one)
    a, b = whole.answer().ratio, part.answer().ratio
    assert a
    assert b
    assert a.low
    assert b.low
    assert a.estimate == b.estimate
    assert b.low < a.low
    assert whole.step(0) is None
    assert part.step(0)


def test_an_invalid_episode_counts_as_tried() -> None:
    tuning = Tuning(raced(Race([0, 1, 1]), [0.0, 0.5, 0.1], 5), COSTS, 60)
    tuning.confirm(2)
    for _ in range(2):
        step = tuning.step(0)
        assert step
        tuning.add(step, None)
    assert tuning.step(0) is None
    assert tuning.answer().ratio is None
    assert tuning.answer().arm == 0


@pytest.mark.parametrize(("beyond", "applied"), [(-0.1, 1), (-0.001, 0), (0.1, 0)])
def test_fresh_episodes_must_show_that_limits_are_kept(beyond: float, applied: int) -> None:
    tuning = Tuning(with_limit([-0.1, -0.1, 0.2]), COSTS, 60)
    tuning.confirm(10)
    rng = np.random.default_rng(6)
    for _ in range(10):
        step = tuning.step(0)
        assert step
        tuning.add(step, [0.3, 0.0], [[beyond + rng.normal(0, 0.05), -0.1]])
    answer = tuning.answer()
    assert answer.kept is bool(applied)
    assert answer.arm == applied


def test_an_arm_within_limits_replaces_a_baseline_that_exceeds_them() -> None:
    tuning = Tuning(with_limit([0.1, -0.1, 0.2]), COSTS, 60)
    tuning.confirm(4)
    for _ in range(4):
        step = tuning.step(0)
        assert step
        tuning.add(step, [-0.2, 0.0], [[-0.1, 0.1]])
    assert tuning.answer().arm == 1


def test_what_helped_is_combined_once() -> None:
    asked: list[int] = []

    def combine(race: Race) -> list[int]:
        asked.append(race.episodes)
        return [2]

    tuning = Tuning(Race([0, 1, 1], most=4), COSTS, 60, combine)
    made = steps(tuning, [0.0, 0.3, 0.3, 0.6])
    assert asked == [COMBINE]
    assert all(3 not in step.arms for step in made[:COMBINE])
    assert tuning.answer().arm == 3


def test_nothing_joins_too_late_to_be_judged() -> None:
    tuning = Tuning(Race([0, 1, 1], most=20), COSTS, 30, lambda _: [2] * 17)
    steps(tuning, [0.0, 0.01, 0.0], 0.2)
    assert set(tuning.standing.open) <= {0, 1, 2}
    assert tuning.combine is None


def test_a_smaller_aim_needs_more_fresh_episodes() -> None:
    planned = []
    for eps in (0.03, 0.01):
        tuning = Tuning(Race([0, 1, 1], aims=Aims(eps)), COSTS, 600)
        steps(tuning, [0.0, 0.5, 0.1], 0.05)
        planned.append(tuning.planned or 0)
    assert planned[0] < planned[1]
