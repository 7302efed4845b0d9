"""The lab's clients: processes in the pods' namespaces that wait at a barrier and start together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from experiments import signals
from experiments.host.procstat import CounterSample
from experiments.targets import leads
from experiments.targets.contract import NOT_ENDED, BarrierBroken, PairResult, TrafficResult
from experiments.validity import Reason
from infra import traffic
from infra.lab.layout import netns
from infra.lab.measurement import Endpoint, Measurement
from infra.traffic.contract import GRACE_S, Failure, Kind, Values

T = TypeVar("T")

# Both nodes of the lab are one kernel: its cores are reported once, under this name.
LAB = "lab"

# Seconds in which clients that are told to end must have ended.
END_S = 5

# Before a command: it gets SIGTERM when the thread that started it ends, also by SIGKILL.
_BOUND = ("setpriv", "--pdeathsig", "TERM")

# The shell prints `ready`, waits for the pipe to close, and becomes the client: closing one pipe
# starts all that wait for it. "$1" is a cgroup.procs file or empty.
_WAIT = '[ -z "$1" ] || echo $$ > "$1" || exit; shift; echo ready; read -r _; exec "$@" </dev/null'


@dataclass
class Client:
    """One client, waiting at the barrier or running."""

    endpoint: Endpoint
    kind: Kind
    process: subprocess.Popen[bytes]

    def finish(self, deadline: float, measurement: Measurement) -> PairResult:
        """The pair's result; waits until `deadline` (monotonic seconds)."""

        def parse(out: bytes, err: bytes, status: int) -> Values | Failure:
            return self.kind.parse(out, err, status, measurement)

        outcome, out = self.read(deadline, parse)
        return PairResult(self.endpoint.index, outcome, out)

    def read(
        self, deadline: float, parse: Callable[[bytes, bytes, int], T]
    ) -> tuple[T | Failure, bytes]:
        """What the client printed, parsed and raw; waits for its end until `deadline`."""
        try:
            out, err = self.process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            return NOT_ENDED, b""
        return parse(out, err, self.process.returncode), out

    def await_end(self, deadline: float) -> None:
        """Wait for a client that was told to end, until `deadline`."""
        try:
            self.process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the client and all that it started (its own session)."""
        self.send(signal.SIGKILL)
        self.process.wait()

    def send(self, number: int) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class Barrier:
    """Clients that start together, of a run or, `lasting`, of an episode. Leaving the context ends all of them.

    They are told to end, and tell their servers: a server counts clients that vanish as errors, and
    ends after five of them.
    """

    def __init__(
        self, measurement: Measurement, endpoints: Sequence[Endpoint], *, lasting: bool = False
    ) -> None:
        self._measurement = measurement
        self._endpoints = endpoints
        self._lasting = lasting
        self.clients: list[Client] = []
        self._gates: dict[float, int] = {}  # what opens the gate of the clients with a lead

    def __enter__(self) -> Barrier:
        what, waiting = self._measurement, dict[float, int]()
        kinds = traffic.of(what.traffic).pairs(what.replicas)
        try:
            for endpoint in self._endpoints:
                kind = kinds[endpoint.index]
                command = kind.lasting if self._lasting else kind.client
                lead = 0 if self._lasting else kind.lead(what)
                if lead not in waiting:
                    waiting[lead], self._gates[lead] = os.pipe()
                # one by one, so that an interrupt finds every client that waits
                words = command(endpoint.address, endpoint.port, what)
                process = _spawn(what, endpoint, words, waiting[lead])
                self.clients.append(Client(endpoint, kind, process))
            for client in self.clients:
                _await_ready(client)
        except BaseException:
            self.__exit__()
            raise
        finally:
            for gate in waiting.values():
                os.close(gate)
        return self

    def release(self) -> float:
        """Start all clients; returns the time (monotonic seconds) at which their traffic begins."""
        return leads.start((lead, partial(self._open, lead)) for lead in [*self._gates])

    def _open(self, lead: float) -> None:
        os.close(self._gates.pop(lead))

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.send(signal.SIGTERM)
        deadline = time.monotonic() + END_S
        for client in self.clients:
            client.await_end(deadline)
        for lead in [*self._gates]:
            self._open(lead)


def _spawn(
    measurement: Measurement, endpoint: Endpoint, words: Sequence[str], waiting: int
) -> subprocess.Popen[bytes]:
    cgroup = endpoint.client_cgroup
    return signals.apart(lambda: subprocess.Popen(
        [
            *_BOUND,
            "nsenter", f"--net={netns(endpoint.client_namespace)}",
            "taskset", "--cpu-list", ",".join(map(str, measurement.cores.client)),
            "sh", "-c", _WAIT, "sh", str(cgroup_directory(cgroup) / "cgroup.procs") if cgroup else "",
            *words,
        ],
        stdin=waiting,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ))  # fmt: skip


def cgroup_directory(cgroup: str) -> Path:
    """The pod's directory under the cpu controller, cgroup v1 or v2."""
    v1 = Path("/sys/fs/cgroup/cpu") / cgroup
    return v1 if v1.is_dir() else Path("/sys/fs/cgroup") / cgroup


def _await_ready(client: Client) -> None:
    stdout, stderr = client.process.stdout, client.process.stderr
    assert stdout and stderr  # noqa: S101 both are pipes
    first = stdout.readline()
    if first != b"ready\n":
        client.kill()
        words = (first + stdout.read() + stderr.read()).decode(errors="replace").strip()
        raise BarrierBroken(
            f"the client of pair {client.endpoint.index} did not start in "
            f"{client.endpoint.client_namespace}: {words or 'no output'}"
        )


def traffic_result(
    what: Measurement,
    results: Sequence[PairResult],
    edges: Sequence[CounterSample],
    reasons: Sequence[Reason] = (),
    around: tuple[CounterSample, CounterSample] | None = None,
) -> TrafficResult:
    """The traffic of the first pairs, with the lab's cores (pure)."""
    cores = what.cores
    return TrafficResult(
        results,
        {LAB: (edges[0], edges[1])} if len(edges) == 2 else {},
        reasons,
        using={LAB: {*cores.server, *cores.client}},
        serving={LAB: cores.server},
        nodes={one.index: (LAB, LAB) for one in results},
        around={LAB: around} if around else {},
    )


def run(
    measurement: Measurement,
    endpoints: Sequence[Endpoint],
    at: Callable[[float, Sequence[int]], None],
) -> list[PairResult]:
    """Drive the pairs once.

    `at(start, pids)` is called while the traffic of these clients flows and must return at the end
    of the window.
    """
    with Barrier(measurement, endpoints) as barrier:
        start = barrier.release()
        at(start, [client.process.pid for client in barrier.clients])
        deadline = start + measurement.omit + measurement.duration + GRACE_S
        return [client.finish(deadline, measurement) for client in barrier.clients]
