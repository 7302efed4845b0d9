"""CPU time: does the accounting add up, and how small a change of CPU per Gbit is found?

    .venv/bin/python -m benchmarks.cpu_cost > benchmarks/cpu_cost.json      (root, about 6 minutes)

With `accounting` or `detectable` after it, one of the two. Both are on the lab with 4 pairs.

`accounting`: the record's time of each core that is not idle, against the CPU time of the root control group
(cgroup v1, all processes, exact) and softirq time, exact too, from the kernel's trace events of softirqs.
Without IRQ_TIME_ACCOUNTING the time of a softirq that interrupts a process counts as the process's, so the
control group's part is net of the softirqs that ran in processes. `softirq` compares the record's softirq time, which
the kernel samples at the tick, with the traced one. Tracing costs about 1 % of the cores.

`detectable`: the 4 pairs of `sweep --quick` with twice the episodes; the smallest change of each configuration that the
adjusted test would find in 80 % of such sweeps.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analysis.load import load
from analysis.metrics import METRICS, busy
from analysis.summary import summarise
from benchmarks import machine, show
from benchmarks.sweep import run
from experiments.engines import stacks
from experiments.engines.embedded import Embedded
from experiments.host import lock, procstat
from experiments.targets.lab import clients
from infra.lab import measurement

PAIRS, RUNS, DURATION, OMIT = 4, 5, 4, 1
CONFIGURATIONS = ("baseline", "rps", "rfs", "pipeline")
USAGE = Path("/sys/fs/cgroup/cpuacct/cpuacct.usage_percpu")
TRACE_KB = 32 << 10  # of each core
# `sweep --quick` has 18 episodes at each of its numbers of pairs.
EPISODES, SEEDS = 36, 1
COSTS = ("cpu_s_per_gbit", "softirq_s_per_gbit")
_LOST = re.compile(r"entries-in-buffer/entries-written: (\d+)/(?!\1 )(\d+)")
_EVENT = re.compile(
    r"^.*-(?P<pid>\d+) +\[(?P<core>\d+)\] +\S+ +(?P<at>[\d.]+): softirq_(?P<what>entry|exit): "
)


def main(asked: list[str]) -> None:
    """Measure and print the figures."""
    figures: dict[str, Callable[[], Any]] = {"accounting": accounting, "detectable": detectable}
    found: dict[str, Any] = {"machine": machine()}
    for name in asked or figures:
        found[name] = figures[name]()
    show(found)


def accounting() -> dict[str, Any]:
    found = {}
    with TemporaryDirectory(prefix="steerlab-") as home, lock.machine("benchmark of CPU time"):
        engine = Embedded()
        for name in CONFIGURATIONS:
            values = {"configuration": name, "replicas": str(PAIRS), "runs": "0"}
            values |= {"duration": str(DURATION), "omit": str(OMIT)}
            stack, state = stacks.own(Path(home), "cpu-cost", values)
            engine.up(stack)
            try:
                what = measurement.of(state)
                found[name] = _agreement([_run(what) for _ in range(RUNS)])
            finally:
                engine.destroy(stack)
    return found


def _run(what: measurement.Measurement) -> list[dict[str, float]]:
    """Seconds of each core: not idle and softirq (record), processes and softirq (exact)."""
    kept: list[dict[str, float]] = []

    def read(start: float, _: object) -> None:
        time.sleep(max(0.0, start + what.omit - time.monotonic()))
        with traced() as softirqs:
            used, before = _usage(), procstat.CounterSample.read()
            time.sleep(what.duration)
            used_after, after = _usage(), procstat.CounterSample.read()
        seconds = after.at - before.at
        traces = spent(softirqs(), before.at, after.at)
        for core in procstat.cores(before, after, "lab", what.cores.server):
            if core.server:
                inside, outside = traces[core.core]
                kept.append(
                    {
                        "not_idle": seconds * (busy(core) or 0) / 100,
                        "softirq": seconds * (core.soft or 0) / 100,
                        "processes": used_after[core.core] - used[core.core] - inside,
                        "traced": inside + outside,
                    }
                )

    clients.run(what, what.pairs, read)
    return kept


def _usage() -> list[float]:
    return [int(word) / 1e9 for word in USAGE.read_text().split()]


@contextmanager
def traced() -> Iterator[Callable[[], Iterable[str]]]:
    """Record softirqs in a trace instance of its own; the result reads its lines afterwards."""
    with TemporaryDirectory(prefix="steerlab-") as folder:
        subprocess.run(["mount", "-t", "tracefs", "tracefs", folder], check=True)
        try:
            mine = Path(folder) / "instances/steerlab-cpu-cost"
            mine.mkdir()
            try:
                (mine / "buffer_size_kb").write_text(str(TRACE_KB))
                (mine / "trace_clock").write_text("mono")
                for name in ("softirq_entry", "softirq_exit"):
                    (mine / f"events/irq/{name}/enable").write_text("1")
                lines: list[str] = []
                yield lambda: lines
                (mine / "tracing_on").write_text("0")
                with (mine / "trace").open() as text:
                    lines += text
                if lost := _LOST.search("".join(lines[:20])):
                    raise RuntimeError(f"the trace has {lost[1]} of {lost[2]} events")
            finally:
                mine.rmdir()
        finally:
            subprocess.run(["umount", folder], check=True)


def spent(lines: Iterable[str], start: float, end: float) -> dict[int, tuple[float, float]]:
    """Seconds of softirq by core between two moments: inside of processes, and outside (pure)."""
    found: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    entered: dict[int, float] = {}
    for line in lines:
        if not (event := _EVENT.match(line)):
            continue
        core, at = int(event["core"]), float(event["at"])
        if event["what"] == "entry":
            entered[core] = at
        elif core in entered:
            since = max(start, entered.pop(core))
            found[core][event["pid"] == "0"] += max(0.0, min(end, at) - since)
    return defaultdict(lambda: (0.0, 0.0), {core: (one[0], one[1]) for core, one in found.items()})


def _agreement(runs: list[list[dict[str, float]]]) -> dict[str, Any]:
    sums = [
        {name: sum(core[name] for core in cores) for name in cores[0]} for cores in runs if cores
    ]
    whole = [one["not_idle"] / (one["processes"] + one["traced"]) - 1 for one in sums]
    soft = [one["softirq"] / one["traced"] - 1 for one in sums]
    return {
        "runs": len(sums),
        "core_seconds": {
            name: round(statistics.mean(one[name] for one in sums), 3) for name in sums[0]
        },
        "difference": _differences(whole),
        "softirq_difference": _differences(soft),
    }


def _differences(found: list[float]) -> dict[str, float]:
    return {"mean": round(statistics.mean(found), 4), "most": round(max(map(abs, found)), 4)}


def detectable() -> dict[str, Any]:
    found = []
    for seed in range(SEEDS):
        with TemporaryDirectory(prefix="steerlab-") as folder:
            out = Path(folder) / "sweep"
            words = ("--quick", "--replicas", str(PAIRS), "--runs", str(EPISODES))
            wall, _ = run(out, *words, "--seed", str(seed))
            records = load(out).records
        found.append(
            {"wall_s": round(wall, 1)} | {name: _detectable(records, name) for name in COSTS}
        )
    return {"sweeps": found}


def _detectable(records: Any, name: str) -> dict[str, Any]:
    return {
        one.b: {
            "ratio": round(one.effect.estimate or 0, 3),
            "detectable": round(one.effect.mde, 3) if one.effect.mde else None,
        }
        for one in summarise(records, metric=METRICS[name]).contrasts
        if one.replicas == PAIRS
    }


if __name__ == "__main__":
    main(sys.argv[1:])
