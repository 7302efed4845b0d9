"""Traffic `udp`: its commands, and iperf3's JSON of a pair whose path lost and reordered datagrams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra import traffic
from infra.errors import InvalidInput
from infra.traffic.contract import Failure, Values
from infra.traffic.udp import Udp

# iperf3 3.12 over loopback, through a relay that dropped 3 % and held back 2 % of the datagrams.
CAPTURED = (Path(__file__).parent / "data/iperf3-udp.json").read_bytes()


class Window:
    """That of the captured run."""

    duration, omit, streams = 2, 1, 2


def parsed(change: Callable[[dict[str, Any]], object] = lambda _: None) -> Values | Failure:
    document = json.loads(CAPTURED)
    change(document)
    return Udp().parse(json.dumps(document).encode(), b"", 0, Window())


def numbers(change: Callable[[dict[str, Any]], object] = lambda _: None) -> dict[str, float]:
    values = parsed(change)
    assert isinstance(values, Values), values
    return dict(values.numbers)


BITRATE = pytest.approx(38.687676)


def test_all_figures_are_the_receiver_s_without_the_omitted_seconds() -> None:
    """238 of 7,296 datagrams; the client's own figures are 349 of 7,142 and no order."""
    assert numbers() == {
        "bitrate_mbps": BITRATE,
        "loss_percent": pytest.approx(100 * 238 / 7296),
        "out_of_order": 84 + 67,
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("server_output_json"),
        lambda document: document.update(server_output_json="text"),
        lambda document: document["server_output_json"].pop("end"),
        lambda document: document["server_output_json"].update(end={"streams": 3}),
    ],
)
def test_a_server_without_json_leaves_the_bitrate(
    change: Callable[[dict[str, Any]], object],
) -> None:
    assert numbers(change) == {"bitrate_mbps": BITRATE}


def test_the_order_of_some_streams_is_no_figure() -> None:
    found = numbers(lambda document: document["server_output_json"]["end"]["streams"].pop())
    assert found.keys() == {"bitrate_mbps", "loss_percent"}


@pytest.mark.parametrize("loss", [100.1, -1, "all"])
def test_a_loss_that_cannot_be_is_none(loss: object) -> None:
    found = numbers(
        lambda document: document["server_output_json"]["end"]["sum_received"].update(
            lost_percent=loss
        )
    )
    assert "loss_percent" not in found


def test_all_datagrams_of_the_measured_seconds_may_be_lost() -> None:
    found = numbers(
        lambda document: document["server_output_json"]["end"]["sum_received"].update(
            lost_percent=100
        )
    )
    assert found["loss_percent"] == 100


def test_no_datagram_that_arrived_is_a_failure() -> None:
    """TCP, and with it the control connection, may pass where UDP does not."""
    failure = parsed(
        lambda document: document["end"]["sum_received"].update(bytes=0, bits_per_second=0)
    )
    assert isinstance(failure, Failure)
    assert failure.cause == "traffic"


def test_the_commands() -> None:
    assert " ".join(Udp().server(5201)) == (
        "iperf3 --server --version4 --port 5201 --json --interval 0"
    )
    client = " ".join(Udp(rate="1G", size=9000).client("10.244.0.2", 5201, Window()))
    assert client.startswith("iperf3 --json --version4 --client 10.244.0.2 --port 5201")
    assert client.endswith("--udp --bitrate 1G --length 9000 --get-server-output")


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("udp:rate=300M,size=1400", "udp"),
        ("udp:size=64,rate=0", "udp:rate=0,size=64"),
        ("udp:rate=2G", "udp:rate=2G"),
    ],
)
def test_options_have_one_spelling(text: str, shortest: str) -> None:
    assert str(traffic.of(text)) == shortest


@pytest.mark.parametrize("option", ["rate=fast", "rate=-1", "rate=1.5G", "size=15", "size=65508"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(InvalidInput, match=rf"traffic: udp: {option.partition('=')[0]}: must be"):
        traffic.of(f"udp:{option}")
