"""Explanations, from the mean figures of sweeps measured on the lab."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest

from analysis.explanation import explain, work
from analysis.metrics import BITRATE
from analysis.recommend import Recommendation
from analysis.schema import Confounders, Core, Datagrams, Machine, Pair, Record, Softnet
from analysis.summary import summarise
from analysis.verdict import digits
from benchmarks.synthetic import sweep, valued


class Measured(NamedTuple):
    """A core: idle, softirq, system and user time (percent), the rest of softnet_stat a second."""

    idle: float
    soft: float
    sys: float
    usr: float
    processed: int
    dropped: int = 0
    squeezed: int = 0
    received_rps: int = 0


# Two cores; bitrates are relative to the baseline's.
FOUR_PAIRS = {
    "baseline": (1.00, Measured(0.3, 99.2, 0.4, 0.1, 1_302_500, 112),
                 Measured(17.7, 46.7, 32.9, 2.6, 107_200)),
    "rfs": (1.39, Measured(2.6, 87.0, 9.8, 0.5, 1_196_800, 310, received_rps=600),
            Measured(1.5, 84.6, 12.7, 1.1, 632_100, received_rps=300)),
}  # fmt: skip
ONE_PAIR = {
    "baseline": (1.00, Measured(12.0, 60.0, 23.5, 0.8, 1_281_400), Measured(40.0, 35.8, 23.5, 0.8, 71_600)),
    "rps": (0.86, Measured(25.2, 67.0, 7.2, 0.5, 816_500), Measured(39.2, 42.9, 17.3, 0.5, 345_900)),
}  # fmt: skip


def measured(
    table: dict[str, tuple[float, Measured, Measured]], replicas: int, blocks: int = 8
) -> list[Record]:
    """A sweep whose cores are those of the table; window 2 s."""
    records = sweep(
        {name: ratio for name, (ratio, *_) in table.items()}, replicas=(replicas,), blocks=blocks
    )
    return [with_cores(one, table[one.configuration][1:]) for one in records]


def with_cores(record: Record, cores: Iterable[Measured]) -> Record:
    rows = list(enumerate(cores))
    return record.model_copy(
        update={
            "window": 2.0,
            "cores": [
                Core(
                    node="lab", core=number, idle=core.idle, soft=core.soft, sys=core.sys,
                    usr=core.usr, side="server",
                )
                for number, core in rows
            ],
            "softnet": [
                Softnet(
                    node="lab", core=number, processed=2 * core.processed, dropped=2 * core.dropped,
                    squeezed=2 * core.squeezed, received_rps=2 * core.received_rps, flow_limit=0,
                )
                for number, core in rows
            ],
        }
    )  # fmt: skip


def test_full_core_and_the_core_that_took_over_its_work() -> None:
    first, second, third = summarise(measured(FOUR_PAIRS, 4)).explanation
    for figure in ("4 pairs", "core 0", "99 %", "0.3 %", "92 %", "1.30 million"):
        assert figure in first
    for figure in ("rfs", "from 99 % to 87 %", "core 1", "from 47 % to 85 %", "35 %", "8 %", "900"):
        assert figure in second
    assert "112" in third and "310" in third


def with_datagrams(record: Record, **drops: int) -> Record:
    counts = {"socket_drops": 0, "other_errors": 0, "device_drops": 0, **drops}
    row = Datagrams(node="lab", sent=None, delivered=700_000, **counts)
    return record.model_copy(update={"traffic": "udp", "datagrams": [row]})


def test_packets_handed_over_are_compared_with_those_of_the_baseline() -> None:
    table = {
        name: (ratio, *(core._replace(received_rps=rate) for core in cores))
        for (name, (ratio, *cores)), rate in zip(FOUR_PAIRS.items(), (410, 730), strict=True)
    }
    (text,) = [one for one in summarise(measured(table, 4)).explanation if "handed" in one]
    assert "1,460" in text and "820" in text and "baseline" in text.partition("820")[2]


def test_where_datagrams_were_dropped() -> None:
    """Of a million in two seconds: 299,776 by sockets and 224 by backlogs (112 a second)."""
    records = [
        with_datagrams(one, socket_drops=299_776, device_drops=200)
        if one.configuration == "baseline"
        else with_datagrams(one, socket_drops=0, device_drops=78_620)
        for one in measured(FOUR_PAIRS, 4)
    ]
    last = summarise(records).explanation[2]
    before, after = last.split(";")
    for figure in ("30.0 % with baseline", "30.0 % by full socket buffers"):
        assert figure in before
    assert "device" not in before  # those are the drops of the backlogs
    # 620 by backlogs, the other 78,000 by devices
    for figure in ("10.1 % with rfs", "0.1 % by full backlogs", "10.0 % by devices"):
        assert figure in after


def test_drops_beside_tcp_streams_are_not_those_of_datagrams() -> None:
    records = []
    for one in measured(FOUR_PAIRS, 4):
        streams = [pair.model_copy(update={"kind": "stream"}) for pair in one.pairs]
        pairs = [*streams, Pair(index=5, kind="rr", values={"p99_us": 50.0})]
        traffic = {"traffic": "mixed:protocol=udp", "pairs": pairs}
        records.append(with_datagrams(one).model_copy(update=traffic))
    summary = summarise(records)
    assert summary.explanation == summarise(measured(FOUR_PAIRS, 4)).explanation


def test_datagrams_of_the_baseline_are_named_without_a_gain() -> None:
    table = {**FOUR_PAIRS, "rfs": (1.0, *FOUR_PAIRS["rfs"][1:])}
    records = [with_datagrams(one, socket_drops=300_000) for one in measured(table, 4)]
    assert "30.0 % with baseline" in summarise(records).explanation[-1]


def test_the_core_of_the_emulated_nic_is_named() -> None:
    def at(core: int) -> str:
        machine = Machine(kernel="6.1", cpu="x", cores=2, irq_core=core)
        records = measured(FOUR_PAIRS, 4)
        return summarise([r.model_copy(update={"machine": machine}) for r in records]).explanation[
            0
        ]

    assert "NIC" in at(0) and "NIC" not in at(1)


def test_share_of_the_interrupts_on_a_cluster() -> None:
    """Of 1,000 interrupts of two queues 900 were on core 0; those before the run do not count."""
    before = Confounders(nic_interrupts={"eth0-rx-0": [5000, 7], "eth0-rx-1": [0, 9000]})
    after = Confounders(nic_interrupts={"eth0-rx-0": [5900, 7], "eth0-rx-1": [0, 9100]})
    changed = {
        "target": "kubernetes", "machine": None, "confounders_before": before,
        "confounders_after": after,
    }  # fmt: skip
    records = [one.model_copy(update=changed) for one in measured(FOUR_PAIRS, 4)]
    assert "90 % of the NIC's interrupts" in summarise(records).explanation[0]


def test_a_loss_has_no_explanation_and_a_machine_with_idle_time_no_full_core() -> None:
    summary = summarise(measured(ONE_PAIR, 1))
    assert summary.contrasts[0].verdict == "worse"
    (only,) = summary.explanation
    assert "no server core was full" in only
    assert "core 0" in only and "12 %" in only
    assert "rps" not in only


def test_no_gain_is_explained_where_the_ratio_is_not_significant() -> None:
    table = {**FOUR_PAIRS, "rfs": (1.0, *FOUR_PAIRS["rfs"][1:])}
    summary = summarise(measured(table, 4))
    assert summary.contrasts[0].verdict != "better"
    (only,) = summary.explanation
    assert "core 0 was full" in only and "rfs" not in only


def test_place_is_that_of_the_largest_gain() -> None:
    gaining = {"baseline": FOUR_PAIRS["baseline"], "rps": FOUR_PAIRS["rfs"]}
    one = [record.model_copy(update={"plan": "one"}) for record in measured(ONE_PAIR, 1)]
    summary = summarise([*one, *measured(gaining, 4)])
    assert summary.recommendation and summary.recommendation.by_count == {1: "baseline", 4: "rps"}
    assert summary.explanation[0].startswith("At 4 pairs")


def test_recommended_configuration_is_explained_before_one_with_a_larger_gain() -> None:
    table = {**FOUR_PAIRS, "rps": (1.6, *FOUR_PAIRS["rfs"][1:])}
    records = measured(table, 4)
    summary = summarise(records)
    assert summary.recommendation
    assert summary.recommendation.configuration == "rps"
    simpler = Recommendation(["Recommended: rfs."], "rfs")
    assert "With rfs" in explain(records, summary.contrasts, simpler, "baseline", BITRATE)[1]


@pytest.mark.parametrize(
    ("found", "explained"),
    [
        (Recommendation([], tentative="rfs"), "rfs"),
        (Recommendation([], None, {1: "rps", 4: "rfs"}), "rfs"),
        (Recommendation([], "baseline"), None),  # the limits exclude what gains
        (Recommendation([]), None),
        (None, None),
    ],
)
def test_no_other_configuration_is_explained_than_the_recommendation_names(
    found: Recommendation | None, explained: str | None
) -> None:
    records = measured({**FOUR_PAIRS, "rps": (1.6, *FOUR_PAIRS["rfs"][1:])}, 4)
    contrasts = summarise(records).contrasts
    assert {one.verdict for one in contrasts} == {"better"}
    _, *rest = explain(records, contrasts, found, "baseline", BITRATE)
    assert bool(rest) == bool(explained)
    assert all("rps" not in one for one in rest)
    assert explained is None or f"With {explained}" in rest[0]


def test_a_full_core_that_changes_from_run_to_run_has_no_number() -> None:
    records = measured(FOUR_PAIRS, 4)
    swapped = [
        with_cores(record, FOUR_PAIRS["baseline"][:0:-1])
        if record.configuration == "baseline" and record.block and record.block % 2
        else record
        for record in records
    ]
    first = summarise(swapped).explanation[0]
    assert "8 of 8 runs" in first and "core 0" not in first and "core 1" not in first


def test_kind_of_time_of_a_full_core_is_its_largest() -> None:
    busy = (1.0, Measured(1.0, 20.0, 19.0, 60.0, 500_000), FOUR_PAIRS["baseline"][2])
    first = summarise(measured({**FOUR_PAIRS, "baseline": busy}, 4)).explanation[0]
    assert "60 % user time" in first


def test_invalid_runs_do_not_count() -> None:
    records = measured(FOUR_PAIRS, 4)
    strange = [
        with_cores(record, FOUR_PAIRS["rfs"][1:]).model_copy(update={"valid": False, "attempt": 2})
        for record in records[:1]
    ]
    assert summarise([*records, *strange]).explanation == summarise(records).explanation


@pytest.mark.parametrize("missing", ["idle", "soft"])
def test_nothing_is_explained_without_the_time_of_a_core(missing: str) -> None:
    records = measured(FOUR_PAIRS, 4)
    core = records[0].cores[0].model_copy(update={missing: None})
    records[0] = records[0].model_copy(update={"cores": [core, *records[0].cores[1:]]})
    state = (records[0].path, 4, records[0].configuration)
    assert work(records, state) is None
    assert all(records[0].configuration not in one for one in summarise(records).explanation)


def test_without_cores_there_is_no_explanation() -> None:
    bare = [record.model_copy(update={"cores": []}) for record in measured(FOUR_PAIRS, 4)]
    assert summarise(bare).explanation == []


def test_times_without_packet_counters_are_enough() -> None:
    bare = [record.model_copy(update={"softnet": []}) for record in measured(FOUR_PAIRS, 4)]
    first, second = summarise(bare).explanation
    assert "packets" not in first + second


def test_two_nodes_are_named() -> None:
    records = [
        record.model_copy(
            update={
                "cores": [
                    *record.cores,
                    *[
                        core.model_copy(update={"node": "worker-2", "idle": 50.0, "soft": 10.0})
                        for core in record.cores
                    ],
                ]
            }
        )
        for record in measured(FOUR_PAIRS, 4)
    ]
    assert "core 0 of lab" in summarise(records).explanation[0]


def test_many_cores_are_counted_instead_of_listed() -> None:
    idle = Measured(90.0, 5.0, 1.0, 1.0, 10_000)
    busy = Measured(40.0, 55.0, 1.0, 1.0, 400_000)
    records = [
        with_cores(
            record,
            [
                FOUR_PAIRS[record.configuration][1],
                *[idle if record.configuration == "baseline" else busy] * 9,
            ],
        )
        for record in measured(FOUR_PAIRS, 4)
    ]
    second = summarise(records).explanation[1]
    assert "7 more cores" in second and "core 0" in second and "core 2" in second


def test_older_records_without_sides_use_the_server_cores_of_the_lab() -> None:
    machine = Machine(kernel="6.1", cpu="x", cores=2, server_cores=[0], client_cores=[1])
    records = [
        record.model_copy(
            update={
                "machine": machine,
                "cores": [core.model_copy(update={"side": None}) for core in record.cores],
            }
        )
        for record in measured(FOUR_PAIRS, 4)
    ]
    assert "core 1" not in " ".join(summarise(records).explanation)


def test_values_of_zero_do_not_divide() -> None:
    nothing = Measured(100.0, 0.0, 0.0, 0.0, 0)
    records = [with_cores(one, [nothing, nothing]) for one in measured(FOUR_PAIRS, 4)]
    assert "100 % idle" in summarise(records).explanation[0]


def test_a_ratio_to_zero_names_the_metric_and_the_configuration() -> None:
    records = [
        one.model_copy(update={"pairs": [valued(pair, bitrate_mbps=0.0) for pair in one.pairs]})
        if one.configuration == "rfs"
        else one
        for one in sweep({"baseline": 1, "rfs": 1.2})
    ]
    (found,) = summarise(records, metric=BITRATE).contrasts
    assert "of rfs has bitrate 0" in found.doubt


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert digits(-0.001) == "0.00"
