"""From records to words: the golden table, what moves what, and the sentences."""

import json
import math
import re
from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.compare import compare
from analysis.fields import LEAST
from analysis.metrics import METRICS
from analysis.report.cells import text_table
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.summary import Summary, summarise
from analysis.verdict import (
    Contrast,
    PathRatio,
    Verdict,
    amount,
    estimate,
    judge,
    percent,
    sentences,
)
from analysis.verdict import contrast as judged
from benchmarks.synthetic import mixed, sweep, valued

RATIOS = {"baseline": 1.0, "rfs": 1.3, "rfs-plus": 1.32, "rps": 1.0, "worst": 0.7}

GOLDEN = """
configuration  replicas  path     runs  Mbit/s per pair  ratio       95 % CI  p Holm    MDE  soft % busiest  idle % mean  note
baseline              1  overlay     6         798 ± 30      1             –       –      –            80.0         35.0
rfs                   1  overlay     6        1011 ± 55  1.27x  [1.24, 1.29]  <0.001  5.5 %            80.0         35.0  better
worst                 1  overlay     6         623 ± 24  0.78x  [0.77, 0.80]  <0.001  4.8 %            80.0         35.0  worse
baseline              4  overlay     6          253 ± 6      1             –       –      –            80.0         35.0
rfs                   4  overlay     6          255 ± 4  1.01x  [0.99, 1.03]   0.275  4.9 %            80.0         35.0  no significant difference
worst                 4  overlay     5          179 ± 9  0.71x  [0.68, 0.75]  <0.001   15 %            80.0         35.0  inconclusive: only 5 runs, at least 6 are needed; 1 of 6 attempts invalid
"""


def broken(record: Record, reason: str) -> Record:
    return record.model_copy(update={"valid": False, "reasons": [reason]})


MEASURED = {
    (1, "baseline"): (801.2, 783.9, 845.0, 766.4, 812.8, 779.3),
    (1, "rfs"): (1010.4, 968.1, 1099.7, 951.6, 1031.0, 1002.5),
    (1, "worst"): (611.0, 630.2, 655.9, 598.4, 640.0, 602.7),
    (4, "baseline"): (251.0, 260.3, 243.8, 255.1, 249.9, 258.2),
    (4, "rfs"): (255.9, 257.0, 250.4, 252.2, 256.6, 259.7),
    (4, "worst"): (170.2, 188.8, 181.7, 175.0, 179.9, 185.1),
}


def golden_records() -> list[Record]:
    """Bitrates from a table, so that nothing hangs on a random generator; one run is invalid."""
    records = []
    for order, record in enumerate(sweep({"baseline": 1, "rfs": 1, "worst": 1}, replicas=(1, 4))):
        bitrate = MEASURED[record.replicas, record.configuration][record.block or 0]
        pairs = [valued(pair, bitrate_mbps=bitrate) for pair in record.pairs]
        cores = [
            core.model_copy(update={"soft": 80.0 - 60 * core.core, "idle": 10.0 + 50 * core.core})
            for core in record.cores[:2]
        ]
        same = record.model_copy(update={"pairs": pairs, "cores": cores, "order": order})
        last = (record.configuration, record.replicas, record.block) == ("worst", 4, 5)
        records.append(broken(same, "iperf3 died") if last else same)
    return records


def test_golden_table() -> None:
    assert text_table(summarise(golden_records())) == GOLDEN.strip()


def test_json_carries_no_nan_and_names_its_parts() -> None:
    summary = summarise([*golden_records(), broken(golden_records()[0], "drift")])
    text = json.dumps(summary.to_json(), allow_nan=False)
    assert set(json.loads(text)) == {
        "metric", "method", "form", "baseline", "confidence", "verdict", "recommendation", "keep",
        "explanation", "caveats",
        "states", "comparisons", "pairwise", "overlay_over_host", "dependence", "invalid",
        "warnings", "machine", "switchback", "tradeoff", "nodes",
    }  # fmt: skip


def effects(summary: Summary) -> dict[tuple[str, int, str], Effect]:
    return {(one.path, one.replicas, one.b): one.effect for one in summary.contrasts}


def test_order_of_records_moves_nothing() -> None:
    records = sweep(RATIOS, replicas=(1, 4), paths={"overlay": 1, "host": 1.5})
    shuffled = records[1::2][::-1] + records[::2]
    one, two = summarise(records).to_json(), summarise(shuffled).to_json()
    assert one == two


@settings(deadline=None, max_examples=10)
@given(st.floats(1e-3, 1e3))
def test_scale_of_bitrates_moves_no_ratio(scale: float) -> None:
    records = sweep(RATIOS)
    scaled = [
        record.model_copy(
            update={
                "pairs": [
                    valued(pair, bitrate_mbps=(pair.values["bitrate_mbps"] or 0) * scale)
                    for pair in record.pairs
                ]
            }
        )
        for record in records
    ]
    one, two = summarise(records), summarise(scaled)
    assert one.verdict == two.verdict
    for key, effect in effects(one).items():
        assert effects(two)[key].estimate == pytest.approx(effect.estimate)
        assert effects(two)[key].p == pytest.approx(effect.p)


@settings(deadline=None, max_examples=10)
@given(st.data())
def test_one_missing_run_does_not_move_the_others(data: st.DataObject) -> None:
    records = sweep(RATIOS, replicas=(1, 4), blocks=8)
    steered = [i for i, record in enumerate(records) if record.configuration != "baseline"]
    missing = data.draw(st.sampled_from(steered))
    gone = records[missing]
    key = (gone.path, gone.replicas, gone.configuration)
    before = effects(summarise(records))
    for fewer in (
        records[:missing] + records[missing + 1 :],
        [*records[:missing], broken(gone, "died"), *records[missing + 1 :]],
    ):
        after = effects(summarise(fewer))
        assert after[key].n_b == before[key].n_b - 1
        assert {k: v for k, v in after.items() if k != key} == {
            k: v for k, v in before.items() if k != key
        }


def test_invalid_runs_are_counted_with_their_reasons_and_excluded() -> None:
    records = sweep({"baseline": 1, "rps": 1.1})
    position = next(i for i, record in enumerate(records) if record.configuration == "rps")
    wild = valued(records[position].pairs[0], bitrate_mbps=1e6)
    bad = broken(records[position], "steering drifted").model_copy(update={"pairs": [wild] * 4})
    summary = summarise([*records[:position], bad, *records[position + 1 :]])
    (invalid,) = summary.invalid
    assert (invalid.configuration, invalid.reasons) == ("rps", "steering drifted")
    state = next(one for one in summary.states if one.configuration == "rps")
    assert (state.runs, state.invalid) == (5, 1)
    assert state.value is not None and state.value < 1000


def test_states_without_a_valid_run_have_no_numbers() -> None:
    records = [broken(record, "x") for record in sweep({"baseline": 1, "rps": 1})]
    summary = summarise(records)
    assert summary.verdict == ["There is no valid run."]
    assert all(one.value is None and one.means["idle_percent"] is None for one in summary.states)
    assert "0  " in text_table(summary)


def test_no_records_at_all() -> None:
    summary = summarise([])
    assert summary.states == []
    assert text_table(summary).startswith("configuration")


def test_another_baseline_is_an_argument() -> None:
    summary = summarise(sweep(RATIOS), baseline="rps")
    assert {one.a for one in summary.contrasts} == {"rps"}
    assert "baseline" in {one.b for one in summary.contrasts}
    assert summary.states[0].configuration == "rps"


def test_without_its_baseline_nothing_is_compared_and_that_is_said() -> None:
    summary = summarise(sweep({"rps": 1.0, "rfs": 1.0}))
    assert "Nothing is compared" in summary.verdict[0]
    assert any("no valid run of baseline" in warning for warning in summary.warnings)


def test_confidence_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        summarise([], confidence=1.0)


def test_mixed_conditions_are_warned_of() -> None:
    records = sweep({"baseline": 1, "rps": 1})
    assert records[0].machine is not None
    other = records[0].machine.model_copy(update={"kernel": "other"})
    records[0] = records[0].model_copy(update={"machine": other, "duration": 9.0})
    warnings = summarise(records).warnings
    assert any("kernel: 6.1.0-synthetic or other" in warning for warning in warnings)
    assert any("duration" in warning for warning in warnings)


def test_a_path_may_have_devices_of_its_own() -> None:
    records = [
        record.model_copy(
            update={"machine": record.machine.model_copy(update={"mtu": {record.path: 1500}})}
        )
        for record in sweep({"baseline": 1}, paths={"overlay": 1, "host": 1.5})
        if record.machine
    ]
    assert not any("differ in" in warning for warning in summarise(records).warnings)


def scaled(record: Record, factor: float) -> Record:
    pairs = [
        valued(pair, bitrate_mbps=(pair.values["bitrate_mbps"] or 0) * factor)
        for pair in record.pairs
    ]
    return record.model_copy(update={"pairs": pairs})


def test_drift_of_one_configuration_is_warned_of_and_withholds_the_verdict() -> None:
    records = [
        scaled(record, 1 + 0.015 * (record.block or 0) * (record.configuration == "baseline"))
        for record in sweep({"baseline": 1, "rps": 1.3}, blocks=20, block_spread=0, spread=0.01)
    ]
    summary = summarise(records)
    assert any("baseline at 4 pairs drifts: +2" in warning for warning in summary.warnings)
    assert any("not independent" in warning for warning in summary.warnings)
    assert not any("rps at 4 pairs drifts" in warning for warning in summary.warnings)
    assert summary.check.found
    assert summary.contrasts[0].verdict == "inconclusive"
    assert "not independent" in summary.contrasts[0].doubt
    assert summary.keep is None
    assert "inconclusive" in summary.verdict[0]


def test_drift_that_all_configurations_share_cancels_within_blocks() -> None:
    records = [
        scaled(record, 1 + 0.05 * (record.block or 0))
        for record in sweep({"baseline": 1, "rps": 1.3}, blocks=10, spread=0.02)
    ]
    summary = summarise(records)
    assert not summary.check.found
    assert summary.contrasts[0].verdict == "better"


def test_an_order_that_was_not_randomised_is_inconclusive() -> None:
    records = sweep({"baseline": 1, "rps": 1.3}, blocks=10, spread=0.01)
    assert summarise(records).contrasts[0].verdict == "better"
    for update in ({"seed": None}, {"plan": None}, {"block": None}):
        bare = [record.model_copy(update=update) for record in records]
        found = summarise(bare).contrasts[0]
        assert (found.verdict, "not randomised" in found.doubt) == ("inconclusive", True), update
    a_then_b = sorted(records, key=lambda one: (one.configuration, one.block))
    starts = sorted(one.start for one in records if one.start)
    moved = [
        one.model_copy(update={"order": order, "start": start})
        for (order, one), start in zip(enumerate(a_then_b), starts, strict=True)
    ]
    found = summarise(moved).contrasts[0]
    assert (found.verdict, "not made together" in found.doubt) == ("inconclusive", True)
    late = [
        one.model_copy(update={"start": starts[-1] + timedelta(hours=1)})
        if (one.configuration, one.block) == ("rps", 2)
        else one
        for one in records
    ]
    assert summarise(late).contrasts[0].verdict == "better"
    apart = sweep({"baseline": 1}, blocks=10, seed=1) + sweep({"rps": 1.3}, blocks=10, seed=2)
    assert summarise(apart).contrasts[0].verdict == "inconclusive"


@pytest.mark.parametrize("blocks", range(1, 6))
def test_fewer_than_six_runs_announce_no_winner(blocks: int) -> None:
    summary = summarise(sweep({"baseline": 1, "rps": 1.5}, blocks=blocks, spread=0.005))
    assert summary.contrasts[0].verdict == "inconclusive"
    assert summary.keep is None
    enough = summarise(sweep({"baseline": 1, "rps": 1.5}, blocks=6, spread=0.005))
    assert enough.keep == "rps"


def test_of_several_attempts_at_a_run_the_valid_one_counts_once() -> None:
    records = sweep({"baseline": 1, "rps": 1.3})
    retried = [
        broken(record, "iperf3 died").model_copy(update={"pairs": []})
        for record in records
        if record.configuration == "rps" and record.block in (0, 1)
    ]
    later = [record.model_copy(update={"attempt": 2}) for record in records]
    summary = summarise([*retried, *later])
    state = next(one for one in summary.states if one.configuration == "rps")
    assert (state.runs, state.invalid) == (6, 2)
    assert "2 of 8 attempts invalid" in text_table(summary)
    assert any("2 of 14 attempts are invalid" in warning for warning in summary.warnings)
    twice = summarise([*records, later[0]])
    assert sum(one.runs for one in twice.states) == len(records)
    assert twice.states[0].value == pytest.approx(summarise(records).states[0].value)


def test_warnings_of_runs_that_differ_in_figures_only_are_one() -> None:
    records = [
        record.model_copy(update={"warnings": [f"other programs used 0.{record.order} cores"]})
        for record in sweep({"baseline": 1, "rps": 1})
    ]
    records[0] = records[0].model_copy(update={"warnings": ["x" * 5000]})
    warnings = summarise(records).warnings
    assert any("other programs" in one and "11 runs" in one for one in warnings)
    assert sum("other programs" in one for one in warnings) == 1
    assert max(map(len, warnings)) < 300


@pytest.mark.parametrize(("faster", "warned"), [(1.0, False), (0.5, True), (1.5, True)])
def test_cpu_time_of_unequal_numbers_of_requests_is_a_warning(faster: float, warned: bool) -> None:
    records = mixed({"baseline": {}, "rfs": {"p50_us": faster}}, blocks=20, seed=1)
    found = [one for one in summarise(records).warnings if "requests" in one]
    assert len(found) == warned
    for one in found:
        numbers = [float(number) for number in re.findall(r"\d\.\d\d", one)]
        assert numbers == pytest.approx(sorted([1, 1 / faster]), abs=0.05)
    alone = [one.model_copy(update={"pairs": one.pairs[-1:], "replicas": 1}) for one in records]
    assert not any("requests" in one for one in summarise(alone).warnings)


def test_record_warnings_and_quotas_are_counted() -> None:
    records = [
        record.model_copy(update={"warnings": ["interrupts moved"]})
        for record in sweep({"baseline": 1, "rps": 1})
    ]
    pair = records[0].pairs[0].model_copy(update={"throttled_periods": 3})
    records[0] = records[0].model_copy(update={"pairs": [pair, *records[0].pairs[1:]]})
    warnings = summarise(records).warnings
    assert "interrupts moved (12 runs)" in warnings
    assert any(warning.startswith("1 run hit the CPU quota") for warning in warnings)


def test_machine_of_the_lab_says_what_it_is() -> None:
    text = " ".join(summarise(sweep({"baseline": 1})).machine)
    assert "one kernel" in text
    assert "form study" in text
    assert "8 cores" in text


def test_machine_of_a_cluster_says_what_it_is() -> None:
    def on_cluster(record: Record) -> Record:
        machine = record.machine
        assert machine
        machine = machine.model_copy(
            update={"versions": {"iperf3": "3.12"}, "irq_time_accounting": False}
        )
        return record.model_copy(update={"target": "kubernetes", "machine": machine})

    text = " ".join(summarise([on_cluster(one) for one in sweep({"baseline": 1})]).machine)
    assert "A Kubernetes cluster: kernel" in text
    assert "8 cores a node" in text
    assert "Versions: iperf3 3.12. Softirq time is sampled at the tick" in text


def effect(estimate: float, *, p: float | None = 0.01, problem: str | None = None) -> Effect:
    return Effect(
        estimate=estimate, low=estimate - 0.06, high=estimate + 0.06, p=p, mde=0.08,
        median=estimate, n_a=6, n_b=6, problem=problem,
    )  # fmt: skip


DOUBT = "the blocks are not independent (lag-1 0.69)"


def contrast(
    a: str, b: str, one: Effect, p: float, replicas: int = 16, doubt: str = ""
) -> Contrast:
    return judged(("overlay", replicas, a), ("overlay", replicas, b), one, p, doubt=doubt)


@pytest.mark.parametrize(
    ("estimate", "p", "mde", "doubt", "higher", "expected"),
    [
        (1.2, 0.01, 0.1, "", True, "better"),
        (0.8, 0.01, 0.1, "", True, "worse"),
        (1.2, 0.01, 0.1, "", False, "worse"),
        (1.2, 0.2, 0.1, "", True, "no significant difference"),
        (1.2, 0.2, 1.1, "", True, "inconclusive"),
        (1.2, 0.2, None, "", True, "inconclusive"),
        (1.2, 0.01, 0.1, DOUBT, True, "inconclusive"),
        (1.2, 0.2, 0.1, DOUBT, True, "inconclusive"),
        (1.2, None, 0.1, "", True, "inconclusive"),
    ],
)
def test_verdicts(
    estimate: float, p: float | None, mde: float | None, doubt: str, higher: bool, expected: Verdict
) -> None:
    found, why = judge(
        replace(effect(estimate, p=p), mde=mde),
        p,
        METRICS["bitrate_mbps" if higher else "softirq_s_per_gbit"],
        doubt=doubt,
    )
    assert found == expected
    assert bool(why) == (expected == "inconclusive")


def test_headline_names_the_best_and_what_it_is_not_distinguishable_from() -> None:
    against = [
        contrast("baseline", "rfs-plus", effect(1.24), 0.001),
        contrast("baseline", "rps-plus", effect(1.21), 0.001),
        contrast("baseline", "rfs", effect(1.09), 0.04),
        contrast("baseline", "rfs", effect(1.1), 0.01, replicas=1),
    ]
    pairwise = [
        contrast("rfs-plus", "rps-plus", effect(0.98), 0.35),
        contrast("rfs", "rfs-plus", effect(1.14), 0.001),
        contrast("rfs", "rps-plus", effect(1.11), 0.01),
    ]
    words = sentences(against, pairwise)
    assert len(words) == 2
    for part in ("At 16 pairs", "rfs-plus", "1.24x [1.18, 1.30]", "difference from rps-plus"):
        assert part in words[0]
    for part in ("At 1 pair,", "rfs", "1.10x [1.04, 1.16]"):
        assert part in words[1]


def test_sentences_for_losses_doubt_and_nothing() -> None:
    lost = [contrast("baseline", "rps", effect(0.8), 0.01)]
    (words,) = sentences(lost, [])
    assert "rps (0.80x [0.74, 0.86])" in words
    nothing = [contrast("baseline", "rps", effect(1.02), 0.5)]
    (words,) = sentences(nothing, [])
    assert "8.0 %" in words and "80 %" in words and "Holm" in words
    doubt = [contrast("baseline", "rps", effect(1.24), 0.001, doubt=DOUBT)]
    (words,) = sentences(doubt, [])
    assert "inconclusive" in words and "1.24x" in words and DOUBT in words
    mixed = [*lost, contrast("baseline", "rfs", effect(1.3), 0.001, doubt=DOUBT)]
    assert f"inconclusive: rfs ({DOUBT})" in sentences(mixed, [])[0]


def test_what_is_not_known_is_not_said_as_a_number() -> None:
    few = replace(effect(1.02), mde=4.0)
    (words,) = sentences([contrast("baseline", "rps", few, 0.5)], [])
    assert "80 %" not in words and "inconclusive" in words
    one_run = Effect(None, problem="1 run")
    (words,) = sentences([contrast("baseline", "rps", one_run, 1)], [])
    assert "inconclusive: 1 run" in words
    no_interval = replace(effect(1.2), low=None, high=None)
    assert amount(no_interval, METRICS["bitrate_mbps"]) == "1.20x"
    assert estimate(Effect(None)) == "?"
    assert [percent(value) for value in (None, 12.0, 0.25, 0.05)] == [
        "–", ">1000 %", "25 %", "5.0 %",
    ]  # fmt: skip


def test_a_difference_has_the_decimals_of_its_metric() -> None:
    def shown(name: str) -> str:
        found = Effect(-120.456, -140.04, -100.0, scale="difference")
        return amount(found, METRICS[name])

    assert shown("retransmits") == "-120 [-140, -100] segments per run"
    assert shown("p99_us") == "-120.5 [-140.0, -100.0] microseconds"
    assert shown("cpu_s_per_gbit") == "-120.456 [-140.040, -100.000] core-seconds"


def test_an_inconclusive_rival_is_not_called_alike() -> None:
    against = [contrast("baseline", name, effect(1.3), 0.001) for name in ("one", "two")]
    pairwise = [contrast("one", "two", effect(1.3), 0.001, doubt=DOUBT)]
    (words,) = sentences(against, pairwise)
    assert "no significant difference" not in words
    assert "inconclusive against two" in words


def test_overlay_over_host_is_said_once() -> None:
    paths = [PathRatio(1, "baseline", effect(0.7)), PathRatio(16, "baseline", effect(0.6))]
    words = sentences([contrast("baseline", "rps", effect(1.2), 0.01)], [], paths)
    for part in ("At 16 pairs", "baseline", "overlay", "0.60x"):
        assert part in words[-1]
    assert len(words) == 2


def test_overlay_over_host_is_estimated_where_both_were_run() -> None:
    summary = summarise(sweep({"baseline": 1, "rps": 1.1}, paths={"overlay": 1, "host": 1.5}))
    assert [one.configuration for one in summary.paths] == ["baseline", "rps"]
    for one in summary.paths:
        assert one.effect.estimate == pytest.approx(1 / 1.5, rel=0.15)
        assert one.effect.method == "paired"


def test_overlay_over_host_is_inconclusive_where_the_runs_are_not_alike() -> None:
    records = [
        record.model_copy(
            update={"machine": record.machine.model_copy(update={"mtu": {record.path: 1500}})}
        )
        for record in sweep({"baseline": 1}, paths={"overlay": 1, "host": 1.5})
        if record.machine
    ]
    assert [one.doubt for one in summarise(records).paths] == [""]
    for changed in (
        {"streams": 4},
        {"traffic": "udp"},
        {"machine": records[0].machine and records[0].machine.model_copy(update={"mtu": {}})},
    ):
        mixed = [records[0].model_copy(update=changed), *records[1:]]
        (one,) = summarise(mixed).paths
        assert "differ in" in one.doubt


def test_summaries_keep_numbers_finite() -> None:
    for one in summarise(golden_records()).states:
        for value in asdict(one).values():
            assert not (isinstance(value, float) and math.isnan(value))


def test_sentences_and_tables_bound_their_digits() -> None:
    records = [
        record.model_copy(
            update={
                "pairs": [
                    valued(
                        pair,
                        bitrate_mbps=1e9 * (1 - 0.1 * (record.block or 0) / 12)
                        if record.configuration == "rps"
                        else LEAST * (1 + (record.block or 0) % 3),
                        retransmits=2**53 - 1,
                    )
                    for pair in record.pairs
                ]
            }
        )
        for record in sweep({"baseline": 1, "rps": 1.4}, blocks=12)
    ]
    summary = summarise(records)
    text = "\n".join([*summary.verdict, *summary.caveats, text_table(summary)])
    assert max(map(len, re.findall(r"\d+", text))) < 10
    json.dumps(summary.to_json(), allow_nan=False)


def test_the_work_for_many_configurations_does_not_grow_as_their_square() -> None:
    many = sweep({"baseline": 1, **{f"c{i}": 1 + 0.01 * i for i in range(60)}}, replicas=(1,))
    summary = summarise(many)
    assert len(summary.contrasts) == 60
    assert not summary.pairwise
    assert summary.keep == max(summary.contrasts, key=lambda one: one.effect.estimate or 0).b
    assert any("not with each other" in one for one in summary.warnings)
    assert any("not drawn" in one for one in summary.warnings)
    assert "every other" not in " ".join(summary.verdict)
    found = compare(many, many, "c0", "c59")
    assert found.family == 60 * 59 // 2
    assert found.p_holm == pytest.approx(min(1, (found.effect.p or 0) * found.family))
