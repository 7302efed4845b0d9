"""An episode on the lab: clients at full speed while the agent switches the server node."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from experiments.host import calls
from experiments.host.procstat import CounterSample
from experiments.targets import windows
from experiments.targets.contract import WindowResult
from experiments.targets.lab import clients
from infra.lab.measurement import Endpoint, Measurement


def run(
    what: Measurement, endpoints: Sequence[Endpoint], schedule: dict[str, Any], seconds: int
) -> list[WindowResult]:
    """The windows of a schedule; the connections last `seconds` and must outlive the last window."""
    longer = what.model_copy(update={"duration": seconds, "omit": 0})
    with calls.episode(schedule) as start, clients.Barrier(longer, endpoints) as barrier:
        barrier.release()
        pids = [one.process.pid for one in barrier.clients]
        own = [os.getpid(), *schedule["receivers"], *pids]
        before = CounterSample.read(own=own)  # all processes, which takes some ms: in no window
        answer = start()
        after = CounterSample.read(own=own)
        ended = {one.endpoint.index: _last_words(one, longer) for one in barrier.clients}
    indexes = [one.index for one in endpoints]
    measured = partial(clients.traffic_result, what, around=(before, after))
    default = clients.default_congestion(endpoints[0])
    return windows.results(answer, what, indexes, measured, ended, default=default)


def _last_words(client: clients.Client, what: Measurement) -> str:
    """Why a client ended; empty where it still runs."""
    if client.process.poll() is None:
        return ""
    return windows.last_words(client.finish(time.monotonic(), what).outcome)
