"""The gate: one answer, its exit code, and what it refuses to compare."""

import json

import pytest

from analysis.compare import NothingToCompare, compare
from analysis.metrics import find
from analysis.schema import Record
from analysis.summary import summarise
from benchmarks.synthetic import sweep

RECORDS = sweep(
    {"baseline": 1, "same": 1, "slow": 0.8, "fast": 1.2}, replicas=(1, 4), blocks=8, spread=0.03
)


def kernel(records: list[Record], name: str) -> list[Record]:
    return [
        record.model_copy(update={"machine": record.machine.model_copy(update={"kernel": name})})
        for record in records
        if record.machine
    ]


def test_worse_is_exit_4_and_better_or_no_difference_0() -> None:
    worse = compare(RECORDS, RECORDS, "baseline", "slow")
    assert (worse.verdict, worse.exit_code) == ("worse", 4)
    assert worse.effect.high is not None and worse.effect.high < 1
    assert worse.effect.method == "paired"
    better = compare(RECORDS, RECORDS, "baseline", "fast")
    assert (better.verdict, better.exit_code) == ("better", 0)
    same = compare(RECORDS, RECORDS, "baseline", "same")
    assert (same.verdict, same.exit_code) == ("no significant difference", 0)
    assert same.effect.mde is not None and same.effect.p is not None and same.effect.p > 0.05


def test_sentence_and_json_say_everything() -> None:
    answer = compare(RECORDS, RECORDS, "baseline", "slow")
    for part in ("slow", "baseline", "4 pairs", "worse", "0.8", "p <0.001", "8 against 8 runs"):
        assert part in answer.sentence
    data = json.loads(json.dumps(answer.to_json(), allow_nan=False))
    assert data["exit_code"] == 4
    assert data["effect"]["low"] < data["effect"]["estimate"] < data["effect"]["high"]


def test_replicas_default_to_the_largest_and_can_be_asked_for() -> None:
    assert compare(RECORDS, RECORDS, "baseline", "slow").replicas == 4
    assert compare(RECORDS, RECORDS, "baseline", "slow", at=1).replicas == 1


def after_the_change(ratio: float, **more: float) -> list[Record]:
    """A second sweep in which everything but `slow` is as before, on another occasion."""
    return sweep({"baseline": 0.9, "slow": 0.9 * ratio, **more}, blocks=8, spread=0.03, seed=1)


def test_two_sweeps_are_compared_relative_to_their_own_baselines() -> None:
    answer = compare(RECORDS, after_the_change(0.6), "slow", "slow")
    assert (answer.effect.method, answer.exit_code) == ("relative", 4)
    assert answer.effect.estimate == pytest.approx(0.6 / 0.8, rel=0.05)
    same = compare(RECORDS, after_the_change(0.8), "slow", "slow")
    assert (same.verdict, same.exit_code) == ("no significant difference", 0)


@pytest.mark.parametrize(("a", "b"), [("baseline", "baseline"), ("baseline", "slow")])
def test_without_a_baseline_beside_both_a_spread_between_sweeps_is_assumed(a: str, b: str) -> None:
    answer = compare(RECORDS, after_the_change(0.6), a, b)
    assert answer.effect.method == "unpaired"
    assert "of 3 % is assumed" in answer.sentence
    alone = [one for one in RECORDS if one.configuration == a]
    other = [one for one in after_the_change(0.6) if one.configuration == b]
    assert compare(alone, other, a, b).effect == answer.effect
    tight = sweep({"baseline": 1.0}, blocks=8, spread=0.001, block_spread=0, seed=3)
    lower = sweep({"baseline": 0.96}, blocks=8, spread=0.001, block_spread=0, seed=4)
    assert compare(tight, lower, "baseline", "baseline").exit_code == 0
    far = sweep({"baseline": 0.8}, blocks=8, spread=0.001, block_spread=0, seed=4)
    assert compare(tight, far, "baseline", "baseline").exit_code == 4


def test_sweeps_that_share_runs_are_no_two_experiments() -> None:
    grown = [*RECORDS[:10], *after_the_change(0.6)]
    with pytest.raises(NothingToCompare, match="10 of the runs are in both"):
        compare(RECORDS, grown, "slow", "slow")


def test_a_copy_of_the_same_records_is_the_same_sweep() -> None:
    copy = [record.model_copy() for record in RECORDS]
    assert compare(RECORDS, copy, "baseline", "slow").effect.method == "paired"


def test_unlike_machines_are_inconclusive_unless_forced() -> None:
    after = kernel(after_the_change(0.6), "7.0")
    answer = compare(RECORDS, after, "slow", "slow")
    assert (answer.verdict, answer.exit_code) == ("inconclusive", 5)
    assert "kernel: 6.1.0-synthetic against 7.0" in answer.sentence
    forced = compare(RECORDS, after, "slow", "slow", force=True)
    assert forced.exit_code == 4
    assert any("7.0" in difference for difference in forced.differences)


CHANGES: list[dict[str, object]] = [
    {"target": "kubernetes"},
    {"duration": 9.0},
    {"omit": 3.0},
    {"streams": 4},
    {"traffic": "udp"},
    {"pod_cpu_limit": "500m"},
    {"idle_pairs": 12},
    {"congestion": "bbr"},
    {"definition": "other"},
    *(
        {"machine": {name: value}}
        for name, value in (
            ("kernel", "7.0"),
            ("cpu", "another"),
            ("cores", 2),
            ("server_cores", [1]),
            ("client_cores", [3]),
            ("irq_core", 3),
            ("form", "stock"),
            ("nic_queues", 2),
            ("irq_time_accounting", True),
            ("mtu", {"eth1": 9000}),
            ("offloads", {"eth1": {"generic-receive-offload": True}}),
            ("queues", {"eth1": 4}),
            ("versions", {"iperf3": "3.19"}),
        )
    ),
    *(
        {"confounders_before": {name: value}}
        for name, value in (
            ("irqbalance", True),
            ("governor", "powersave"),
            ("rps_default_mask", "3"),
            ("xps", {"eth1/tx-0": "1"}),
        )
    ),
]


def known(record: Record) -> Record:
    """A record with a value in every condition."""
    data = record.model_dump(mode="json")
    data |= {"congestion": "cubic", "definition": "usual"}
    data["confounders_before"] = {
        "irqbalance": False, "governor": "performance", "rps_default_mask": "0",
        "xps": {"eth1/tx-0": "0"},
    }  # fmt: skip
    return Record.model_validate(data)


def changed(record: Record, change: dict[str, object]) -> Record:
    data = record.model_dump(mode="json")
    for key, value in change.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    return Record.model_validate(data)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_runs_under_another_condition_are_never_pooled(change: dict[str, object]) -> None:
    records = [known(record) for record in RECORDS if record.replicas == 4]
    assert compare(records, records, "baseline", "slow").exit_code == 4
    position = next(i for i, one in enumerate(records) if one.configuration == "slow")
    mixed = [*records[:position], changed(records[position], change), *records[position + 1 :]]
    answer = compare(mixed, mixed, "baseline", "slow")
    assert answer.exit_code == 5
    assert "differ in" in answer.doubt
    reported = {one.b: one for one in summarise(mixed).contrasts}
    assert reported["slow"].verdict == "inconclusive"
    assert reported["fast"].verdict == "better"
    every = [changed(record, change) for record in records]
    apart = compare(records, every, "slow", "slow")
    assert (apart.exit_code, bool(apart.differences)) == (5, True)


OFFLOADS = {"machine": {"offloads": {"eth1": {"generic-receive-offload": True}}}}


def with_offload(record: Record, role: str = "nic", knob: str = "gro") -> Record:
    data = changed(record, OFFLOADS).model_dump(mode="json")
    row = {"node": "server", "role": role, "device": "eth1", "place": "device"}
    settings = [{**row, "knob": knob, "value": "on"}]
    table = len(record.configuration)  # so that no two configurations have the same steering
    data["steering_before"] = {"sock_flow_entries": table, "queues": [], "settings": settings}
    return Record.model_validate(data)


def test_an_offload_that_the_steering_sets_is_no_condition() -> None:
    """It is what the configurations differ in; the machine may be described while it is set."""
    before = [
        changed(known(record), {"machine": {"form": "stock"}})
        for record in RECORDS
        if record.replicas == 4
    ]
    after = [with_offload(one) if one.configuration == "slow" else one for one in before]
    assert compare(after, after, "baseline", "slow").exit_code == 4
    plain = [changed(one, OFFLOADS) if one.configuration == "slow" else one for one in before]
    assert compare(plain, plain, "baseline", "slow").exit_code == 5


@pytest.mark.parametrize(
    ("role", "knob", "undoes"),
    [
        ("nic", "gro", True),
        ("nic", "tso", True),
        ("nic", "gso", True),
        ("overlay", "gro", True),
        ("overlay", "tso", False),
        ("pod", "gro", False),
    ],
)
def test_what_undoes_the_form_study_gains_nothing(role: str, knob: str, undoes: bool) -> None:
    """They are off to emulate a NIC without them: to switch one on is no gain on a real node."""
    before = [known(record) for record in RECORDS if record.replicas == 4]
    after = [
        with_offload(one, role, knob) if one.configuration == "fast" else one for one in before
    ]
    answer = compare(after, after, "baseline", "fast")
    assert answer.verdict == ("inconclusive" if undoes else "better")
    assert (f"emulated offloads: off as in form study or on by steering ({role} {knob})"
            in answer.sentence) == undoes  # fmt: skip
    if undoes:
        found = summarise(after).recommendation
        assert found is None or found.configuration != "fast"
    on_both = [with_offload(one, role, knob) for one in before]
    assert compare(on_both, on_both, "baseline", "fast").verdict == "better"


def test_older_records_of_the_lab_are_of_form_study_and_one_queue() -> None:
    def of(form: str, queues: int) -> list[Record]:
        return [changed(one, {"machine": {"form": form, "nic_queues": queues}}) for one in RECORDS]

    assert compare(RECORDS, of("study", 1), "slow", "slow").differences == []
    assert compare(RECORDS, of("stock", 1), "slow", "slow").differences == [
        "form of the lab: study against stock"
    ]
    assert compare(RECORDS, of("study", 4), "slow", "slow").differences == [
        "queues of the NIC: 1 against 4"
    ]


def test_a_condition_that_older_records_do_not_have_contradicts_nothing() -> None:
    newer = [known(record) for record in RECORDS]
    assert compare(RECORDS, newer, "slow", "slow").differences == []


@pytest.mark.parametrize(
    ("a", "b", "at", "words"),
    [
        ("baseline", "typo", None, "no run of typo"),
        ("baseline", "slow", 16, "at 16 pairs"),
        ("slow", "slow", None, "with itself"),
    ],
)
def test_nothing_to_compare_names_what_there_is(a: str, b: str, at: int | None, words: str) -> None:
    with pytest.raises(NothingToCompare, match=words):
        compare(RECORDS, RECORDS, a, b, at=at)


def with_softirq(records: list[Record], name: str, factor: float) -> list[Record]:
    """The records with this much more softirq of one configuration, taken from idle time."""

    def more(soft: float | None, idle: float | None) -> dict[str, float]:
        added = (soft or 0) * (factor - 1)
        return {"soft": (soft or 0) + added, "idle": (idle or 0) - added}

    return [
        record.model_copy(
            update={
                "cores": [
                    core.model_copy(update=more(core.soft, core.idle)) for core in record.cores
                ]
            }
        )
        if record.configuration == name
        else record
        for record in records
    ]


@pytest.mark.parametrize("metric", ["softirq_s_per_gbit"])
def test_cost_is_per_gigabit_and_more_of_it_is_worse(metric: str) -> None:
    precise = sweep({"baseline": 1, "same": 1}, blocks=8, spread=0.005, block_spread=0, seed=1)
    records = with_softirq(precise, "same", 1.1)
    answer = compare(records, records, "baseline", "same", metric=find(metric))
    assert answer.verdict == "worse"
    assert answer.effect.estimate is not None and 1.01 < answer.effect.estimate < 1.15
    back = compare(records, records, "same", "baseline", metric=find(metric))
    assert back.verdict == "better"


@pytest.mark.parametrize("metric", ["softirq_s_per_gbit"])
def test_more_softirq_for_more_traffic_is_not_worse(metric: str) -> None:
    records = with_softirq(RECORDS, "fast", 1.05)
    answer = compare(records, records, "baseline", "fast", metric=find(metric))
    assert answer.verdict == "better"
    assert answer.effect.estimate is not None and answer.effect.estimate < 0.95


def test_what_cannot_be_said_is_exit_5_also_at_a_fifth() -> None:
    few = sweep({"baseline": 1, "b": 0.2}, blocks=2)
    for records in (few, [record for record in few if record.block == 0]):
        answer = compare(records, records, "baseline", "b")
        assert (answer.verdict, answer.exit_code) == ("inconclusive", 5)
        assert answer.effect.estimate == pytest.approx(0.2, rel=0.2)
    bare = [record.model_copy(update={"cores": []}) for record in RECORDS]
    assert compare(bare, bare, "baseline", "slow", metric=find("softirq")).exit_code == 5
    invalid = [
        record.model_copy(update={"valid": record.configuration != "slow", "reasons": ["x"]})
        for record in RECORDS
    ]
    answer = compare(invalid, invalid, "baseline", "slow")
    assert (answer.exit_code, answer.effect.estimate) == (5, None)


def test_no_significant_difference_needs_runs_that_would_have_found_one() -> None:
    wild = sweep({"baseline": 1, "b": 1}, blocks=6, spread=0.8)
    answer = compare(wild, wild, "baseline", "b")
    assert answer.effect.p is not None and answer.effect.p > 0.05
    assert (answer.verdict, answer.exit_code) == ("inconclusive", 5)


@pytest.mark.parametrize(("a", "b"), [("baseline", "slow"), ("fast", "same"), ("slow", "fast")])
@pytest.mark.parametrize("at", [1, 4])
def test_the_gate_never_contradicts_the_report(a: str, b: str, at: int) -> None:
    for seed in range(8):
        records = sweep(
            {"baseline": 1, "same": 1, "slow": 0.95, "fast": 1.05}, replicas=(1, 4), seed=seed
        )
        summary = summarise(records)
        mirrored = {"better": "worse", "worse": "better"}
        (reported,) = (
            one
            for one in [*summary.contrasts, *summary.pairwise]
            if one.replicas == at and {one.a, one.b} == {a, b}
        )
        answer = compare(records, records, a, b, at=at)
        word = reported.verdict
        assert answer.verdict == (word if reported.b == b else mirrored.get(word, word))
        assert answer.p_holm == pytest.approx(reported.p_holm)
        assert answer.effect.p == pytest.approx(reported.effect.p)
        assert answer.effect.mde == pytest.approx(reported.effect.mde)


def test_a_small_raw_p_is_no_regression_where_the_family_does_not_support_it() -> None:
    """What the report calls no significant difference, the gate does not call worse."""
    for seed in range(60):
        records = sweep(dict.fromkeys(["baseline", *"abcdefgh"], 1.0), seed=seed)
        answer = compare(records, records, "baseline", "a")
        if answer.effect.p is not None and answer.effect.p < 0.05:
            break
    assert answer.effect.p is not None and answer.effect.p < 0.05
    assert answer.family == 8
    assert (answer.verdict, answer.exit_code) != ("worse", 4)
    assert "8 comparisons" in answer.sentence
