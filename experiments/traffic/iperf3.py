"""iperf3 clients behind one barrier, and what their output says of a pair."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.schema import Pair
from experiments.validity import TRAFFIC, Asked, Cause, Reason
from infra import untrusted
from infra.lab.layout import netns
from infra.lab.measurement import Endpoint, Measurement

# How long a client may take to connect, and to end after its last second of traffic.
CONNECT_MS = 3000
GRACE_S = 10


class BarrierBroken(RuntimeError):
    """A client ended before the start; the message says which and with what words."""


@dataclass(frozen=True)
class Result:
    """A pair, iperf3's raw output, and what is to be said of it.

    `reason` is why there is no bitrate; `warnings` are lines that iperf3 printed beside its result.
    """

    pair: Pair
    raw: bytes
    reason: Reason | None = None
    warnings: tuple[str, ...] = ()
    congestion: str | None = None


def failed(index: int, reason: Reason, raw: bytes = b"", warnings: Sequence[str] = ()) -> Result:
    """A pair without a bitrate."""
    pair = Pair(index=index, values={"bitrate_mbps": None}, reason=reason.text)
    return Result(pair, raw, reason, tuple(warnings))


# The shell says that it is there, waits until every other is, and becomes the client: the
# closing of one pipe starts all. "$1" is a cgroup.procs file or empty.
_WAIT = '[ -z "$1" ] || echo $$ > "$1" || exit; shift; echo ready; read -r _; exec "$@" </dev/null'


@dataclass
class Client:
    """One iperf3 client, waiting at the barrier or running."""

    endpoint: Endpoint
    process: subprocess.Popen[bytes]

    def finish(self, deadline: float, asked: Asked) -> Result:
        """The pair's result; waits until `deadline` (monotonic seconds)."""
        index = self.endpoint.index
        try:
            out, err = self.process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            return failed(index, Reason(Cause.TRAFFIC, "iperf3 did not end in time"))
        return parse(index, out, err, self.process.returncode, asked)

    def kill(self) -> None:
        """End the client and all that it started (its own session)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Barrier:
    """Clients that are ready to start and start together; ended without fail on leaving."""

    def __init__(self, measurement: Measurement, endpoints: Sequence[Endpoint]) -> None:
        self._measurement = measurement
        self._endpoints = endpoints
        self.clients: list[Client] = []
        self._gate: int | None = None

    def __enter__(self) -> Barrier:
        waiting, self._gate = os.pipe()
        try:
            for endpoint in self._endpoints:
                # one by one, so that whoever interrupts this finds all that wait
                self.clients.append(Client(endpoint, _spawn(self._measurement, endpoint, waiting)))
            for client in self.clients:
                _await_ready(client)
        except BaseException:
            self.__exit__()
            raise
        finally:
            os.close(waiting)
        return self

    def release(self) -> float:
        """Start all clients; the moment is returned (monotonic seconds)."""
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None
        return time.monotonic()

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            if client.process.poll() is None:
                client.kill()
            for stream in (client.process.stdout, client.process.stderr):
                if stream:
                    stream.close()
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None


def _spawn(measurement: Measurement, endpoint: Endpoint, waiting: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            "nsenter", f"--net={netns(endpoint.client_namespace)}",
            "taskset", "--cpu-list", ",".join(map(str, measurement.cores.client)),
            "sh", "-c", _WAIT, "sh", _procs_file(endpoint.client_cgroup),
            *command(measurement, endpoint),
        ],
        stdin=waiting,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def _procs_file(cgroup: str | None) -> str:
    if cgroup is None:
        return ""
    return str(cgroup_directory(cgroup) / "cgroup.procs")


def cgroup_directory(cgroup: str) -> Path:
    """The pod's directory under the cpu controller, cgroup v1 or v2."""
    v1 = Path("/sys/fs/cgroup/cpu") / cgroup
    return v1 if v1.is_dir() else Path("/sys/fs/cgroup") / cgroup


def _await_ready(client: Client) -> None:
    stdout = client.process.stdout
    first = stdout.readline() if stdout else b""
    if first != b"ready\n":
        client.kill()
        stderr = client.process.stderr
        rest = first + (stdout.read() if stdout else b"") + (stderr.read() if stderr else b"")
        words = rest.decode(errors="replace").strip() or "no output"
        raise BarrierBroken(
            f"the client of pair {client.endpoint.index} did not start in "
            f"{client.endpoint.client_namespace}: {words}"
        )


def interval(duration: int, streams: int) -> int:
    """Seconds between iperf3's own reports, which are kept but not used; 0 for none (pure).

    Each has a line for every stream: with more than 10,000 of them the JSON, which iperf3 keeps in
    memory to the end, would be larger than what is read here.
    """
    seconds = math.ceil(duration * (streams + 1) / 10_000)
    return seconds if seconds <= 60 else 0  # iperf3 takes no longer interval


def command(measurement: Measurement, endpoint: Endpoint) -> list[str]:
    """The client's command line (pure)."""
    return [
        "iperf3", "--json", "--version4",
        "--client", endpoint.address,
        "--port", str(endpoint.port),
        "--time", str(measurement.duration),
        "--omit", str(measurement.omit),
        "--parallel", str(measurement.streams),
        "--interval", str(interval(measurement.duration, measurement.streams)),
        "--connect-timeout", str(CONNECT_MS),
    ]  # fmt: skip


def parse(index: int, out: bytes, err: bytes, status: int, asked: Asked) -> Result:
    """What iperf3 says of one pair, held against what was asked (pure).

    The bitrate is the goodput at the receiver; a figure beside it that is missing or makes no sense
    is left out, and the bitrate stays.
    """
    report, beside = _read(out, err)
    words = f": {' '.join(beside)}" if beside else ""

    def not_valid(cause: Cause, text: str) -> Result:
        return failed(index, Reason(cause, f"{text}{words}"[:1000]), out, beside)

    if report is None:
        return not_valid(Cause.RESULT, f"iperf3 (exit {status}) printed no result")
    if error := report.get("error"):
        return not_valid(Cause.TRAFFIC, f"iperf3: {error}")
    if status != 0:
        return not_valid(Cause.RESULT, f"iperf3 ended with exit status {status}")
    end = _mapping(report.get("end"))
    received = _mapping(end.get("sum_received"))
    rate, size, seconds = (
        _number(received.get(key)) for key in ("bits_per_second", "bytes", "seconds")
    )
    if not rate or not size or seconds is None:
        return not_valid(Cause.TRAFFIC, "iperf3 reports no received bytes")
    if not TRAFFIC.holds(seconds, asked.duration):
        text = f"the receiver reports {seconds:.3f} s of traffic instead of {asked.duration} s"
        return not_valid(Cause.WINDOW, text)
    if abs(rate - 8 * size / seconds) > 0.01 * rate:
        text = f"iperf3 reports {rate:.0f} bit/s but {size:.0f} bytes in {seconds:.3f} s"
        return not_valid(Cause.RESULT, text)
    streams = end.get("streams")
    count = len(streams) if isinstance(streams, list) else 0
    if count != asked.streams:
        return not_valid(
            Cause.STREAMS, f"iperf3 reports {count} streams instead of {asked.streams}"
        )
    retransmits = _number(_mapping(end.get("sum_sent")).get("retransmits"))
    congestion = end.get("sender_tcp_congestion")
    pair = Pair(
        index=index,
        values={"bitrate_mbps": rate / 1e6, "retransmits": retransmits},
    )
    name = congestion if isinstance(congestion, str) and congestion else None
    return Result(pair, out, None, tuple(beside), name)


# Where an object may begin, and how many are tried: it prints one, or two.
_FIRST = re.compile(r"^\{", re.MULTILINE)
_MOST_OBJECTS = 8
# Where an object ends, whatever numbers are in it.
_EXTENT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
# cJSON prints what is not a number like this, for figures that nobody asked for.
_NOT_A_NUMBER = re.compile(r"(:\s*)-?(?:nan|inf)\b", re.IGNORECASE)


def _read(out: bytes, err: bytes) -> tuple[dict[str, Any] | None, list[str]]:
    """The first report in the output, and the lines beside it.

    iperf3 prints warnings before it ("warning: JSON data length overflow"), and 3.16 and 3.17
    print the report twice.
    """
    text = _NOT_A_NUMBER.sub(r"\1null", out.decode(errors="replace"))
    report: dict[str, Any] | None = None
    beside, position = [], 0
    for start in [match.start() for match in _FIRST.finditer(text)][:_MOST_OBJECTS]:
        if start < position:
            continue  # within the one before
        try:
            _, after = _EXTENT.raw_decode(text, start)
            found = untrusted.parsed(text[start:after], strict=False)
        except (ValueError, RecursionError):
            continue
        beside.append(text[position:start])
        position = after
        if report is None and (isinstance(found.get("end"), dict) or "error" in found):
            report = found
    beside += [text[position:], err.decode(errors="replace")]
    lines = "\n".join(beside).splitlines() if report else [text, *beside[-1:]]
    return report, [line.strip() for line in lines if line.strip()]


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    """A number that a counter or a rate can have."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and 0 <= value < 1e15 else None  # type: ignore[operator, return-value]


def run(
    measurement: Measurement,
    endpoints: Sequence[Endpoint],
    at: Callable[[float, Sequence[int]], None],
) -> list[Result]:
    """Drive the pairs once.

    `at(start, pids)` is called while the traffic of these clients flows and must return at the end
    of the window.
    """
    with Barrier(measurement, endpoints) as barrier:
        start = barrier.release()
        at(start, [client.process.pid for client in barrier.clients])
        deadline = start + measurement.omit + measurement.duration + GRACE_S
        return [client.finish(deadline, measurement) for client in barrier.clients]
