"""iperf3 clients behind one barrier, and what their JSON says of a pair."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.schema import Pair
from infra import foreign
from infra.lab.layout import netns
from infra.lab.measurement import Endpoint, Measurement

# How long a client may take to connect, and to end after its last second of traffic.
CONNECT_MS = 3000
GRACE_S = 10


class BarrierBroken(RuntimeError):
    """A client ended before the start; the message says which and with what words."""


# The shell says that it is there, waits until every other is, and becomes the client: the
# closing of one pipe starts all. "$1" is a cgroup.procs file or empty.
_WAIT = '[ -z "$1" ] || echo $$ > "$1"; shift; echo ready; read -r _; exec "$@" </dev/null'


@dataclass
class Client:
    """One iperf3 client, waiting at the barrier or running."""

    endpoint: Endpoint
    process: subprocess.Popen[bytes]

    def finish(self, deadline: float) -> tuple[Pair, bytes]:
        """The pair's result and its raw JSON; waits until `deadline` (monotonic seconds)."""
        try:
            output, _ = self.process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            return Pair(
                index=self.endpoint.index, bitrate_mbps=None, reason="iperf3 did not end in time"
            ), b""
        return parse(self.endpoint.index, output, self.process.returncode), output

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
            if client.process.stdout:
                client.process.stdout.close()
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
        stderr=subprocess.STDOUT,
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
        client.kill()  # a shell that could not join its cgroup has complained and waits
        rest = first + (stdout.read() if stdout else b"")
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


def parse(index: int, output: bytes, status: int = 0) -> Pair:
    """What iperf3's JSON says of one pair: goodput at the receiver, Mbit/s, and retransmits."""

    def failed(reason: str) -> Pair:
        return Pair(index=index, bitrate_mbps=None, reason=reason)

    try:
        result = foreign.parsed(output, strict=False)
    except ValueError:
        words = output.decode(errors="replace").strip()[-200:] or "no output"
        return failed(f"iperf3 (exit {status}) did not answer in JSON: {words}")
    if not isinstance(result, dict):
        return failed("iperf3's JSON is not an object")
    if error := result.get("error"):
        return failed(f"iperf3: {error}")
    try:
        end = result["end"]
        rate = end["sum_received"]["bits_per_second"]
        pair = Pair(
            index=index,
            bitrate_mbps=round(rate / 1e6, 3),
            retransmits=end.get("sum_sent", {}).get("retransmits"),
        )
    except (AttributeError, KeyError, TypeError, ValueError):  # JSON of another form, or NaN
        return failed("iperf3 reports no received bytes")
    return pair if rate else failed("iperf3 reports no received bytes")


def run(
    measurement: Measurement, endpoints: Sequence[Endpoint], at: Callable[[float], None]
) -> list[tuple[Pair, bytes]]:
    """Drive the pairs once; `at(start)` is called while traffic flows and must return before the
    end of the window."""
    with Barrier(measurement, endpoints) as barrier:
        start = barrier.release()
        at(start)
        deadline = start + measurement.omit + measurement.duration + GRACE_S
        return [client.finish(deadline) for client in barrier.clients]
