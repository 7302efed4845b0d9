"""A rollout to simulated nodes: time of the plan, most trials at once, and memory, by the number of nodes.

    .venv/bin/python -m benchmarks.rollout > benchmarks/rollout.json     (two minutes)

The agents are in memory and answer after `call_s`, as one behind an API server does. Each plan changes 24
values of a node. Memory is what Python has allocated at most: during the plan, and the first and the second
half of the rollout.
"""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks import machine, show
from experiments.rollout import run, states
from experiments.rollout.contract import Change, Member, Phase, Reading, Status
from infra.errors import PrerequisiteMissing

NODES, BATCH, CALL_S = (100, 1000), 20, 0.05
PLAN = "plan"
WELL = Reading(True, 10.0, 100_000, 0, 0, softirq_s=3.0, received=1_250_000_000, latency_ms=0.2)


class Killed(BaseException):
    """kill -9 of the driver: nothing after it runs."""


class Simulated:
    """Agents in memory; `fault` is called before and after each step, and may raise."""

    def __init__(self, names: Sequence[str], fault: Callable[[str], None] = lambda _: None) -> None:
        self.phases = dict.fromkeys(names, Status(Phase.BEFORE))
        self.before: dict[str, Status] = {}
        self.log: list[tuple[str, str]] = []
        self.worse: set[str] = set()
        self.dead = False
        self.most = 0  # trials at once
        self.fault = fault
        self._lock = threading.Lock()

    def _call(self, what: str) -> None:
        if self.dead:
            raise Killed
        try:
            self.fault(what)
        except Killed:
            self.dead = True
            raise

    def _write(self, step: str, node: str, status: Status) -> None:
        self._call(f"before {step}")
        with self._lock:
            self.phases[node] = status
            self.log.append((step, node))
            trials = sum(one.phase is Phase.TRIAL for one in self.phases.values())
            self.most = max(self.most, trials)
        self._call(f"after {step}")

    def members(self) -> list[Member]:
        return [Member(name, True) for name in self.phases]

    def status(self, node: str) -> Status:
        self._call("status")
        return self.phases[node]

    def preview(self, _: str) -> list[Change]:
        self._call("preview")
        return [Change(f"eth0 rx-{queue}", "rps_cpus", "0", "3") for queue in range(24)]

    def observe(self, node: str, seconds: float) -> Reading:
        self._call(f"observe {seconds}")
        tried = self.phases[node].phase is Phase.TRIAL
        return replace(WELL, dropped=5000) if tried and node in self.worse else WELL

    def attempt(self, node: str) -> None:
        if self.phases[node].phase is Phase.TRIAL:
            raise PrerequisiteMissing("a trial is in progress")
        self.before[node] = self.phases[node]
        self._write("try", node, Status(Phase.TRIAL, PLAN))

    def keep(self, node: str) -> None:
        if self.phases[node] != Status(Phase.KEPT, PLAN):
            if self.phases[node].phase is not Phase.TRIAL:
                raise PrerequisiteMissing("no trial")
            self._write("keep", node, Status(Phase.KEPT, PLAN))

    def undo(self, node: str) -> None:
        if self.phases[node].phase is Phase.TRIAL:
            self._write("undo", node, self.before[node])

    def restore(self, node: str, _: bool) -> list[str]:
        self._write("restore", node, Status(Phase.BEFORE))
        return []

    def expire(self) -> None:
        """The agents' own end of trials."""
        for node, status in self.phases.items():
            if status.phase is Phase.TRIAL:
                self.phases[node] = self.before[node]


def figures(count: int) -> dict[str, float]:
    """A rollout to so many nodes."""
    fleet = Simulated(
        [f"node-{number:04}" for number in range(count)], lambda _: time.sleep(CALL_S)
    )
    tracemalloc.start()
    since = time.monotonic()
    found = run.survey(fleet, PLAN, end_trials=True)
    planned = time.monotonic()
    memory = [tracemalloc.get_traced_memory()[1]]
    tracemalloc.reset_peak()
    halves = {0: 0, 1: 0}

    def report(state: states.State) -> None:
        half = 2 * len(state.kept) // count
        halves[half] = max(halves[half], tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    state = run.roll(fleet, states.begin(found.order(count), BATCH), seconds=1.0, report=report)
    ended = time.monotonic()
    tracemalloc.stop()
    memory += halves.values()
    names = ("plan_kb", "first_half_kb", "second_half_kb")
    return {
        "nodes": count,
        "plan_s": round(planned - since, 2),
        "rollout_s": round(ended - planned, 2),
        "kept": len(state.kept),
        "most_at_once": fleet.most,
        **{name: round(size / 1024) for name, size in zip(names, memory, strict=True)},
    }


if __name__ == "__main__":
    rows = [figures(count) for count in NODES]
    show(
        {
            "machine": machine(),
            "batch": BATCH,
            "call_s": CALL_S,
            "calls_at_once": run.AT_ONCE,
            "rows": rows,
        }
    )
