"""Every metric of the registry is a column, can be compared, and has its words everywhere."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.compare import compare
from analysis.metrics import METRICS, Metric, UnknownMetric, described, find, slowest_share
from analysis.report.pages import write_report
from analysis.schema import Core, Datagrams, Pair, Record, Softnet
from analysis.summary import summarise
from benchmarks.synthetic import sweep, valued
from infra.traffic import TRAFFIC

pytestmark = pytest.mark.usefixtures("sketched")

RATIOS = {"baseline": 1.0, "costly": 1.2}
OF_PAIRS = {name for kind in TRAFFIC.values() for one in kind().kinds for name in one.metrics} - {
    "bitrate_mbps"
}
ALL = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def measured(record: Record) -> Record:
    """The record with counters: `costly` has more of each."""
    costly = record.configuration == "costly"
    turn = (record.block or 0) + 3 * (record.order or 0) % 7
    rows = [
        Softnet(
            node="server", core=0, processed=10**6, dropped=(900 if costly else 100) + turn,
            squeezed=(90 if costly else 10) + turn, received_rps=0, flow_limit=0,
        )
    ]  # fmt: skip
    udp = [
        Datagrams(
            node="server", sent=None, delivered=10**6, other_errors=0,
            socket_drops=(9000 if costly else 100) + turn, device_drops=(9000 if costly else 2000) + turn,
        )
    ]  # fmt: skip
    values = dict.fromkeys(OF_PAIRS, (8000 if costly else 50) + turn)
    pairs = [valued(pair, **values) for pair in record.pairs]
    pairs[0] = valued(pairs[0], bitrate_mbps=(pairs[0].values["bitrate_mbps"] or 0) * 0.9)
    words = described(pairs[0].values)
    counters = {"softnet": rows, "datagrams": udp}
    return record.model_copy(update={**counters, "pairs": pairs, "metrics": words})


RECORDS = [measured(record) for record in sweep(RATIOS, blocks=8)]


@ALL
def test_a_metric_has_a_value_for_each_run(metric: Metric) -> None:
    assert all(metric.value(record) is not None for record in RECORDS)
    bare = RECORDS[0].model_copy(update={"pairs": [], "cores": [], "softnet": [], "datagrams": []})
    assert metric.value(bare) is None


@ALL
def test_a_metric_reaches_table_report_and_csv(metric: Metric, tmp_path: Path) -> None:
    summary = summarise(RECORDS, metric=metric)
    state = summary.states[0]
    assert state.value == pytest.approx(state.means[metric.name])
    (one,) = summary.contrasts
    assert one.effect.scale == metric.scale
    assert summary.to_json()["metric"] == metric.name
    files = write_report(RECORDS, summary, tmp_path)
    text = files.markdown.read_text()
    assert metric.title in text and metric.unit in text
    for other in METRICS.values():
        assert other == metric or other.heading in text.replace("\\", "")
    assert metric.name in pd.read_csv(files.csv).columns
    comparisons = pd.read_csv(files.comparisons)
    assert list(comparisons["metric"]) == [metric.name]
    assert metric.scale in comparisons.columns
    svg = next(path for path in files.plots if path.stem == "values").with_suffix(".svg")
    assert metric.title in svg.read_text()


def test_drops_are_shares_of_the_datagrams_that_reached_the_server() -> None:
    row = Datagrams(
        node="server", sent=None, delivered=600, socket_drops=250, other_errors=50, device_drops=70
    )
    backlog = Softnet(
        node="server", core=0, processed=1, dropped=20, flow_limit=10, squeezed=0, received_rps=0
    )
    elsewhere = backlog.model_copy(update={"node": "client", "dropped": 10**6})
    record = RECORDS[0].model_copy(update={"datagrams": [row], "softnet": [backlog, elsewhere]})
    shares = {
        name: METRICS[f"loss_{name}_percent"].value(record)
        for name in ("socket", "backlog", "device")
    }
    total = 600 + 250 + 50 + 30 + 40
    assert shares == pytest.approx(
        {"socket": 25000 / total, "backlog": 3000 / total, "device": 4000 / total}
    )

    streams = [pair.model_copy(update={"kind": "stream"}) for pair in record.pairs]
    beside = record.model_copy(update={"pairs": [*streams, Pair(index=9, kind="rr", values={})]})
    found = {name: METRICS[f"loss_{name}_percent"].value(beside) for name in shares}
    # the packets that backlogs and devices dropped are those of TCP too
    assert found == {"socket": pytest.approx(25000 / 900), "backlog": None, "device": None}


@pytest.mark.parametrize(
    "name",
    ["retransmits", "retransmits_per_gbit", "dropped_per_gbit", "squeezed_per_gbit"],
)
def test_more_of_a_cost_is_worse_by_a_signed_difference(name: str) -> None:
    metric = METRICS[name]
    (one,) = summarise(RECORDS, metric=metric).contrasts
    assert (one.verdict, one.effect.scale) == ("worse", "difference")
    means = {
        side: [metric.value(record) or 0 for record in RECORDS if record.configuration == side]
        for side in RATIOS
    }
    expected = (sum(means["costly"]) - sum(means["baseline"])) / 8
    assert one.effect.estimate == pytest.approx(expected)
    answer = compare(RECORDS, RECORDS, "baseline", "costly", metric=metric)
    assert (answer.exit_code, answer.effect.estimate) == (4, one.effect.estimate)
    assert f"+{expected:.3f}" in answer.sentence
    back = compare(RECORDS, RECORDS, "costly", "baseline", metric=metric)
    assert (back.exit_code, back.effect.estimate) == (0, pytest.approx(-expected))


def test_two_sweeps_are_compared_by_difference_too() -> None:
    other = [
        measured(record).model_copy(update={"plan": "other"})
        for record in sweep(RATIOS, blocks=8, seed=4)
    ]
    metric = METRICS["retransmits"]
    answer = compare(RECORDS, other, "baseline", "costly", metric=metric)
    assert answer.exit_code == 4
    assert (answer.effect.method, answer.effect.scale) == ("unpaired", "difference")
    same = compare(RECORDS, other, "costly", "costly", metric=metric)
    assert (same.effect.method, same.verdict) == ("relative", "no significant difference")


def test_a_metric_that_was_not_measured_is_no_column(tmp_path: Path) -> None:
    records = sweep(RATIOS, blocks=2)  # without softnet counters
    text = write_report(records, summarise(records), tmp_path).markdown.read_text()
    assert METRICS["total_mbps"].heading in text
    assert METRICS["dropped_per_gbit"].heading not in text


def test_metrics_of_zero_everywhere_are_inconclusive_and_no_crash() -> None:
    records = sweep(RATIOS, blocks=8)  # without a retransmit
    (one,) = summarise(records, metric=METRICS["retransmits"]).contrasts
    assert (one.verdict, one.effect.estimate) == ("inconclusive", 0)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    assert find("softirq") is METRICS["softirq_s_per_gbit"]
    with pytest.raises(UnknownMetric, match="bitrate_mbps") as refused:
        find("taste")
    assert all(name in str(refused.value) for name in METRICS)


def test_a_record_describes_the_metrics_that_it_carries() -> None:
    words = json.loads(RECORDS[0].model_dump_json())["metrics"]
    assert list(words) == list(RECORDS[0].pairs[0].values)
    assert words["bitrate_mbps"] == METRICS["bitrate_mbps"].words.model_dump()
    assert described(["unknown"]) == {}


def test_fairness_of_one_pair_or_of_silence_is_not_known() -> None:
    assert slowest_share([5.0]) is None
    assert slowest_share([0.0, 0.0]) is None
    assert slowest_share([1.0, 4.0]) == 0.25


def test_cpu_time_is_all_that_is_not_idle_per_gbit_and_less_of_it_is_better() -> None:
    metric = METRICS["cpu_s_per_gbit"]
    pairs = [
        Pair(index=1, values={"bitrate_mbps": 500}),
        Pair(index=2, values={"bitrate_mbps": 1500}),
    ]
    cores = [
        Core(node="a", core=0, idle=25, side="server"),
        Core(node="a", core=1, idle=75, side="server"),
        Core(node="b", core=0, idle=0, side="client"),
    ]
    record = RECORDS[0].model_copy(update={"pairs": pairs, "cores": cores})
    assert metric.value(record) == pytest.approx((0.75 + 0.25) / 2)
    (one,) = summarise(
        sweep({"baseline": 1.0, "rfs": 1.5}, blocks=8, seed=1), metric=metric
    ).contrasts
    assert one.verdict == "better"  # more traffic for the same CPU time
    assert find("cpu") is find("idle") is metric


def test_a_metric_is_of_the_pairs_whose_kind_has_it() -> None:
    def mixed(*probe: float | None) -> Record:
        pairs = [
            Pair(index=1, kind="stream", values={"bitrate_mbps": 500}),
            Pair(index=2, kind="stream", values={"bitrate_mbps": 1500}),
            *(Pair(index=3, kind="rr", values={"p99_us": one}) for one in probe),
        ]
        return RECORDS[0].model_copy(update={"pairs": pairs})

    assert METRICS["bitrate_mbps"].value(mixed(80)) == 1000
    assert METRICS["p99_us"].value(mixed(80)) == 80
    assert METRICS["p99_us"].value(mixed()) is None
    assert METRICS["p99_us"].value(mixed(80, None)) is None  # one of two was not measured
    lost = Pair(index=3, kind="stream", values={})
    record = mixed(80).model_copy(update={"pairs": [*mixed(80).pairs, lost]})
    assert METRICS["bitrate_mbps"].value(record) is None
