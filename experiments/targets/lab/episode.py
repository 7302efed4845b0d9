"""An episode on the lab: clients at full speed while the agent switches the server node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from agent.goodput import receiver
from agent.machine import Machine
from experiments.host import calls
from experiments.host.procstat import CounterSample
from experiments.targets.contract import PairResult, Schedule, WindowResult
from experiments.targets.goodput import over_time, rate
from experiments.targets.lab import clients
from experiments.validity import Cause, Reason
from infra import traffic
from infra.lab.measurement import Endpoint, Measurement
from infra.traffic.contract import Failure, Values
from infra.traffic.stream import Stream

# Seconds in which the clients must have connected, and in which they must have ended.
_CONNECT_S, _END_S = 5, 5


def run(
    what: Measurement,
    endpoints: Sequence[Endpoint],
    servers: Sequence[int],
    schedule: Schedule,
    seconds: int,
) -> list[WindowResult]:
    """The windows of a schedule; `servers` are the pids of the pairs' servers.

    The connections last `seconds` and must outlive the last window.
    """
    longer = what.model_copy(update={"duration": seconds, "omit": 0})
    with (
        calls.episode(schedule(servers)) as start,
        clients.Barrier(longer, endpoints) as barrier,
    ):
        barrier.release()
        await_connections(servers, what.streams, barrier.clients)
        answer = start()
        ended = [reason for client in barrier.clients for reason in _ended(client, longer)]
        deadline = time.monotonic() + _END_S
        for client in barrier.clients:
            client.process.terminate()
        for client in barrier.clients:
            client.await_end(deadline)
    node = str(answer.get("owner", "")).rpartition("/")[2]
    return [
        WindowResult(
            traffic=clients.traffic_result(
                what,
                pairs(row, endpoints, congestion(what)),
                [CounterSample.of(edge) for edge in row["edges"]],
                [*ended, *map(spoiled, row["spoiled"])],
            ),
            steering=[(node, {"drift": [], **answer["plans"][row["plan"]]})],
            goodput=over_time(row["trace"], answer["start"]),
        )
        for row in answer["windows"]
    ]


def await_connections(
    servers: Sequence[int], streams: int, running: Sequence[clients.Client]
) -> None:
    """Return once each server has its control and data connections, a client has ended, or it is late.

    The first connections of a new lab may take a second; what has none then spoils its windows.
    """
    end = time.monotonic() + _CONNECT_S
    with ExitStack() as stack, Machine() as machine:
        for one in [receiver(machine, pid, stack) for pid in servers]:
            while len(one.connections) <= streams and time.monotonic() < end:
                if any(client.process.poll() is not None for client in running):
                    return
                time.sleep(0.02)
                one.connect(machine)


def _ended(client: clients.Client, what: Measurement) -> list[Reason]:
    """Why a client has ended before the last window did."""
    if client.process.poll() is None:
        return []
    outcome = client.finish(time.monotonic(), what).outcome
    text = outcome.text if isinstance(outcome, Failure) else "it had sent for its whole time"
    words = f"pair {client.endpoint.index}: the client ended before the last window: {text}"
    return [Reason(Cause.TRAFFIC, words)]


def congestion(what: Measurement) -> str | None:
    """The congestion control that the senders were told to use."""
    kind = traffic.of(what.traffic)
    return kind.congestion or None if isinstance(kind, Stream) else None


def pairs(
    row: Mapping[str, Any], endpoints: Sequence[Endpoint], control: str | None
) -> list[PairResult]:
    """The goodput of each pair in a window of the agent's answer (pure)."""
    return [
        PairResult(
            pair.index,
            Values({"bitrate_mbps": rate(got["bytes"], got["seconds"])}, control)
            if got
            else Failure("traffic", f"pair {pair.index} has no bytes in this window"),
        )
        for pair, got in zip(endpoints, row["received"], strict=True)
    ]


def spoiled(reason: Mapping[str, Any]) -> Reason:
    """The agent's reason against a window; a receiver is named by its pair (pure)."""
    text = reason["message"]
    if reason["kind"] == "late":
        return Reason(Cause.WINDOW, f"the window is late: {text}")
    if reason["kind"] == "receiver":
        return Reason(Cause.TRAFFIC, f"pair {reason['receiver'] + 1}: {text}")
    return Reason(Cause.STEERING, f"steering in the window: {text}")
