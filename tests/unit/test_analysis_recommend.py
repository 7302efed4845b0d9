"""Which configuration is recommended: all counts, what gets worse, and what changes least."""

from __future__ import annotations

import pytest

from analysis.choice import changed_values
from analysis.limits import parse
from analysis.metrics import METRICS
from analysis.recommend import recommend
from analysis.schema import QueueSteering, Record, Steering
from analysis.statistics import Effect
from analysis.summary import summarise
from analysis.tradeoff import Interval, LimitCheck, Row, Tradeoff
from analysis.verdict import Contrast, Verdict
from benchmarks.synthetic import sweep, valued

NAMES = ("rps-plus", "rfs-plus", "pipeline")
COMPLEXITY = {"pipeline": 3, "rps": 3, "rfs": 4, "rps-plus": 4, "rfs-plus": 5}


def contrast(
    name: str,
    replicas: int,
    estimate: float,
    low: float,
    high: float,
    verdict: Verdict,
    against: str = "baseline",
) -> Contrast:
    effect = Effect(estimate, low, high, p=0.01, mde=0.1, n_a=10, n_b=10)
    doubt = "a reason" if verdict == "inconclusive" else ""
    return Contrast("overlay", replicas, against, name, effect, 0.01, verdict, doubt)


# What the lab measured: the highest estimate at 16 pairs loses a third at one pair.
MEASURED = [
    contrast("rps-plus", 1, 0.70, 0.58, 0.84, "worse"),
    contrast("pipeline", 1, 1.00, 0.92, 1.08, "no significant difference"),
    contrast("rfs-plus", 1, 0.87, 0.83, 0.93, "worse"),
    contrast("rps-plus", 16, 1.49, 1.27, 1.74, "better"),
    contrast("pipeline", 16, 1.45, 1.24, 1.70, "better"),
    contrast("rfs-plus", 16, 1.39, 1.16, 1.66, "better"),
]


def test_what_loses_at_one_count_is_not_recommended_for_its_gain_at_another() -> None:
    found = recommend(MEASURED, [], COMPLEXITY, "baseline")
    assert found is not None
    assert found.configuration == "pipeline"
    assert "0.70x [0.58, 0.84] at 1 pair" in found.sentence


def test_without_a_safe_one_the_choice_is_by_count() -> None:
    unsafe = [one for one in MEASURED if one.b != "pipeline"]
    found = recommend(unsafe, [], COMPLEXITY, "baseline")
    assert found is not None
    assert found.configuration is None
    assert found.by_count == {1: "baseline", 16: "rps-plus"}
    for part in ("rps-plus", "0.70x", "baseline for 1 pair"):
        assert part in found.sentence


@pytest.mark.parametrize(
    ("estimate", "low", "high", "verdict"),
    [
        (0.90, 0.82, 0.98, "no significant difference"),  # harm does not wait for Holm
        (0.94, 0.80, 1.10, "no significant difference"),  # more than 5 % below
        (1.30, 1.20, 1.40, "inconclusive"),
        (0.80, 0.70, 0.90, "worse"),
    ],
)
def test_what_may_lose_is_not_recommended(
    estimate: float, low: float, high: float, verdict: Verdict
) -> None:
    rows = [
        contrast("rps", 16, 1.5, 1.4, 1.6, "better"),
        contrast("rps", 1, estimate, low, high, verdict),
    ]
    found = recommend(rows, [], COMPLEXITY, "baseline")
    assert found is not None and found.configuration is None
    assert found.by_count[16] == "rps"
    assert found.by_count[1] == "baseline"


def test_what_was_not_measured_at_every_count_is_not_recommended_for_all() -> None:
    rows = [
        contrast("rps", 16, 1.5, 1.4, 1.6, "better"),
        contrast("rfs", 1, 1.0, 0.95, 1.05, "no significant difference"),
    ]
    found = recommend(rows, [], COMPLEXITY, "baseline")
    assert found is not None and found.configuration is None
    assert "not measured at 1 pair" in found.sentence


def both_better(verdict: Verdict, leader: float = 1.43) -> str | None:
    rows = [
        contrast("rfs-plus", 4, leader, 1.35, 1.55, "better"),
        contrast("pipeline", 4, 1.40, 1.30, 1.50, "better"),
    ]
    pairwise = [contrast("rfs-plus", 4, leader / 1.4, 0.97, 1.15, verdict, against="pipeline")]
    found = recommend(rows, pairwise, COMPLEXITY, "baseline")
    return found.configuration if found else None


def test_of_those_that_cannot_be_told_apart_the_one_that_changes_least() -> None:
    assert both_better("no significant difference") == "pipeline"
    assert both_better("inconclusive") == "pipeline"
    assert both_better("better") == "rfs-plus"


def test_what_was_not_told_apart_but_is_estimated_far_below_is_not_preferred() -> None:
    assert both_better("no significant difference", leader=1.48) == "rfs-plus"


def test_nothing_better_means_the_baseline_and_nothing_known_means_nothing() -> None:
    equal = [contrast("rps", 4, 1.0, 0.9, 1.1, "no significant difference")]
    found = recommend(equal, [], COMPLEXITY, "baseline")
    assert found is not None and found.configuration == "baseline"
    unknown = [contrast("rps", 4, 1.5, 1.4, 1.6, "inconclusive")]
    found = recommend(unknown, [], COMPLEXITY, "baseline")
    assert found is not None and found.configuration is None and not found.by_count
    assert recommend([], [], COMPLEXITY, "baseline") is None


LIMIT = parse("p99_us=+10%")


def limited(**found: dict[int, tuple[float, float, float]]) -> Tradeoff:
    """A trade-off with the p99 ratio of each configuration and replica count against one limit."""
    rows = [
        Row("overlay", count, name.replace("_", "-"),
            limits=[LimitCheck(LIMIT, LIMIT.standing(*one[1:]), Interval(*one))])
        for name, counts in found.items()
        for count, one in counts.items()
    ]  # fmt: skip
    return Tradeoff((), (LIMIT,), rows)


GAINS = [
    contrast("rfs", 4, 1.45, 1.35, 1.55, "better"),
    contrast("pipeline", 4, 1.30, 1.20, 1.40, "better"),
    contrast("rps", 4, 1.00, 0.95, 1.05, "no significant difference"),
]
EQUAL, COSTLY, UNCLEAR, WORSE = (
    (1.0, 0.97, 1.03), (1.5, 1.4, 1.6), (1.08, 1.02, 1.14), (1.13, 1.07, 1.19),
)  # fmt: skip


@pytest.mark.parametrize(
    ("baseline", "rfs", "pipeline", "rps", "chosen", "tentative"),
    [
        (EQUAL, EQUAL, EQUAL, EQUAL, "rfs", None),
        (EQUAL, COSTLY, EQUAL, EQUAL, "pipeline", None),
        (EQUAL, UNCLEAR, EQUAL, EQUAL, "pipeline", None),
        (EQUAL, COSTLY, COSTLY, EQUAL, "baseline", None),
        (EQUAL, COSTLY, UNCLEAR, EQUAL, None, "pipeline"),
        (EQUAL, UNCLEAR, COSTLY, EQUAL, None, "rfs"),
        (EQUAL, WORSE, UNCLEAR, EQUAL, None, "pipeline"),  # by its estimate
        (EQUAL, WORSE, COSTLY, EQUAL, None, "rfs"),
        (COSTLY, COSTLY, EQUAL, EQUAL, "pipeline", None),
        (COSTLY, COSTLY, COSTLY, EQUAL, "rps", None),  # gains nothing, but is within the limit
        (COSTLY, COSTLY, COSTLY, UNCLEAR, None, "rps"),
        (COSTLY, COSTLY, COSTLY, COSTLY, None, None),
    ],
)
def test_limits_are_constraints(
    baseline: tuple[float, float, float],
    rfs: tuple[float, float, float],
    pipeline: tuple[float, float, float],
    rps: tuple[float, float, float],
    chosen: str | None,
    tentative: str | None,
) -> None:
    tradeoff = limited(baseline={4: baseline}, rfs={4: rfs}, pipeline={4: pipeline}, rps={4: rps})
    pairwise = [contrast("rfs", 4, 1.12, 1.05, 1.19, "better", against="pipeline")]
    found = recommend(GAINS, pairwise, {}, "baseline", tradeoff=tradeoff)
    assert found is not None
    assert (found.configuration, found.tentative) == (chosen, tentative)
    excluded = found.sentence.partition(". ")[0].partition("excluded by the limit")[2]
    for name, interval in {"rfs": rfs, "pipeline": pipeline}.items():
        assert (name in excluded) == (interval == COSTLY)


@pytest.mark.parametrize(
    ("rps", "tentative"), [((25.4, 25.2, 25.6), "rps"), ((27.0, 26.7, 27.3), None)]
)
def test_a_baseline_wholly_beyond_a_limit_is_not_recommended_for_a_doubt(
    rps: tuple[float, float, float], tentative: str | None
) -> None:
    limit = parse("p50_us=26")
    own = LimitCheck(limit, "inconclusive", Interval(27.2, 26.9, 27.6), "a reason")
    other = LimitCheck(limit, limit.standing(*rps[1:]), Interval(*rps))
    rows = [Row("overlay", 4, "baseline", limits=[own]), Row("overlay", 4, "rps", limits=[other])]
    found = recommend(GAINS[2:], [], {}, "baseline", tradeoff=Tradeoff((), (limit,), rows))
    assert found is not None
    assert (found.configuration, found.tentative, found.by_count) == (None, tentative, {})
    for part in ("27.2 [26.9, 27.6]", "a reason", "rps"):
        assert part in found.sentences[0]


def test_what_only_keeps_the_limits_has_its_loss_as_a_cost() -> None:
    rows = [contrast("rfs", 4, 0.90, 0.85, 0.95, "worse")]
    tradeoff = limited(baseline={4: COSTLY}, rfs={4: EQUAL})
    found = recommend(rows, [], {}, "baseline", tradeoff=tradeoff)
    assert found is not None and found.configuration == "rfs"
    first, _, cost = found.sentences[0].partition("costs ")
    assert "baseline exceeds p99_us=+10%" in first and "0.90x" not in first
    assert cost.startswith("bitrate 0.90x [0.85, 0.95]")


@pytest.mark.parametrize("verdict", ["worse", "no significant difference"])
def test_the_best_of_none_is_worse_where_that_is_its_verdict(verdict: Verdict) -> None:
    rows = [contrast("rfs", 4, 0.97, 0.95, 0.99, verdict)]
    found = recommend(rows, [], {}, "baseline")
    assert found is not None and found.configuration == "baseline"
    assert ("worse" in found.sentence) == (verdict == "worse")


def test_where_the_baseline_alone_is_missing_the_sentence_says_so() -> None:
    records = [
        record
        for record in sweep({"baseline": 1, "rfs": 1.4}, replicas=(1, 4), blocks=8)
        if (record.configuration, record.replicas) != ("baseline", 1)
    ]
    found = summarise(records).recommendation
    assert found is not None
    assert "(baseline was not measured at 1 pair)" in found.sentence


def test_a_limit_exceeded_at_one_count_excludes_there() -> None:
    rows = [contrast("rfs", count, 1.45, 1.35, 1.55, "better") for count in (4, 16)]
    tradeoff = limited(baseline={4: EQUAL, 16: EQUAL}, rfs={4: COSTLY, 16: EQUAL})
    found = recommend(rows, [], {}, "baseline", tradeoff=tradeoff)
    assert found is not None and found.configuration is None
    assert found.by_count == {4: "baseline", 16: "rfs"}
    unclear = limited(baseline={4: EQUAL, 16: EQUAL}, rfs={4: UNCLEAR, 16: EQUAL})
    found = recommend(rows, [], {}, "baseline", tradeoff=unclear)
    assert found is not None and found.by_count == {16: "rfs"}
    assert (found.configuration, found.tentative) == (None, "rfs")


def test_a_baseline_that_may_exceed_a_limit_is_recommended_with_that_doubt() -> None:
    limit = parse("p99_us=100")
    for interval, doubtful in (((95.0, 90.0, 99.0), False), ((99.0, 90.0, 108.0), True)):
        rows = [
            Row("overlay", 4, name, limits=[LimitCheck(limit, limit.standing(*one[1:]), Interval(*one))])
            for name, one in (("baseline", interval), ("rps", (95.0, 90.0, 99.0)))
        ]  # fmt: skip
        found = recommend(GAINS[2:], [], {}, "baseline", tradeoff=Tradeoff((), (limit,), rows))
        assert found is not None and found.configuration == "baseline"
        assert ("inconclusive" in found.sentences[0]) == doubtful
        assert ("99.0 [90.0, 108.0]" in found.sentences[0]) == doubtful


@pytest.mark.parametrize(("low", "cost"), [(1.84, True), (0.9, False)])
def test_an_interval_wholly_on_the_worse_side_is_a_probable_cost(low: float, cost: bool) -> None:
    p99 = METRICS["p99_us"]
    row = Row("overlay", 4, "rfs", contrasts={
        p99.name: contrast("rfs", 4, 2.27, low, 2.81, "inconclusive")})  # fmt: skip
    found = recommend(GAINS[:1], [], {}, "baseline", tradeoff=Tradeoff((p99,), (), [row]))
    assert found is not None and found.configuration == "rfs"
    (one,) = [text for text in found.sentences if p99.title in text]
    assert one.startswith("Probably costs") == cost
    assert ("a reason" in one) == cost


@pytest.mark.parametrize(
    ("p99", "excluded"), [((1.08, 1.02, 1.14), False), ((1.13, 1.07, 1.19), True)]
)
def test_more_runs_of_a_tentative_choice_exclude_it_where_its_estimate_is_beyond(
    p99: tuple[float, float, float], excluded: bool
) -> None:
    latency = METRICS["p99_us"]
    limits = [LimitCheck(LIMIT, LIMIT.standing(*p99[1:]), Interval(*p99))]
    own = {latency.name: contrast("rfs", 4, *p99, "worse")}
    rows = [Row("overlay", 4, "rfs", contrasts=own, limits=limits)]
    tradeoff = Tradeoff((latency,), (LIMIT,), rows)
    found = recommend(GAINS[:1], [], {}, "baseline", tradeoff=tradeoff)
    assert found is not None and found.tentative == "rfs"
    assert ("exceeds the limit" in found.sentences[0]) == excluded
    assert ("exclude rfs" in found.sentences[0]) == excluded
    assert any(one.startswith("Costs: p99") for one in found.sentences)


def test_a_change_is_named_as_what_its_figure_is() -> None:
    p99 = METRICS["p99_us"]
    gains = [contrast("rfs", count, 1.45, 1.35, 1.55, "better") for count in (4, 16)]
    rows = [
        Row("overlay", 4, "rfs", contrasts={
            p99.name: contrast("rfs", 4, 1.01, 0.50, 2.00, "inconclusive")}),
        Row("overlay", 16, "rfs", contrasts={
            p99.name: contrast("rfs", 16, 1.05, 0.98, 1.12, "no significant difference")}),
    ]  # fmt: skip
    found = recommend(gains, [], {}, "baseline", tradeoff=Tradeoff((p99,), (), rows))
    assert found is not None and found.configuration == "rfs"
    (one,) = [text for text in found.sentences if p99.title in text]
    assert one.startswith("Inconclusive") and "1.01x" in one and "1.05x" not in one


def steered(record: Record, *queues: tuple[str, str, int], entries: int = 0) -> Record:
    rows = [
        QueueSteering(node="n", role=role, device="d", queue="rx-0", rps_cpus=cpus,
                      rps_flow_cnt=flows)  # type: ignore[arg-type]
        for role, cpus, flows in queues
    ]  # fmt: skip
    steering = Steering(sock_flow_entries=entries, queues=rows)
    return record.model_copy(update={"steering_before": steering})


def test_complexity_is_the_values_that_differ_from_the_baseline_s() -> None:
    (record, *_) = sweep({"baseline": 1}, blocks=1)
    plain = steered(record, ("nic", "1", 0), ("overlay", "0", 0), ("pod", "0", 0))
    pods = [("pod", "3", 0)] * 16
    rps = steered(record, ("nic", "3", 0), ("overlay", "3", 0), *pods)
    rfs = steered(record, ("nic", "1", 64), ("overlay", "0", 64), ("pod", "0", 0), entries=64)
    assert changed_values([plain], [plain]) == 0
    assert changed_values([rps], [plain]) == 3
    assert changed_values([rfs], [plain]) == 3
    assert changed_values([record], [plain]) is None


def test_a_summary_recommends_the_simplest_of_the_best() -> None:
    def steering(record: Record) -> Record:
        masks = {"baseline": "0", "one": "1", "two": "3"}
        more = [("overlay", "3", 0)] if record.configuration == "two" else [("overlay", "0", 0)]
        return steered(record, ("nic", masks[record.configuration], 0), *more)

    records = [
        steering(record)
        for record in sweep({"baseline": 1, "one": 1.3, "two": 1.31}, replicas=(1, 4), blocks=10)
    ]
    summary = summarise(records)
    assert summary.keep == "one"
    assert summary.verdict[0].startswith("Recommended: one,")
    loses = [
        record.model_copy(
            update={
                "pairs": [
                    valued(pair, bitrate_mbps=(pair.values["bitrate_mbps"] or 0) * 0.5)
                    for pair in record.pairs
                ]
            }
        )
        if (record.configuration, record.replicas) == ("one", 1)
        else record
        for record in records
    ]
    assert summarise(loses).keep == "two"


def costly(record: Record) -> Record:
    """Ten times the baseline's retransmits, drops, and a pair that starves."""
    if record.configuration != "rps":
        pairs = [valued(pair, retransmits=100) for pair in record.pairs]
        return record.model_copy(update={"pairs": pairs})
    first, *rest = record.pairs
    pairs = [valued(first, bitrate_mbps=(first.values["bitrate_mbps"] or 0) * 0.5), *rest]
    pairs = [valued(pair, retransmits=1000) for pair in pairs]
    data = record.model_dump(mode="json")
    data["pairs"] = [pair.model_dump(mode="json") for pair in pairs]
    data["softnet"] = [
        {"node": "server", "core": 0, "processed": 1000, "dropped": 500, "squeezed": 5,
         "received_rps": 0, "flow_limit": 0}
    ]  # fmt: skip
    return Record.model_validate(data)


def test_retransmits_and_unfair_pairs_are_costs_of_a_gain() -> None:
    records = [costly(record) for record in sweep({"baseline": 1, "rps": 1.6, "rfs": 1.3})]
    summary = summarise(records)
    row = summary.tradeoff.row("overlay", 4, "rps")
    assert row is not None
    assert row.costs.keys() == {"retransmits_per_gbit", "slowest_share"}
    assert summary.recommendation is not None
    costs = summary.recommendation.sentence.partition("Costs: ")[2]
    for part in ("retransmits", "slowest pair"):
        assert part in costs
    assert not summary.caveats
    states = {one.configuration: one for one in summary.states}
    volume = (states["rps"].means["total_mbps"] or 0) / 1000 * 5
    assert states["rps"].means["retransmits_per_gbit"] == pytest.approx(4000 / volume, rel=0.05)
    assert states["rps"].means["dropped_per_gbit"] == pytest.approx(500 / volume, rel=0.05)
    assert states["rps"].means["squeezed_per_gbit"] == pytest.approx(5 / volume, rel=0.05)
    shares = {name: one.means["slowest_share"] or 0 for name, one in states.items()}
    assert shares["rps"] < 0.6 < 0.85 < shares["baseline"]
    assert not summarise(sweep({"baseline": 1, "rps": 1.6})).caveats


def test_a_large_cost_that_is_not_significant_is_a_caveat() -> None:
    records = [
        record.model_copy(update={"pairs": [valued(p, retransmits=9000) for p in record.pairs]})
        if (record.configuration, record.block) == ("rps", 3)
        else record
        for record in sweep({"baseline": 1, "rps": 1.6})
    ]
    summary = summarise(records)
    (caveat,) = summary.caveats
    assert caveat.startswith("rps at 4 pairs") and "retransmits" in caveat


def scaled(record: Record, factor: float) -> Record:
    pairs = [
        valued(pair, bitrate_mbps=(pair.values["bitrate_mbps"] or 0) * factor)
        for pair in record.pairs
    ]
    return record.model_copy(update={"pairs": pairs})


def failed(record: Record) -> Record:
    return record.model_copy(update={"valid": False, "reasons": ["the server node died"]})


@pytest.mark.parametrize("lost", ["invalid", "absent"])
@pytest.mark.parametrize("whose", ["rfs", "baseline"])
def test_what_has_no_valid_run_at_a_count_is_not_recommended_for_all(lost: str, whose: str) -> None:
    records = []
    for record in sweep({"baseline": 1, "rfs": 1.4}, replicas=(1, 4, 16), blocks=8):
        if (record.configuration, record.replicas) != (whose, 16):
            records.append(record)
        elif lost == "invalid":
            records.append(failed(record))
    summary = summarise(records)
    assert summary.keep is None
    assert summary.recommendation is not None
    assert summary.recommendation.by_count == {1: "rfs", 4: "rfs"}
    assert "16 pairs" in summary.recommendation.sentence
    of_baseline = [one for one in summary.warnings if "no valid run of baseline" in one]
    assert bool(of_baseline) == (whose == "baseline")
    if lost == "invalid" and whose == "rfs":
        assert any("no valid run of rfs" in one for one in summary.warnings)


def test_one_that_fails_at_a_count_gives_way_to_one_that_was_measured_at_all() -> None:
    records = [
        failed(record) if (record.configuration, record.replicas) == ("rfs", 16) else record
        for record in sweep({"baseline": 1, "rfs": 1.6, "rps": 1.3}, replicas=(4, 16), blocks=10)
    ]
    assert summarise(records).keep == "rps"


def test_a_loss_over_the_host_network_counts() -> None:
    records = [
        scaled(record, 0.4) if (record.configuration, record.path) == ("rfs", "host") else record
        for record in sweep(
            {"baseline": 1, "rfs": 1.4}, blocks=8, paths={"overlay": 1, "host": 1.5}
        )
    ]
    summary = summarise(records)
    assert {(one.path, one.verdict) for one in summary.contrasts} == {
        ("overlay", "better"),
        ("host", "worse"),
    }
    assert summary.keep is None
    assert summary.recommendation is not None
    assert summary.recommendation.configuration == "baseline"
    assert "host network" in summary.recommendation.sentence


@pytest.mark.parametrize(("gain", "kept"), [(1.000001, None), (1.005, None), (1.02, "rfs")])
def test_a_gain_too_small_to_matter_is_no_reason_to_steer(gain: float, kept: str | None) -> None:
    summary = summarise(sweep({"baseline": 1, "rfs": gain}, blocks=8, spread=1e-8))
    assert summary.contrasts[0].verdict == "better"
    assert summary.keep == kept
