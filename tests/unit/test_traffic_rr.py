"""Traffic `rr`: its commands, and sockperf's text of one pair, captured and spoiled."""

from __future__ import annotations

import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from infra import traffic
from infra.errors import InvalidInput
from infra.traffic.contract import Failure, Values
from infra.traffic.rr import Rr

DATA = Path(__file__).parent / "data"
# sockperf 3.7 over loopback on two busy cores.
CAPTURED = (DATA / "sockperf-tcp.txt").read_bytes()
# Over UDP, through a relay that dropped the 4000th datagram.
LOST = (DATA / "sockperf-lost.txt").read_bytes()
HEAD = b"sockperf: \x1b[2;35m== version #3.7-no.git == \x1b[0m\n"
REFUSED = HEAD + b"sockperf: ERROR: Can`t connect socket (errno=111 Connection refused)\n"
CLOSED = HEAD + (
    b"sockperf: Starting test...\nIP = 127.0.0.1       PORT =  5201 # TCP sockperf: ERROR: A connection "
    b"was forcibly closed by a peer (errno=0 Success)\n"
)
SILENT = HEAD + (
    b"sockperf: Test ended\nsockperf: No messages were received from the server. Is the server down?\n"
)
EARLY = HEAD + (
    b"sockperf: [Total Run] RunTime=1.000 sec; Warm up time=400 msec; SentMessages=2; "
    b"ReceivedMessages=1\nsockperf: ========= Printing statistics for Server No: 0\n"
    b"sockperf: No valid observations found. Try tune parameters: --time/--mps/--reply-every\n"
)


class Window:
    """That of the captured run."""

    duration, omit, streams = 2, 1, 1


def parsed(output: bytes = CAPTURED, err: bytes = b"", status: int = 0) -> Values:
    values = Rr().parse(output, err, status, Window())
    assert isinstance(values, Values), values
    return values


def failed(output: bytes, err: bytes = b"", status: int = 0) -> Failure:
    failure = Rr().parse(output, err, status, Window())
    assert isinstance(failure, Failure), failure
    return failure


def test_the_figures_are_those_of_the_messages_that_count() -> None:
    """92,868 messages in 1.55 s; sockperf sent 128,155 in 2 s."""
    found = parsed()
    assert found.numbers == {
        "p50_us": 6.109,
        "p99_us": 6.905,
        "p999_us": 36.924,
        "requests_per_second": pytest.approx(92868 / 1.55),
    }
    assert found.latency == (
        (0, 5.668), (0.25, 6.023), (0.5, 6.109), (0.75, 6.269), (0.9, 6.399), (0.99, 6.905),
        (0.999, 36.924), (0.9999, 2612.247), (1, 76506.645),
    )  # fmt: skip
    assert found.warnings == ()


def few(messages: int) -> bytes:
    return CAPTURED.replace(b"ReceivedMessages=92868", b"ReceivedMessages=%d" % messages)


@pytest.mark.parametrize(
    ("messages", "known"),
    [
        (999, {"p50_us", "p99_us"}),
        (1000, {"p50_us", "p99_us", "p999_us"}),
        (99, {"p50_us"}),
        (10, {"p50_us"}),
    ],
)
def test_a_quantile_has_messages_beyond_it(messages: int, known: set[str]) -> None:
    found = parsed(few(messages))
    assert found.numbers.keys() == known | {"requests_per_second"}
    assert len([part for part, _ in found.latency if 0 < part < 1]) == 3 + len(known)


def test_lost_and_repeated_messages_are_a_warning() -> None:
    counts = re.sub(rb"duplicated messages = 0", b"duplicated messages = 3", CAPTURED)
    (warning,) = parsed(counts).warnings
    assert "3 duplicated" in warning
    assert parsed(err=b"a line\n\n").warnings == ("a line",)


@pytest.mark.parametrize(
    ("output", "status", "words", "cause"),
    [
        (REFUSED, 0, r"Can`t connect socket \(errno=111 Connection refused\)", "traffic"),
        (CLOSED, 7, "A connection was forcibly closed by a peer", "traffic"),
        (SILENT, 0, "No messages were received", "traffic"),
        (HEAD + b"sockperf: No messages were sent\n", 0, "No messages were sent", "traffic"),
        (
            b"sockperf: '-m' Invalid message size: 5 (min: 14)\nusage\n",
            0,
            "Invalid message",
            "traffic",
        ),
        (LOST, 0, r"after 0\.232 s of 1\.550 s: a message was lost", "traffic"),
        (EARLY, 0, r"after 0\.000 s of 1\.550 s", "traffic"),
        (CAPTURED.replace(b"RunTime=1.550", b"RunTime=2.500"), 0, "2.500 s of messages", "window"),
        (CAPTURED.replace(b"RunTime=1.550", b"RunTime=x"), 0, "no result", "result"),
        (CAPTURED.replace(b"percentile 50", b"percentile 51"), 0, "no median", "result"),
        (few(0), 0, "no median", "result"),
        (CAPTURED, 1, r"exit status 1\)", "result"),
        (CAPTURED[:300], -15, r"SIGTERM\).*Starting test", "result"),
        (b"", 127, r"exit status 127\).*printed nothing", "result"),
        (b"\xff\xfe", 0, "\ufffd", "result"),
    ],
)
def test_a_pair_without_numbers_has_a_reason(
    output: bytes, status: int, words: str, cause: str
) -> None:
    failure = failed(output, status=status)
    assert re.search(words, failure.text, re.DOTALL), failure.text
    assert failure.cause == cause


def test_output_that_is_no_result_is_cut() -> None:
    failure = failed(b"x" * 100_000, b"z\n" * 1_000, 1)
    assert len(failure.text) + sum(map(len, failure.warnings)) < 25_000


def test_a_client_whose_clock_leaves_nothing_out_fills_the_window_too() -> None:
    """As on ARM, whose clock has no ticks to leave out."""
    whole = CAPTURED.replace(b"RunTime=1.550", b"RunTime=2.000")
    assert parsed(whole).numbers["requests_per_second"] == pytest.approx(92868 / 2)


def test_the_commands() -> None:
    assert Rr().server(5203)[-1] == "5203"
    assert " ".join(Rr().client("10.244.0.2", 5201, Window())) == (
        "sockperf ping-pong --ip 10.244.0.2 --port 5201 --time 2 --mps 100000 --tcp --msg-size 64"
    )
    udp = Rr(protocol="udp", size=1400)
    assert udp.server(5201) == ["sockperf", "server", "--port", "5201"]
    assert udp.client("10.244.0.2", 5201, Window())[-2:] == ["--msg-size", "1400"]
    assert "--tcp" not in udp.client("10.244.0.2", 5201, Window())
    assert (Rr().protocols, udp.protocols) == (("TCP",), ("UDP",))


class Later(Window):
    omit = 5


class AtOnce(Window):
    omit = 0


@pytest.mark.parametrize("window", [Window(), Later(), AtOnce()])
def test_the_messages_that_count_are_within_the_window(window: Window) -> None:
    """sockperf sends the first 2.1 s and its wait after its start, and leaves out 0.4 s and 0.05 s."""
    command = Rr().client("10.244.0.2", 5201, window)
    waits = dict(pairwise(command)).get("--pre-warmup-wait", "0")
    assert waits != "0" or "--pre-warmup-wait" not in command  # sockperf refuses 0
    first = 2.1 + int(waits) - Rr().lead(window) + 0.4
    assert window.omit <= first
    assert first + window.duration - 0.45 <= window.omit + window.duration


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("rr:protocol=tcp,size=64", "rr"),
        ("rr:size=100,protocol=udp", "rr:protocol=udp,size=100"),
    ],
)
def test_options_have_one_spelling(text: str, shortest: str) -> None:
    assert str(traffic.of(text)) == shortest


@pytest.mark.parametrize("option", ["protocol=sctp", "size=13", "size=65508", "rate=1M"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(InvalidInput, match=rf"traffic: rr: {option.partition('=')[0]}: "):
        traffic.of(f"rr:{option}")


def test_the_server_of_tcp_serves_several_connections_by_a_file_that_is_gone(
    tmp_path: Path,
) -> None:
    fake = tmp_path / "bin/sockperf"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\n[ -f "$3" ] && echo "$1 $2" && cat "$3"\n')
    fake.chmod(0o755)
    there = {"PATH": f"{fake.parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(Rr().server(5203), env=there, capture_output=True, text=True, check=True)
    assert done.stdout == "server --file\nT:0.0.0.0:5203\n"
    assert [*tmp_path.iterdir()] == [fake.parent]
