"""The lab backend: clients in namespaces of this machine, whose /proc is read directly."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import procstat
from analysis.schema import Confounders, Machine
from experiments.host import calls, machine
from experiments.host.procstat import CounterSample
from experiments.targets import windows
from experiments.targets.contract import (
    BarrierBroken,
    Schedule,
    Topology,
    TrafficResult,
    WindowResult,
)
from experiments.targets.lab import clients, drift, episode
from experiments.validity import Cause, Reason
from infra import traffic
from infra.lab import layout
from infra.lab.measurement import Endpoint, Measurement
from infra.settings import cpu_limit


class LabBackend:
    """A converged lab."""

    def __init__(self, what: Measurement) -> None:
        self._what = what

    def describe(self) -> Machine:
        return machine.describe(self._what)

    def confounders(self) -> Confounders:
        return machine.confounders()

    def verify(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (plan["owner"].rpartition("/")[2], calls.call("verify", "--renew", plan=plan))
            for plan in self._what.plans
        ]

    def preview(self, what: Measurement) -> list[dict[str, Any]]:
        answers = [calls.call("preview", plan=plan) for plan in what.plans]
        return [change for answer in answers for change in answer["changes"]]

    def _running(self, pairs: int) -> list[Endpoint]:
        """The first pairs, and those that always run beside them."""
        what = self._what
        running = traffic.of(what.traffic).pairs(what.replicas, pairs)
        return [pair for pair in what.pairs if pair.index in running]

    def topology(self, pairs: int) -> Topology:
        wrong = [text for one in self._running(pairs) for text in self._wrong(one)]
        return Topology([Reason(Cause.TOPOLOGY, text) for text in wrong], self._what.pod_cpu_limit)

    def _wrong(self, pair: Endpoint) -> list[str]:
        """Differences between a pair's server and the measurement."""
        name = f"the server of pair {pair.index}"
        pid = self._server(pair)
        if pid is None:
            return [f"{name} does not run"]
        wrong = []
        cores = os.sched_getaffinity(pid)
        if cores != set(self._what.cores.server):
            wrong.append(f"{name} may use cores {sorted(cores)}, not {self._what.cores.server}")
        here, wanted = (
            Path(path).stat().st_ino
            for path in (f"/proc/{pid}/ns/net", layout.netns(pair.server_namespace))
        )
        if here != wanted:
            wrong.append(f"{name} does not run in {pair.server_namespace}")
        if pair.server_cgroup is not None and self._what.pod_cpu_limit is not None:
            quota = _quota(clients.cgroup_directory(pair.server_cgroup))
            if quota != cpu_limit(self._what.pod_cpu_limit):
                wrong.append(f"{name} has a quota of {quota} CPUs, not {self._what.pod_cpu_limit}")
        return wrong

    def _server(self, pair: Endpoint) -> int | None:
        host = self._what.path == "host"
        pidfile = Path(layout.pair(self._what.stack, pair.index, host=host).pidfile)
        return int(pidfile.read_text().split()[0]) if drift.alive(pidfile) else None

    def throttled(self, pairs: int) -> dict[int, int]:
        counts = {}
        for endpoint in self._running(pairs):
            if endpoint.server_cgroup is None:
                continue
            try:
                text = (clients.cgroup_directory(endpoint.server_cgroup) / "cpu.stat").read_text()
            except OSError:
                continue
            if (count := machine.throttled(text)) is not None:
                counts[endpoint.index] = count
        return counts

    def drive(self, pairs: int) -> TrafficResult:
        what = self._what
        edges: list[CounterSample] = []
        servers = [self._server(pair) for pair in self._running(pairs)]
        known = [pid for pid in servers if pid is not None]
        datagrams = "UDP" in traffic.of(what.traffic).protocols

        def read(start: float, pids: Sequence[int]) -> None:
            own = [os.getpid(), *pids, *known] if len(known) == len(servers) else None
            networks = procstat.networks_of([*known, *pids]) if datagrams else {}
            window = what.omit, what.duration
            both = procstat.both_edges(start, window, own, [*networks.values()])
            edges.extend(map(CounterSample.of, both))

        results = clients.run(what, self._running(pairs), read)
        return clients.traffic_result(what, results, edges)

    def switch(
        self, pairs: int, whats: Sequence[Measurement], schedule: Schedule, seconds: int
    ) -> Sequence[WindowResult]:
        endpoints = self._running(pairs)
        servers = {pair.index: self._server(pair) for pair in endpoints}
        known = [pid for pid in servers.values() if pid is not None]
        if len(known) < len(servers):
            index = next(index for index, pid in servers.items() if pid is None)
            raise BarrierBroken(f"the server of pair {index} does not run")
        plans = {what.configuration: what.plans[0] for what in whats}
        kinds = traffic.of(self._what.traffic).pairs(self._what.replicas, pairs)
        receivers = [pid for i, pid in servers.items() if pid and not windows.probes(kinds[i])]
        document = schedule(plans, receivers)
        return episode.run(self._what, endpoints, document, seconds, known)


def _quota(cgroup: Path) -> float | None:
    """CPUs of a cgroup's quota, v1 or v2; None where it has none."""
    with suppress(OSError, ValueError):
        return int((cgroup / "cpu.cfs_quota_us").read_text()) / int(
            (cgroup / "cpu.cfs_period_us").read_text()
        )
    with suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return None
