"""An episode on the lab: clients at full speed while the agent switches the server node."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from experiments.host import calls
from experiments.host.procstat import CounterSample
from experiments.targets import roundtrips, windows
from experiments.targets.contract import WindowResult
from experiments.targets.lab import clients
from experiments.targets.roundtrips import Probe
from infra.lab.measurement import Endpoint, Measurement


def run(
    what: Measurement,
    endpoints: Sequence[Endpoint],
    schedule: dict[str, Any],
    seconds: int,
    servers: Sequence[int],
) -> list[WindowResult]:
    """The windows of a schedule; the connections last `seconds` and must outlive the last window.

    `servers` are the pids of all servers.
    """
    longer = what.model_copy(update={"duration": seconds, "omit": 0})
    with (
        calls.episode(schedule) as start,
        clients.Barrier(longer, endpoints, lasting=True) as barrier,
    ):
        barrier.release()
        pids = [one.process.pid for one in barrier.clients]
        own = [os.getpid(), *servers, *pids]
        before = CounterSample.read(own=own)  # all processes, which takes some ms: in no window
        answer = start()
        after = CounterSample.read(own=own)
        senders = [one for one in barrier.clients if not windows.probes(one.kind)]
        ended = {one.endpoint.index: _last_words(one, longer) for one in senders}
        probed = [_probe(one) for one in barrier.clients if windows.probes(one.kind)]
    measured = partial(clients.traffic_result, what, around=(before, after))
    return windows.results(answer, what, [*ended], measured, ended, probed=probed)


def _probe(client: clients.Client) -> Probe:
    """The round trips of a client, by the agent's own clock."""
    client.send(signal.SIGTERM)
    trips, _ = client.read(time.monotonic() + clients.END_S, roundtrips.read)
    return Probe(client.endpoint.index, trips)


def _last_words(client: clients.Client, what: Measurement) -> str:
    """Why a client ended; empty where it still runs."""
    if client.process.poll() is None:
        return ""
    return windows.last_words(client.finish(time.monotonic(), what).outcome)
