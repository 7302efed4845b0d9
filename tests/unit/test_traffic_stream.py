"""Traffic `stream`: its commands, and iperf3's JSON of one pair, captured and spoiled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.traffic import iperf3
from infra.traffic.contract import Failure, Values
from infra.traffic.stream import Stream

CAPTURED = (Path(__file__).parent / "data/iperf3-loopback.json").read_bytes()

# iperf3 3.12 against a closed port; it ends with exit code 0.
REFUSED = b"""{
	"start":	{
		"connected":	[],
		"version":	"iperf 3.12",
		"system_info":	"Linux vm 6.18.44-fc-v669 #1 SMP PREEMPT_DYNAMIC @0 x86_64"
	},
	"intervals":	[],
	"end":	{
	},
	"error":	"unable to connect to server: Connection refused"
}
"""


class Window:
    """That of the captured run."""

    duration, omit, streams = 1, 0, 1


def parsed(output: bytes, err: bytes = b"", status: int = 0) -> Values:
    values = Stream().parse(output, err, status, Window())
    assert isinstance(values, Values), values
    return values


def failed(output: bytes, err: bytes = b"", status: int = 0) -> Failure:
    failure = Stream().parse(output, err, status, Window())
    assert isinstance(failure, Failure), failure
    return failure


RATE = pytest.approx(24549.082, abs=0.001)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The captured result with something else in its end."""
    result = json.loads(CAPTURED)
    change(result["end"])
    return json.dumps(result).encode()


def received(**figures: Any) -> bytes:
    return changed(lambda end: end["sum_received"].update(figures))


def test_goodput_is_the_receivers() -> None:
    """The sender's own figure is 24550.481."""
    result = parsed(CAPTURED)
    assert result.numbers == {"bitrate_mbps": RATE, "retransmits": 0}
    assert (result.warnings, result.congestion) == ((), "bbr")


def test_a_rate_is_not_rounded() -> None:
    slow = received(bits_per_second=400.0, bytes=50)
    assert parsed(slow).numbers["bitrate_mbps"] == 0.0004


def test_a_starved_pair_received_nothing() -> None:
    """As iperf3 3.12 prints it of a pair of an overloaded node."""
    result = parsed(received(bytes=0, bits_per_second=0))
    assert result.numbers["bitrate_mbps"] == 0
    assert result.warnings


WARNING = b"warning: JSON data length overflow\n"


@pytest.mark.parametrize(
    ("output", "err", "warnings"),
    [
        (WARNING + CAPTURED, b"", ("warning: JSON data length overflow",)),
        (CAPTURED, WARNING, ("warning: JSON data length overflow",)),
        (CAPTURED + b"\niperf Done.\n", b"", ("iperf Done.",)),
        (b"{not JSON}\n" + CAPTURED, b"", ("{not JSON}",)),
        (CAPTURED + CAPTURED, b"", ()),  # 3.16 and 3.17
        (b"\xff\n" + CAPTURED, b"", ("\ufffd",)),
    ],
    ids=["before", "stderr", "after", "a brace", "twice", "not UTF-8"],
)
def test_text_around_the_result_is_a_warning(
    output: bytes, err: bytes, warnings: tuple[str, ...]
) -> None:
    result = parsed(output, err)
    assert result.numbers["bitrate_mbps"] == RATE
    assert result.warnings == warnings


def test_output_that_is_no_result_is_cut() -> None:
    """A record keeps it as warnings, and has a largest size."""
    failure = failed(b"{" + b"x" * 100_000 + b"\n" * 99 + b"y" * 5_000, b"z\n" * 1_000, 1)
    assert sum(map(len, failure.warnings)) < 25_000


@pytest.mark.parametrize(
    "output",
    [
        changed(lambda end: end["sum_sent"].pop("retransmits")),
        changed(lambda end: end["sum_sent"].update(retransmits=-1)),
        changed(lambda end: end["sum_sent"].update(retransmits=10**30)),
        changed(lambda end: end["sum_sent"].update(retransmits="many")),
        changed(lambda end: end["sum_sent"].update(retransmits=float("nan"))),
        changed(lambda end: end.update(sum_sent=None)),
        CAPTURED.replace(b'"retransmits":0', b'"retransmits":-nan'),
    ],
)
def test_a_side_figure_never_costs_the_rate(output: bytes) -> None:
    assert parsed(output).numbers == {"bitrate_mbps": RATE}


def test_a_result_without_a_congestion_control_has_none() -> None:
    for output in (
        changed(lambda end: end.pop("sender_tcp_congestion")),
        changed(lambda end: end.update(sender_tcp_congestion=3)),
    ):
        assert parsed(output).congestion is None


@pytest.mark.parametrize(
    ("output", "status", "words", "cause"),
    [
        (REFUSED, 0, "iperf3: unable to connect to server: Connection refused", "traffic"),
        (CAPTURED[:700], -9, r"SIGKILL\).*intervals", "result"),
        (b"", 1, r"exit status 1\)", "result"),
        (b"\xff\xfe\xfa broken", 1, "broken", "result"),
        (b"iperf3: parameter error", 1, "iperf3: parameter error", "result"),
        (b"[]", 0, "no result", "result"),
        (b'{"end": null}', 0, "no result", "result"),
        (b"[" * 100_000, 0, "no result", "result"),
        (b'{"end": ' * 2_000, 0, "no result", "result"),
        (CAPTURED, 1, "exit status 1", "result"),
        (WARNING + REFUSED, 1, "Connection refused.*JSON data length overflow", "traffic"),
        (b'{"start": {}, "end": {}}', 0, "no count of received bytes", "traffic"),
        (received(bytes=0), 0, "no count of received bytes", "traffic"),
        (b'{"end": {"sum_received": []}}', 0, "no count of received bytes", "traffic"),
        (received(bits_per_second="1"), 0, "no count of received bytes", "traffic"),
        (received(bits_per_second=True), 0, "no count of received bytes", "traffic"),
        (received(bits_per_second=float("nan")), 0, "no count of received bytes", "traffic"),
        (received(bits_per_second=-5.0), 0, "no count of received bytes", "traffic"),
        (received(seconds=0.2), 0, "0.200 s of traffic instead of 1 s", "window"),
        (received(seconds=1.4), 0, "1.400 s of traffic instead of 1 s", "window"),
        (received(seconds=None), 0, "no count of received bytes", "traffic"),
        (received(bytes=10**9), 0, "1000000000 bytes in", "result"),
        (changed(lambda end: end.update(streams=[])), 0, "0 streams instead of 1", "streams"),
        (changed(lambda end: end["streams"].append({})), 0, "2 streams instead of 1", "streams"),
    ],
)  # fmt: skip
def test_a_pair_without_a_number_has_a_reason(
    output: bytes, status: int, words: str, cause: str
) -> None:
    failure = failed(output, status=status)
    assert re.search(words, failure.text, re.DOTALL), failure.text
    assert failure.cause == cause


@given(st.binary() | st.text().map(str.encode), st.binary(), st.integers(-64, 255))
def test_any_output_is_read(out: bytes, err: bytes, status: int) -> None:
    assert failed(out, err, status).text


class Longer:
    """Another window."""

    duration, omit, streams = 7, 3, 4


def test_the_commands() -> None:
    assert " ".join(Stream().client("10.244.0.2", 5201, Longer())) == (
        "iperf3 --json --version4 --client 10.244.0.2 --port 5201"
        " --time 7 --omit 3 --parallel 4 --interval 1 --connect-timeout 3000"
    )
    assert " ".join(Stream().server(5203)) == "iperf3 --server --version4 --port 5203"


def test_a_congestion_control_is_the_client_s() -> None:
    command = Stream(congestion="cubic").client("10.244.0.2", 5201, Longer())
    assert command[-2:] == ["--congestion", "cubic"]


def test_a_rate_is_that_of_each_connection() -> None:
    command = Stream(rate="300M").client("10.244.0.2", 5201, Longer())
    assert command[-2:] == ["--bitrate", "300M"]
    assert "--bitrate" not in Stream(rate="0").client("10.244.0.2", 5201, Longer())


@pytest.mark.parametrize(
    ("duration", "streams", "seconds"),
    [(10, 1, 1), (5000, 1, 1), (5001, 1, 2), (60, 128, 1), (3600, 128, 47), (86_400, 1, 18),
     (86_400, 128, 0)],
)  # fmt: skip
def test_iperf3_reports_no_more_than_is_read(duration: int, streams: int, seconds: int) -> None:
    assert iperf3.interval(duration, streams) == seconds
    assert not seconds or duration / seconds * (streams + 1) <= 10_000
