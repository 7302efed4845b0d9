"""The gate: one answer, its exit code, and what it refuses to compare."""

import json

import pytest

from analysis.compare import NothingToCompare, UnlikeMachines, compare
from analysis.schema import Record
from analysis.sequential import open_states
from analysis.synthetic import sweep

RECORDS = sweep(
    {"baseline": 1, "same": 1, "slow": 0.8, "fast": 1.2}, replicas=(1, 4), blocks=8, spread=0.03
)


def kernel(records: list[Record], name: str) -> list[Record]:
    return [
        record.model_copy(update={"machine": record.machine.model_copy(update={"kernel": name})})
        for record in records
        if record.machine
    ]


def test_worse_is_exit_4_and_all_else_0() -> None:
    worse = compare(RECORDS, RECORDS, "baseline", "slow")
    assert (worse.verdict, worse.exit_code) == ("worse", 4)
    assert worse.ci is not None and worse.ci[1] < 1
    assert worse.effect.method == "paired"
    better = compare(RECORDS, RECORDS, "baseline", "fast")
    assert (better.verdict, better.exit_code) == ("better", 0)
    same = compare(RECORDS, RECORDS, "baseline", "same")
    assert (same.verdict, same.exit_code) == ("no difference established", 0)
    assert same.mde is not None and same.p is not None and same.p > 0.05


def test_sentence_and_json_say_everything() -> None:
    answer = compare(RECORDS, RECORDS, "baseline", "slow")
    for part in ("slow against baseline", "at 4 pairs", "worse", "0.8", "p <0.001", "8 runs"):
        assert part.replace("8 runs", "8 against 8 runs") in answer.sentence
    data = json.loads(json.dumps(answer.to_json(), allow_nan=False))
    assert data["exit_code"] == 4
    assert data["effect"]["low"] < data["effect"]["estimate"] < data["effect"]["high"]


def test_replicas_default_to_the_largest_and_can_be_asked_for() -> None:
    assert compare(RECORDS, RECORDS, "baseline", "slow").replicas == 4
    assert compare(RECORDS, RECORDS, "baseline", "slow", at=1).replicas == 1


def test_two_directories_compare_unpaired_even_with_the_same_blocks() -> None:
    after = sweep({"baseline": 0.8}, blocks=8, seed=1)
    answer = compare(RECORDS, after, "baseline", "baseline")
    assert answer.effect.method == "unpaired"
    assert answer.verdict == "worse"


def test_a_copy_of_the_same_records_is_the_same_sweep() -> None:
    copy = [record.model_copy() for record in RECORDS]
    assert compare(RECORDS, copy, "baseline", "slow").effect.method == "paired"


def test_unlike_machines_are_refused_unless_forced() -> None:
    after = kernel(sweep({"baseline": 0.8}, blocks=8, seed=1), "7.0")
    with pytest.raises(UnlikeMachines, match=r"kernel: 6\.1\.0-synthetic against 7\.0"):
        compare(RECORDS, after, "baseline", "baseline")
    forced = compare(RECORDS, after, "baseline", "baseline", force=True)
    assert forced.exit_code == 4
    assert any("7.0" in difference for difference in forced.differences)


def test_unlike_runs_are_refused_too() -> None:
    after = [record.model_copy(update={"streams": 4}) for record in RECORDS]
    with pytest.raises(UnlikeMachines, match="streams"):
        compare(RECORDS, after, "baseline", "baseline")


@pytest.mark.parametrize(
    ("a", "b", "at", "words"),
    [
        ("baseline", "typo", None, "no valid run of typo"),
        ("baseline", "slow", 16, "at 16 pairs"),
        ("slow", "slow", None, "with itself"),
    ],
)
def test_nothing_to_compare_names_what_there_is(a: str, b: str, at: int | None, words: str) -> None:
    with pytest.raises(NothingToCompare, match=words):
        compare(RECORDS, RECORDS, a, b, at=at)


def with_soft(records: list[Record], name: str, points: float) -> list[Record]:
    return [
        record.model_copy(
            update={
                "cores": [
                    core.model_copy(
                        update={
                            "soft": (core.soft or 0) + points,
                            "idle": (core.idle or 0) - points,
                        }
                    )
                    for core in record.cores
                ]
            }
        )
        if record.configuration == name
        else record
        for record in records
    ]


def test_cpu_is_compared_in_points_and_more_softirq_is_worse() -> None:
    records = with_soft(RECORDS, "same", 4.0)
    soft = compare(records, records, "baseline", "same", metric="softirq")
    assert soft.verdict == "worse"
    assert soft.effect.estimate == pytest.approx(16, abs=6)
    idle = compare(records, records, "baseline", "same", metric="idle")
    assert idle.verdict == "worse"
    assert idle.effect.estimate == pytest.approx(-4, abs=1.5)
    assert "points" in idle.sentence
    back = compare(records, records, "same", "baseline", metric="softirq")
    assert back.verdict == "better"


def test_runs_without_cpu_figures_have_nothing_to_compare() -> None:
    bare = [record.model_copy(update={"cores": []}) for record in RECORDS]
    with pytest.raises(NothingToCompare):
        compare(bare, bare, "baseline", "slow", metric="idle")


def test_one_run_each_is_not_established() -> None:
    few = [record for record in RECORDS if record.block == 0]
    answer = compare(few, few, "baseline", "slow")
    assert (answer.verdict, answer.exit_code) == ("not established", 0)
    assert "no spread" in answer.sentence


STATES = [("overlay", 4, name) for name in ("baseline", "same", "slow")]


def test_states_close_when_their_interval_is_narrow_and_the_baseline_with_the_last() -> None:
    assert open_states(RECORDS, STATES, 1.0) == set()
    assert open_states(RECORDS, STATES, 0.0001) == set(STATES)
    few = [record for record in RECORDS if record.configuration != "slow" or record.block != 0]
    assert open_states(few, STATES, 1.0) == {STATES[0], STATES[2]}


def test_a_state_that_was_not_run_stays_open() -> None:
    absent = ("overlay", 4, "absent")
    assert open_states(RECORDS, [*STATES, absent], 1.0) == {absent, STATES[0]}
    assert open_states([], STATES, 1.0) == set(STATES)


def test_a_half_width_must_be_positive() -> None:
    with pytest.raises(ValueError, match="half width"):
        open_states(RECORDS, STATES, 0)
