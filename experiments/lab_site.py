"""The lab as the place of a run: namespaces of this machine, whose /proc is read directly."""

from __future__ import annotations

import time
from typing import Any

from analysis.schema import Confounders, Machine
from experiments import agent, iperf, machine
from experiments.edges import Edge
from experiments.site import Driven
from infra.lab.measurement import Measurement

# Both nodes of the lab are one kernel: its cores are reported once, under this name.
LAB = "lab"


class LabSite:
    """A converged lab."""

    def __init__(self, what: Measurement) -> None:
        self._what = what

    def describe(self) -> Machine:
        return machine.describe(self._what)

    def confounders(self) -> Confounders:
        return machine.confounders()

    def verify(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (
                owner.rpartition("/")[2],
                agent.call("verify", "--owner", owner, "--saved", "--renew"),
            )
            for owner in self._what.steered
        ]

    def throttled(self, pairs: int) -> dict[int, int]:
        counts = {}
        for endpoint in self._what.pairs[:pairs]:
            if endpoint.server_cgroup is None:
                continue
            try:
                text = (iperf.cgroup_directory(endpoint.server_cgroup) / "cpu.stat").read_text()
            except OSError:
                continue
            if (count := machine.throttled(text)) is not None:
                counts[endpoint.index] = count
        return counts

    def drive(self, pairs: int) -> Driven:
        what = self._what
        edges: list[Edge] = []

        def read(start: float) -> None:
            for moment in (start + what.omit, start + what.omit + what.duration):
                _sleep_until(moment)
                edges.append(Edge.read())

        results = iperf.run(what, what.pairs[:pairs], read)
        return Driven(results, {LAB: (edges[0], edges[1])} if len(edges) == 2 else {})


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
