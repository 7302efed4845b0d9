"""Limits: their text, and what an interval shows of them."""

from __future__ import annotations

import pytest

from analysis.limits import InvalidLimit, Kind, Limit, Standing, parse, parse_all
from analysis.metrics import METRICS, Metric


@pytest.mark.parametrize(
    ("text", "metric", "kind", "bound", "canonical"),
    [
        ("cpu_s_per_gbit=+10%", "cpu_s_per_gbit", "ratio", 1.1, "cpu_s_per_gbit=+10%"),
        ("cpu=+2.5%", "cpu_s_per_gbit", "ratio", 1.025, "cpu_s_per_gbit=+2.5%"),
        ("bitrate = -5%", "bitrate_mbps", "ratio", 0.95, "bitrate_mbps=-5%"),
        ("bitrate=+0%", "bitrate_mbps", "ratio", 1.0, "bitrate_mbps=+0%"),
        ("bitrate=250", "bitrate_mbps", "value", 250, "bitrate_mbps=250"),
        ("loss_percent=.5", "loss_percent", "value", 0.5, "loss_percent=0.5"),
        ("retransmits=+100", "retransmits", "difference", 100, "retransmits=+100"),
        ("idle_percent=-20", "idle_percent", "difference", -20, "idle_percent=-20"),
        ("bitrate=-50", "bitrate_mbps", "difference", -50, "bitrate_mbps=-50"),
    ],
)
def test_a_text_is_a_limit_and_back(
    text: str, metric: str, kind: Kind, bound: float, canonical: str
) -> None:
    found = parse(text)
    assert found == Limit(METRICS[metric], kind, pytest.approx(bound))
    assert str(found) == canonical
    assert parse(canonical) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "cpu", "cpu=", "=5", "cpu=ten", "cpu=+10%%", "cpu=1e3", "cpu=nan", "cpu=+-5"),
        *(
            "cpu=10 %5",
            "cpu=10%",
            "bitrate=-100%",
            "bitrate=-250%",
            "cpu=+٣%",
            "cpu=5\n6",
            f"cpu={'9' * 400}",
        ),
    ],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidLimit):
        parse(text)


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidLimit) as refused:
        parse("taste=+10%")
    assert all(name in str(refused.value) for name in METRICS)


@pytest.mark.parametrize(
    "name", [name for name, one in METRICS.items() if one.scale == "difference"]
)
def test_a_metric_that_may_be_0_has_no_percentage(name: str) -> None:
    with pytest.raises(InvalidLimit, match=name):
        parse(f"{name}=+10%")
    assert parse(f"{name}=+10").kind == "difference"


def test_idle_is_not_a_limit_of_cpu_time() -> None:
    with pytest.raises(InvalidLimit, match="idle_percent"):
        parse("idle=-5%")


def test_several_limits_in_one_text_or_in_several() -> None:
    both = parse_all(["cpu=+10%, bitrate=-5%"])
    assert both == parse_all(["cpu=+10%", "bitrate=-5%", "cpu_s_per_gbit=+10%"])
    assert [str(one) for one in both] == ["cpu_s_per_gbit=+10%", "bitrate_mbps=-5%"]
    assert parse_all([]) == ()


@pytest.mark.parametrize("texts", [[""], [" , "], ["cpu=+10%", ","]])
def test_a_text_without_a_limit_is_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidLimit):
        parse_all(texts)


LOWER, HIGHER = METRICS["cpu_s_per_gbit"], METRICS["bitrate_mbps"]


@pytest.mark.parametrize(
    ("metric", "bound", "low", "high", "standing"),
    [
        (LOWER, 1.1, 0.95, 1.05, "within"),
        (LOWER, 1.1, 0.95, 1.10, "within"),
        (LOWER, 1.1, 1.05, 1.15, "inconclusive"),
        (LOWER, 1.1, 1.11, 1.30, "exceeded"),
        (LOWER, 1.1, 1.10, 1.30, "inconclusive"),
        (HIGHER, 0.95, 0.96, 1.10, "within"),
        (HIGHER, 0.95, 0.90, 1.10, "inconclusive"),
        (HIGHER, 0.95, 0.70, 0.94, "exceeded"),
        (HIGHER, 0.95, None, None, "inconclusive"),
    ],
)
def test_an_interval_is_on_one_side_or_inconclusive(
    metric: Metric, bound: float, low: float | None, high: float | None, standing: Standing
) -> None:
    assert Limit(metric, "ratio", bound).standing(low, high) == standing
