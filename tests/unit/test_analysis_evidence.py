"""What speaks against a comparison: steering, order, failed attempts, values that are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import numpy as np
import pytest

from analysis.compare import compare
from analysis.evidence import MOST_INVALID
from analysis.metrics import find
from analysis.schema import QueueSteering, Record, Steering
from analysis.summary import summarise
from benchmarks.synthetic import sweep, valued

FALSE_VERDICTS = 0.05
MASKS = {"baseline": "0", "rfs": "f", "rps": "3"}


def steering(mask: str, device: str = "eth0") -> Steering:
    queue = QueueSteering(
        node="n", role="pod", device=device, queue="rx-0", rps_cpus=mask, rps_flow_cnt=0
    )
    return Steering(sock_flow_entries=0, queues=[queue])


def with_steering(
    records: Sequence[Record],
    before: Callable[[int, Record], str],
    after: Callable[[int, Record], str] | None = None,
) -> list[Record]:
    return [
        record.model_copy(
            update={
                "steering_before": steering(before(number, record), f"veth{number}"),
                "steering_after": steering((after or before)(number, record), f"veth{number}"),
            }
        )
        for number, record in enumerate(records)
    ]


def own(_: int, record: Record) -> str:
    return MASKS[record.configuration]


def judged(records: Sequence[Record], metric: str = "bitrate") -> tuple[str, str]:
    found = compare(records, records, "baseline", "rfs", metric=find(metric))
    return found.verdict, found.doubt


RECORDS = sweep({"baseline": 1, "rfs": 1.4}, blocks=12)


def test_the_steering_of_a_configuration_is_read_whatever_its_devices_are_called() -> None:
    assert judged(with_steering(RECORDS, own)) == ("better", "")
    assert summarise(with_steering(RECORDS, own)).keep == "rfs"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda *_: "0", None),  # the baseline's: nothing was steered
        (lambda n, one: "0" if one.configuration == "baseline" else ("3", "f")[n % 2], None),
        (own, lambda n, one: "1" if n == 7 else own(n, one)),
    ],
)
def test_steering_that_is_not_the_configuration_s_is_a_doubt(
    before: Callable[[int, Record], str], after: Callable[[int, Record], str] | None
) -> None:
    verdict, doubt = judged(with_steering(RECORDS, before, after))
    assert verdict == "inconclusive"
    assert "steering" in doubt


def test_another_steering_under_one_name_is_a_difference_of_two_sweeps() -> None:
    one = with_steering(RECORDS, own)
    other = with_steering(
        sweep({"baseline": 1, "rfs": 1.4}, blocks=12, seed=3),
        lambda _, record: "0" if record.configuration == "baseline" else "1",
    )
    found = compare(one, other, "rfs", "rfs")
    assert found.verdict == "inconclusive"
    assert any("steering of rfs" in difference for difference in found.differences)


def failed(record: Record) -> Record:
    return record.model_copy(update={"valid": False, "reasons": ["a pair stalled"]})


def survivors(records: Sequence[Record], slow: float) -> list[Record]:
    """The runs of one side fail where they are slow."""
    return [
        failed(record)
        if record.configuration == "rfs" and (record.pairs[0].values["bitrate_mbps"] or 0) < slow
        else record
        for record in records
    ]


@pytest.mark.long
@pytest.mark.parametrize("blocks", [8, 20, 60])
@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.1, 0.3, 0.6])
def test_runs_that_fail_where_they_are_slow_do_not_make_a_side_better(
    blocks: int, share: float
) -> None:
    found = []
    for seed in range(300):
        made = sweep(
            {"baseline": 1, "rfs": 1}, blocks=blocks, spread=0.1, block_spread=0, seed=seed,
            replicas=(1,), cores=1,
        )  # fmt: skip
        values = [one.pairs[0].values["bitrate_mbps"] or 0 for one in made]
        slow = float(np.quantile(values, share))
        found.append(judged(survivors(made, slow))[0])
    assert found.count("better") / len(found) < FALSE_VERDICTS + 0.03  # of 300 sweeps


def test_many_failed_attempts_of_a_side_are_a_doubt_and_few_are_a_caveat() -> None:
    made = sweep({"baseline": 1, "rfs": 1.4}, blocks=20)
    of_rfs = [number for number, one in enumerate(made) if one.configuration == "rfs"]
    for lost, verdict in ((0, "better"), (1, "better"), (2, "inconclusive"), (8, "inconclusive")):
        records = [
            failed(one) if number in of_rfs[:lost] else one for number, one in enumerate(made)
        ]
        assert judged(records)[0] == verdict
        summary = summarise(records)
        assert (summary.keep == "rfs") == (verdict == "better")
        assert any("invalid" in one for one in [*summary.caveats, *summary.warnings]) == bool(lost)
    assert MOST_INVALID < 2 / 20
    retried = [*made, failed(made[of_rfs[0]]), failed(made[of_rfs[1]])]
    assert judged(retried)[0] == "inconclusive"


def carrying_nothing(records: Sequence[Record]) -> list[Record]:
    return [
        record.model_copy(update={"pairs": [valued(p, bitrate_mbps=0) for p in record.pairs]})
        if record.configuration == "rfs" and (record.block or 0) % 2
        else record
        for record in records
    ]


@pytest.mark.parametrize("metric", ["bitrate", "softirq"])
def test_a_run_that_carried_nothing_is_not_dropped(metric: str) -> None:
    records = carrying_nothing(sweep({"baseline": 1, "rfs": 1.4}, blocks=14))
    verdict, doubt = judged(records, metric)
    assert verdict == "inconclusive"
    assert doubt


def reordered(records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    """The same runs, each block in one order."""
    start = min(record.start for record in records if record.start)
    found = sorted(records, key=lambda one: (one.block or 0, names.index(one.configuration)))
    return [
        record.model_copy(update={"order": number, "start": start + timedelta(seconds=5 * number)})
        for number, record in enumerate(found)
    ]


@pytest.mark.parametrize(
    "ratios", [{"baseline": 1, "rfs": 1.4}, {"baseline": 1, "rfs": 1.4, "rps": 1.2}]
)
def test_an_order_that_never_changes_is_not_random(ratios: Mapping[str, float]) -> None:
    records = sweep(ratios, blocks=8)
    assert judged(records)[0] == "better"
    verdict, doubt = judged(reordered(records, list(ratios)))
    assert (verdict, "order" in doubt) == ("inconclusive", True)


def test_an_order_without_times_is_a_claim() -> None:
    records = [record.model_copy(update={"start": None}) for record in RECORDS]
    verdict, doubt = judged(records)
    assert (verdict, "start" in doubt) == ("inconclusive", True)


def test_machines_that_are_not_recorded_are_not_alike() -> None:
    one, other = (
        [
            record.model_copy(update={"machine": None})
            for record in sweep({"rfs": ratio}, blocks=8, seed=seed)
        ]
        for ratio, seed in ((1, 0), (0.7, 4))
    )
    found = compare(one, other, "rfs", "rfs")
    assert found.verdict == "inconclusive"
    assert any("machine" in difference for difference in found.differences)
    assert compare(one, other, "rfs", "rfs", force=True).verdict == "worse"
