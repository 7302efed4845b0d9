"""The stopping rule of `--until-ci` on synthetic sweeps and given differences."""

import numpy as np
import pytest

from analysis import sequential, statistics
from analysis.pairing import StateKey
from analysis.sequential import open_states, precise
from analysis.statistics import Effect
from benchmarks.synthetic import sweep

RECORDS = sweep(
    {"baseline": 1, "same": 1, "slow": 0.8}, replicas=(1, 4), blocks=sequential.FEWEST, spread=0.03
)
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
    without = [record for record in RECORDS if record.configuration != "baseline"]
    assert open_states(without, STATES, 1.0) == set(STATES)


def test_a_half_width_must_be_positive() -> None:
    with pytest.raises(ValueError, match="half width"):
        open_states(RECORDS, STATES, 0)


def key(name: str) -> StateKey:
    return ("overlay", 4, name)


def ratio(spread: float, runs: int = 10) -> Effect:
    """A ratio whose differences of logarithms have exactly this standard deviation."""
    logs = np.arange(runs) - (runs - 1) / 2
    b = np.exp(spread * logs / logs.std(ddof=1))
    return statistics.ratio(np.ones(runs), b, paired=True, check=False)


def test_a_spread_that_is_small_by_chance_does_not_stop_beside_larger_ones() -> None:
    lucky, others = ratio(0.02), {key(name): ratio(0.2) for name in "abcd"}
    width = sequential.relative_half_width(lucky)
    assert width is not None
    assert precise({key("lucky"): lucky}, width * 1.001) == {key("lucky")}
    assert precise({key("lucky"): lucky, **others}, width * 1.001) == set()
    assert precise({key("lucky"): lucky, **others}, width * 6) == {key("lucky")}


@pytest.mark.parametrize("beside", [0.01, 0.1, 1.0])
def test_no_ratio_stops_whose_own_interval_is_wider(beside: float) -> None:
    one = ratio(0.1)
    width = sequential.relative_half_width(one)
    assert width is not None
    effects = {key("one"): one, key("other"): ratio(beside)}
    assert key("one") not in precise(effects, width * 0.999)


def test_a_single_ratio_has_its_own_variance() -> None:
    one = ratio(0.1)
    width = sequential.relative_half_width(one)
    assert width is not None
    assert precise({key("one"): one}, width * 0.999) == set()
    assert precise({key("one"): one}, width * 1.001) == {key("one")}


def test_nothing_stops_before_the_fewest_runs() -> None:
    fewest = sequential.FEWEST
    assert precise({key("one"): ratio(0.01, fewest - 1)}, 1.0) == set()
    assert precise({key("one"): ratio(0.01, fewest)}, 1.0) == {key("one")}
