"""Tidy tables: what a run's number is, and what it never becomes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.metrics import server_cores
from analysis.pairing import arms, series
from analysis.schema import Core, Machine, Pair, QueueSteering, Record, Steering
from analysis.tables import (
    configuration_order,
    core_table,
    problems,
    run_table,
)

BITRATE = "bitrate_mbps"


def record(
    *bitrates: float | None, cores: tuple[Core, ...] = (), valid: bool = True, **more: object
) -> Record:
    return Record.model_validate(
        {
            "target": "lab",
            "configuration": "baseline",
            "replicas": len(bitrates) or 1,
            "valid": valid,
            "duration": 1,
            "pairs": [
                Pair(
                    index=i,
                    values={"bitrate_mbps": b},
                    reason=None if b is not None else "timed out",
                )
                for i, b in enumerate(bitrates, 1)
            ],
            "cores": cores,
            **more,
        }
    )


def test_a_run_is_the_mean_over_its_pairs() -> None:
    row = run_table([record(100, 200, 600)]).iloc[0]
    assert (row["bitrate_mbps"], row["total_mbps"], row["valid"]) == (300, 900, True)


def test_a_pair_without_a_number_takes_the_run_out() -> None:
    row = run_table([record(100, None)]).iloc[0]
    assert not row["valid"]
    assert math.isnan(row["bitrate_mbps"])
    assert row["reasons"] == "pair 2 was not measured: timed out"


def test_missing_pairs_take_the_run_out() -> None:
    assert problems(record(100, 200, replicas=3)) == ["2 pairs instead of 3"]
    assert problems(record()) == ["0 pairs instead of 1"]


def test_a_pair_of_another_kind_beside_them_is_not_one_of_the_replicas() -> None:
    beside = record(100, 300, 5, replicas=2)
    kinds = ("stream", "stream", "rr")
    pairs = [
        pair.model_copy(update={"kind": kind})
        for pair, kind in zip(beside.pairs, kinds, strict=True)
    ]
    assert problems(beside.model_copy(update={"pairs": pairs})) == []
    assert problems(beside.model_copy(update={"pairs": pairs[1:]})) == ["1 pairs instead of 2"]


def test_a_measured_zero_stays_zero() -> None:
    row = run_table([record(0, 0)]).iloc[0]
    assert row["valid"]
    assert row["bitrate_mbps"] == 0


def test_an_invalid_run_always_has_a_reason() -> None:
    assert problems(record(1, valid=False)) == ["no reason given"]
    assert problems(record(1, valid=False, reasons=["drift"])) == ["drift"]


@given(st.lists(st.none() | st.floats(0.001, 1e6), min_size=1, max_size=8))
def test_null_never_becomes_a_number(bitrates: list[float | None]) -> None:
    row = run_table([record(*bitrates)]).iloc[0]
    if None in bitrates:
        assert math.isnan(row["bitrate_mbps"])
        assert math.isnan(row["total_mbps"])
    else:
        known = [b for b in bitrates if b is not None]
        assert row["bitrate_mbps"] == pytest.approx(math.fsum(known) / len(known))


def test_cpu_that_was_not_measured_is_nan_not_zero() -> None:
    row = run_table([record(1)]).iloc[0]
    assert math.isnan(row["idle_percent"])
    assert math.isnan(row["softirq_cores"])
    half = (Core(node="n", core=0, soft=10, idle=90), Core(node="n", core=1))
    row = run_table([record(1, cores=half)]).iloc[0]
    assert math.isnan(row["idle_percent"])
    table = core_table([record(1, cores=half)])
    assert list(table["soft"].isna()) == [False, True]


def test_server_cores_are_the_lab_s_or_the_steered_nodes_or_all() -> None:
    lab = tuple(Core(node="lab", core=i, soft=i, idle=50) for i in range(4))
    machine = Machine(kernel="k", cpu="c", cores=4, server_cores=[0, 1])
    assert [core.core for core in server_cores(record(1, cores=lab, machine=machine))] == [0, 1]
    cluster = tuple(Core(node=node, core=0) for node in ("a", "b"))
    queue = QueueSteering(
        node="b", role="nic", device="eth1", queue="rx-0", rps_cpus="0", rps_flow_cnt=0
    )
    steering = Steering(sock_flow_entries=0, queues=[queue])
    found = server_cores(record(1, cores=cluster, steering_before=steering))
    assert [core.node for core in found] == ["b"]
    assert len(server_cores(record(1, cores=cluster))) == 2


def test_invalid_runs_have_no_cores_in_the_table() -> None:
    core = (Core(node="n", core=0, soft=1, idle=99),)
    assert core_table([record(1, cores=core, valid=False)]).empty


def test_configurations_come_baseline_first_then_by_number() -> None:
    names = ["rps-16", "rps-7", "baseline", "rfs", "rps"]
    assert configuration_order(names, "baseline") == ["baseline", "rfs", "rps", "rps-7", "rps-16"]
    assert configuration_order(names, "rps")[0] == "rps"


def runs(*rows: tuple[str, float, int | None]) -> list[Record]:
    return [
        record(value, configuration=name, block=block, order=order)
        for order, (name, value, block) in enumerate(rows)
    ]


def test_arms_pair_by_block_and_leave_out_the_partnerless() -> None:
    found = series(
        run_table(
            runs(("a", 1, 0), ("b", 2, 0), ("b", 4, 1), ("a", 3, 1), ("a", 9, 2), ("b", 8, 3))
        ),
        BITRATE,
    )
    a, b, paired = arms(found["overlay", 1, "a"], found["overlay", 1, "b"])
    assert paired
    assert list(a) == [1, 3]
    assert list(b) == [2, 4]


def test_arms_without_two_shared_blocks_are_unpaired() -> None:
    found = series(run_table(runs(("a", 1, 0), ("b", 2, 0), ("a", 3, None), ("b", 5, 7))), BITRATE)
    a, b, paired = arms(found["overlay", 1, "a"], found["overlay", 1, "b"])
    assert not paired
    assert (list(a), list(b)) == ([1, 3], [2, 5])


def test_blocks_of_two_sweeps_are_not_the_same_block() -> None:
    one = [record(1, configuration="a", block=block, plan="x") for block in range(3)]
    two = [record(1, configuration="b", block=block, plan="y") for block in range(3)]
    found = series(run_table(one + two), BITRATE)
    assert not arms(found["overlay", 1, "a"], found["overlay", 1, "b"])[2]


def test_runs_are_ordered_by_time_then_order() -> None:
    late = record(1, start="2025-01-02T00:00:00Z", order=0)
    early = record(2, start="2025-01-01T00:00:00Z", order=1)
    assert list(run_table([late, early])["bitrate_mbps"]) == [2, 1]
