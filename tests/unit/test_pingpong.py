"""The ping-pong client against servers on this machine, and the latency of windows from its round trips."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.targets import roundtrips
from experiments.targets.roundtrips import Clock, Trips
from infra.traffic import pingpong
from infra.traffic.contract import QUANTILES, Failure, Values
from infra.traffic.rr import CONNECTIONS, Rr

SIZE = 64


class Window:
    """Of an episode."""

    duration, omit, streams = 9, 0, 1


def answered(request: bytes) -> bytes:
    """What sockperf's server sends back: the same without the flag of a client."""
    number, flags, length = pingpong.HEADER.unpack_from(request)
    assert (flags, length) == (3, len(request))
    return pingpong.HEADER.pack(number, 2, length) + request[pingpong.HEADER.size :]


def tcp(server: socket.socket, seen: set[int]) -> None:
    def serve(one: socket.socket) -> None:
        with one, suppress(ConnectionError):  # the client has ended
            while request := one.recv(SIZE, socket.MSG_WAITALL):
                one.sendall(answered(request))

    while True:
        one, (_, port) = server.accept()
        seen.add(port)
        threading.Thread(target=serve, args=(one,), daemon=True).start()


def udp(server: socket.socket, seen: set[int]) -> None:
    while True:
        request, address = server.recvfrom(2048)
        seen.add(address[1])
        server.sendto(answered(request), address)


def lossy(server: socket.socket, seen: set[int]) -> None:
    """The second datagram is answered too late, after the next one of its connection."""
    for count in range(1 << 30):
        request, address = server.recvfrom(2048)
        seen.add(address[1])
        if count == 1:
            late = request, address
        else:
            if count == 1 + CONNECTIONS:
                server.sendto(answered(late[0]), late[1])
            server.sendto(answered(request), address)


@contextmanager
def served(protocol: str, serve: Callable[[socket.socket, set[int]], None]) -> Iterator[Any]:
    """A port, and the ports of the clients that were seen there."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    seen: set[int] = set()
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            server.listen()

        def run() -> None:
            with suppress(OSError):  # closed: the test is over
                serve(server, seen)

        threading.Thread(target=run, daemon=True).start()
        yield server.getsockname()[1], seen


def client(port: int, protocol: Literal["tcp", "udp"]) -> subprocess.Popen[bytes]:
    words = Rr(protocol=protocol).lasting("127.0.0.1", port, Window())
    return subprocess.Popen(
        [sys.executable, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[bytes], seconds: float = 0.0) -> tuple[bytes, bytes, int]:
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    return out, err, process.returncode


def trips_of(found: Trips | Failure) -> Trips:
    assert isinstance(found, Trips), found
    return found


@pytest.mark.parametrize(("protocol", "serve"), [("tcp", tcp), ("udp", udp)])
def test_round_trips_take_turns_over_the_connections_until_the_client_is_ended(
    protocol: Literal["tcp", "udp"], serve: Callable[[socket.socket, set[int]], None]
) -> None:
    with served(protocol, serve) as (port, seen):
        before = time.monotonic_ns()
        trips = trips_of(roundtrips.read(*ended(client(port, protocol), 0.7)))
        after = time.monotonic_ns()
    assert len(seen) == CONNECTIONS
    assert len(trips.began) > 50
    assert (list(trips.lost), trips.full) == ([], False)
    assert before - 1000 <= trips.began[0] <= trips.ended[-1] <= after + 1000
    assert all(began <= end for began, end in zip(trips.began, trips.ended, strict=True))
    # one request in flight; times are rounded
    later = trips.began[1:]
    assert all(end <= began + 200 for end, began in zip(trips.ended, later, strict=False))


def test_the_time_of_a_lost_datagram_is_kept_and_its_late_reply_is_that_of_no_other() -> None:
    with served("udp", lossy) as (port, _):
        trips = trips_of(roundtrips.read(*ended(client(port, "udp"), 1.0)))
    (sent,) = trips.lost
    assert trips.ended[0] <= sent + 200
    assert sent + 0.8 * pingpong.LOST_S * 1e9 < trips.began[1]
    took = [end - began for began, end in zip(trips.began, trips.ended, strict=True)]
    assert max(took) < pingpong.LOST_S * 1e9


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_without_a_server_the_client_fails_with_its_reason(protocol: Literal["tcp", "udp"]) -> None:
    with served(protocol, lambda *_: None) as (port, _):
        pass
    process = client(port, protocol)
    out, err = process.communicate(timeout=20)
    failure = roundtrips.read(out, err, process.returncode)
    assert isinstance(failure, Failure)
    assert failure.cause == "traffic"
    assert f"127.0.0.1 port {port}: " in failure.text


@pytest.mark.parametrize("answers", [0, 2])
def test_a_server_that_closes_a_connection_ends_the_client(answers: int) -> None:
    """While the client connects, or later."""

    def run(one: socket.socket) -> None:
        left = answers
        with one, suppress(ConnectionError):
            while request := one.recv(SIZE, socket.MSG_WAITALL):
                if left > 0:
                    one.sendall(answered(request))
                else:
                    one.shutdown(socket.SHUT_WR)
                left -= 1

    def close(server: socket.socket, _: set[int]) -> None:
        while True:
            threading.Thread(target=run, args=(server.accept()[0],), daemon=True).start()

    with served("tcp", close) as (port, _):
        process = client(port, "tcp")
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"127.0.0.1 port {port}: {pingpong.CLOSED}\n" == err.decode()


def test_a_server_that_accepts_and_does_not_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pingpong, "BROKEN_S", 0.2)
    with (
        served("tcp", lambda *_: None) as (port, _),
        pytest.raises(TimeoutError, match="whether the server runs"),
    ):
        pingpong.connected(socket.SOCK_STREAM, "127.0.0.1", port, SIZE)


# the output


def document(*trips: tuple[int, int], **changes: Any) -> bytes:
    """Of trips as the time since the trip before and the time that it took, in units."""
    numbers = array("I", [number for trip in trips for number in trip])
    if sys.byteorder == "big":
        numbers.byteswap()
    packed = base64.b64encode(zlib.compress(numbers.tobytes())).decode()
    known = {"start": 5_000_000_000, "lost": [], "full": False, "trips": packed}
    return json.dumps(known | changes).encode()


def test_the_output_has_the_times_of_each_trip() -> None:
    trips = trips_of(roundtrips.read(document((0, 700), (900, 800), lost=[3, 4]), b"", 0))
    assert list(trips.began) == [5_000_000_000, 5_000_090_000]
    assert list(trips.ended) == [5_000_070_000, 5_000_170_000]
    assert trips.lost == [3, 4]


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), max_size=50))
def test_what_the_client_writes_is_read(rows: list[tuple[int, int]]) -> None:
    kept = pingpong.Trips()
    for began, took in sorted(rows):
        kept.began.append(began)
        kept.took.append(took)
    trips = trips_of(roundtrips.read(json.dumps(kept.document()).encode(), b"", 0))
    assert len(trips.began) == len(rows)
    for (began, took), at, end in zip(sorted(rows), trips.began, trips.ended, strict=True):
        if began - sorted(rows)[0][0] < 2**32 * pingpong.UNIT_NS:
            assert abs(at - began) <= pingpong.UNIT_NS
            assert abs(end - at - took) <= pingpong.UNIT_NS


@pytest.mark.parametrize(
    ("out", "status"),
    [
        (b"", 0),
        (b"{}", 0),
        (document((0, 1), start=-1), 0),
        (document((0, 1), start=2**63), 0),
        (document((0, 1), lost=[-1]), 0),
        (document(trips="AAAA"), 0),
        (document(trips="%"), 0),
        (document(trips=base64.b64encode(zlib.compress(b"12345")).decode()), 0),
        (document(trips=base64.b64encode(zlib.compress(bytes(800))[:-8]).decode()), 0),
        (document(trips=base64.b64encode(zlib.compress(bytes(pingpong.MOST * 9))).decode()), 0),
        (document((0, 1)), 143),
    ],
)
def test_any_other_output_is_a_failure(out: bytes, status: int) -> None:
    assert isinstance(roundtrips.read(out, b"", status), Failure)


# windows


def steady(count: int, every: float, took: Callable[[int], float], start: float = 10.0) -> Trips:
    """Trips of connections in turn, in seconds."""
    began = [round((start + number * every) * 1e9) for number in range(count)]
    lengths = [round(took(number) * 1e9) for number in range(count)]
    return Trips(began, [at + length for at, length in zip(began, lengths, strict=True)])


def values_of(found: Values | Failure) -> Values:
    assert isinstance(found, Values), found
    return found


def test_a_window_has_the_trips_that_began_and_ended_in_it() -> None:
    trips = steady(100, 0.01, lambda _: 0.008)
    values = values_of(roundtrips.within(trips, 10.1, 10.2))
    # from that at 10.10 to that at 10.19; those at 10.09 and 10.20 are at the edges
    assert values.numbers["requests_per_second"] == pytest.approx(100)
    values = values_of(roundtrips.within(trips, 10.101, 10.2))
    assert values.numbers["requests_per_second"] == pytest.approx(9 / 0.099, abs=0.001)
    values = values_of(roundtrips.within(trips, 10.1, 10.197))
    assert values.numbers["requests_per_second"] == pytest.approx(9 / 0.097, abs=0.001)


def test_latency_is_half_of_the_round_trip_over_all_connections() -> None:
    """Every fourth connection is slow: the quartile above the median is between both."""
    trips = steady(4000, 0.0001, lambda n: 80e-6 if n % 4 else 20e-6)
    values = values_of(roundtrips.within(trips, 10.0, 10.4))
    assert values.numbers["p50_us"] == pytest.approx(40)
    assert values.numbers["p99_us"] == pytest.approx(40)
    known = dict(values.latency)
    assert (known[0], known[0.25], known[1]) == pytest.approx((10, 10, 40))
    assert values.warnings == ()


def test_a_window_has_the_median_of_both_halves() -> None:
    """The first half is slow; the trip across the middle is in neither."""
    trips = steady(400, 0.001, lambda n: 1.5e-3 if n == 199 else 80e-6 if n < 200 else 40e-6)
    assert values_of(roundtrips.within(trips, 10.0, 10.4)).halves == pytest.approx((40, 20))
    late = steady(2, 0.001, lambda _: 80e-6, start=10.3)
    assert values_of(roundtrips.within(late, 10.0, 10.4)).halves is None


@pytest.mark.parametrize(
    ("count", "absent"),
    [(2, ["p99_us", "p999_us"]), (99, ["p99_us", "p999_us"]), (100, ["p999_us"]),
     (999, ["p999_us"]), (1000, [])],
)  # fmt: skip
def test_a_quantile_of_too_few_trips_is_missing_with_a_reason(
    count: int, absent: list[str]
) -> None:
    trips = steady(count, 0.0001, lambda n: 50e-6 + n * 1e-7)
    values = values_of(roundtrips.within(trips, 9.9, 10.5))
    assert [name for name in QUANTILES.values() if name not in values.numbers] == absent
    assert bool(values.warnings) == bool(absent)
    assert all(name in values.warnings[0] for name in absent)
    assert {0, 1} <= dict(values.latency).keys()


def test_without_trips_a_window_has_no_values() -> None:
    trips = steady(100, 0.001, lambda _: 0.0001)
    assert isinstance(roundtrips.within(trips, 11.0, 11.4), Failure)
    slow = Trips([10_000_000_000], [10_600_000_000])
    assert isinstance(roundtrips.within(slow, 10.1, 10.5), Failure)


@pytest.mark.parametrize("window", [0.1, 0.4, 2.0])
def test_the_clock_may_be_uncertain_by_a_fifth_of_the_window(window: float) -> None:
    trips = steady(3000, 0.001, lambda _: 0.0001)
    known = roundtrips.within(trips, 10.1, 10.1 + window, Clock(0.0, 0.19 * window))
    assert values_of(known).numbers["requests_per_second"] == pytest.approx(1000, rel=0.05)
    unsure = Clock(0.0, 0.21 * window)
    failure = roundtrips.within(trips, 10.1, 10.1 + window, unsure)
    assert isinstance(failure, Failure)
    assert failure.cause == "window"
    # its remedy is one
    needed = float(failure.text.partition("--window ")[2].partition(")")[0])
    assert isinstance(roundtrips.within(trips, 10.1, 10.1 + needed, unsure), Values)


def test_a_window_beyond_the_kept_trips_has_no_values() -> None:
    """The last of them ends at 10.8991 s."""
    trips = steady(900, 0.001, lambda _: 0.0001)._replace(full=True)
    for first, last in ((10.6, 11.0), (11.0, 11.4)):
        found = roundtrips.within(trips, first, last)
        assert isinstance(found, Failure)
        assert "--window" in found.text
    assert isinstance(roundtrips.within(trips, 10.4, 10.899), Values)
    # with a clock that is not known exactly
    assert isinstance(roundtrips.within(trips, 10.4, 10.899, Clock(0.0, 0.001)), Failure)
    assert isinstance(roundtrips.within(Trips([], [], full=True), 10.0, 10.4), Failure)


def test_a_window_with_a_lost_request_has_no_values() -> None:
    """Without it, the slowest of all would improve the latency."""
    trips = steady(2000, 0.001, lambda _: 0.0001)
    sent = 10.5
    lost = trips._replace(lost=[round(sent * 1e9)])
    for first, last in ((10.4, 10.8), (10.2, 10.51), (10.74, 11.0), (10.55, 10.65)):
        found = roundtrips.within(lost, first, last)
        assert isinstance(found, Failure)
        assert found.cause == "traffic"
    for first, last in ((10.1, 10.499), (10.751, 11.1)):
        assert isinstance(roundtrips.within(lost, first, last), Values)
        # the client's clock is not known exactly
        assert isinstance(roundtrips.within(lost, first, last, Clock(0.0, 0.002)), Failure)


def test_the_client_s_clock_is_corrected_and_what_is_unsure_left_out() -> None:
    """The client's clock is 7 s behind; each trip tells its own second."""
    trips = steady(1000, 0.001, lambda n: 1e-4 + n * 1e-7, start=3.0)
    exact = values_of(roundtrips.within(trips, 10.2, 10.6, Clock(7.0)))
    known = dict(exact.latency)
    assert known[0] == pytest.approx((1e-4 + 200e-7) * 5e5, abs=0.1)
    assert known[1] == pytest.approx((1e-4 + 599e-7) * 5e5, abs=0.1)
    unsure = dict(values_of(roundtrips.within(trips, 10.2, 10.6, Clock(7.0, 0.01))).latency)
    assert unsure[0] == pytest.approx((1e-4 + 210e-7) * 5e5, abs=0.1)
    assert unsure[1] == pytest.approx((1e-4 + 589e-7) * 5e5, abs=0.1)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=3000))
def test_quantiles_are_round_trips_and_rise(taken: Sequence[int]) -> None:
    found = roundtrips.quantiles(sorted(taken))
    assert [one for one, _ in found] == sorted(one for one, _ in found)
    assert [value for _, value in found] == sorted(value for _, value in found)
    assert {round(value * 2000) for _, value in found} <= set(taken)
    assert found[0] == (0, min(taken) / 2000)
    assert found[-1] == (1, max(taken) / 2000)
