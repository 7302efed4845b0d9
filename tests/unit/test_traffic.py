"""The registry of traffic: what holds for every kind, and the values of the key `traffic`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.metrics import METRICS
from experiments.validity import Cause
from infra import traffic
from infra.errors import InvalidInput
from infra.settings import Images
from infra.traffic import TRAFFIC
from infra.traffic.contract import PORT, Failure, Kind, Traffic

ROOT = Path(__file__).resolve().parents[2]


class Window:
    """Of a run."""

    duration, omit, streams = 3, 1, 2


# One of each kind that a pair can have.
KINDS = {kind.name: kind for name in TRAFFIC for kind in traffic.of(name).kinds}


@pytest.fixture(params=TRAFFIC)
def value(request: pytest.FixtureRequest) -> Traffic:
    return traffic.of(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def test_a_traffic_is_known_by_its_name(value: Traffic) -> None:
    assert str(value) == value.name
    assert TRAFFIC[value.name] is type(value)


def test_metrics_are_in_the_registry(kind: Kind) -> None:
    assert kind.metrics
    assert set(kind.metrics) <= set(METRICS)


def test_kinds_of_one_traffic_share_no_metric(value: Traffic) -> None:
    names = [name for kind in value.kinds for name in kind.metrics]
    assert len(names) == len(set(names))


def test_the_image_has_the_tools(kind: Kind) -> None:
    assert kind.image in Images.model_fields
    assert len(f"{kind.image}-udp") <= 15  # names of ports (RFC 6335)
    image = (ROOT / "docker" / kind.image / "Dockerfile").read_text()
    assert all(re.search(rf"'{package}=", image) for package in kind.tools.values())


def test_both_commands_run_tools_of_the_kind(kind: Kind) -> None:
    server, client = kind.server(PORT), kind.client("192.0.2.1", PORT, Window())
    assert client[0] in kind.tools
    assert any(tool in word for tool in kind.tools for word in server)
    assert str(PORT) in server
    assert {"192.0.2.1", str(PORT)} <= set(client)
    assert kind.protocols


@given(
    st.sampled_from(list(KINDS)),
    st.binary() | st.text().map(str.encode),
    st.binary(),
    st.integers(-64, 255),
)
def test_any_output_is_a_failure_with_a_known_cause(
    name: str, out: bytes, err: bytes, status: int
) -> None:
    failure = KINDS[name].parse(out, err, status, Window())
    assert isinstance(failure, Failure)
    assert failure.text
    assert Cause(failure.cause)


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("stream", "stream"),
        ("stream:", "stream"),
        ("stream:congestion=", "stream"),
        ("stream:congestion=cubic", "stream:congestion=cubic"),
        ("stream:rate=0", "stream"),
        ("stream:rate=300M,congestion=", "stream:rate=300M"),
    ],
)
def test_one_traffic_has_one_name(text: str, shortest: str) -> None:
    assert str(traffic.of(text)) == shortest
    assert traffic.of(shortest) == traffic.of(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "traffic: must be one of"),
        ("tcp", "traffic: must be one of .*stream"),
        ("stream:congestio=cubic", "congestio: unknown key; did you mean congestion"),
        ("stream:cubic", "cubic: unknown key"),
        ("stream:congestion=-x", "congestion: must be a TCP congestion control"),
        ("stream:congestion", "congestion: "),
        ("udp:rate=1M,rate=2M", "traffic: .*twice"),
        ("udp:rate=1\u0663M", "rate: must be"),
        ("stream:congestion=a b", "congestion: must be a TCP congestion control"),
    ],
)
def test_an_unknown_value_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        traffic.of(text)
