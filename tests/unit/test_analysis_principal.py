"""The metric that decides unless one is named."""

from __future__ import annotations

import pytest

from analysis.compare import compare
from analysis.history import Results, history
from analysis.schema import Pair, Record
from analysis.summary import summarise
from benchmarks.synthetic import mixed, valued

ASKED = 300.0


def paced(step: float, seed: int = 0) -> list[Record]:
    """Streams at a given rate, with latency beside them.

    The bitrate of `rps` is above it and below it in turns, by `step`: in the mean it is the same.
    """

    def rate(record: Record) -> float:
        sign = (-1) ** (record.block or 0) if record.configuration == "rps" else 0
        return float(ASKED * (1 + step) ** sign)

    return [
        one.model_copy(
            update={
                "pairs": [
                    valued(pair, bitrate_mbps=rate(one)) if pair.kind == "stream" else pair
                    for pair in one.pairs
                ]
            }
        )
        for one in mixed({"baseline": {}, "rps": {"p99_us": 1.6}}, blocks=10, seed=seed)
    ]


def scaled(pair: Pair, factor: float) -> Pair:
    rate = pair.values.get("bitrate_mbps")
    return valued(pair, bitrate_mbps=rate * factor) if rate else pair


@pytest.mark.parametrize(
    ("step", "other", "metric"),
    [
        (0.0, 0.0, "p99_us"),
        (0.002, 0.002, "p99_us"),
        # the estimate is 1, but its interval is wider than 1 %
        (0.03, 0.03, "bitrate_mbps"),
        (0.002, 0.03, "bitrate_mbps"),
    ],
)
def test_report_gate_and_history_choose_the_same(step: float, other: float, metric: str) -> None:
    before, after = paced(step), paced(other, seed=1)
    of_reports = {summarise(records).metric.name for records in (before, after)}
    assert of_reports == {metric} or step != other
    assert compare(before, after, "rps", "rps").metric == metric
    assert compare(after, before, "rps", "rps").metric == metric
    assert history([Results("before", before), Results("after", after)]).metric.name == metric
    for records in (before, after):
        own = compare(records, records, "baseline", "rps")
        assert own.metric == summarise(records).metric.name


def test_baselines_whose_rates_fell_equally_are_compared_by_bitrate() -> None:
    """In each sweep all configurations have the same bitrate; with and without a spread of the runs."""
    for step in (0.0, 0.002):
        before, after = paced(step), paced(step, seed=1)
        fallen = [
            one.model_copy(update={"pairs": [scaled(pair, factor) for pair in one.pairs]})
            for one in after
            for factor in [0.3 * 1.001 ** ((one.block or 0) % 2)]
        ]
        assert compare(before, after, "baseline", "baseline").metric == "p99_us"
        found = compare(before, fallen, "baseline", "baseline")
        assert (found.metric, found.verdict, found.exit_code) == ("bitrate_mbps", "worse", 4)
        assert compare(before, fallen, "baseline", "rps").metric == "bitrate_mbps"
        # relative to the baselines, the bitrates are the same
        assert compare(before, fallen, "rps", "rps").metric == "p99_us"


def test_one_configuration_alone_is_compared_by_its_bitrate() -> None:
    """Nothing shows that others would have the same."""
    before, after = (
        [one for one in paced(0.0, seed) if one.configuration == "rps"] for seed in (0, 1)
    )
    assert summarise(before).metric.name == "bitrate_mbps"
    assert compare(before, after, "rps", "rps").metric == "bitrate_mbps"
