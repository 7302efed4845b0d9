"""What the cores of a server did: time, packets, hand-overs and drops; and which of them was full (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.schema import Confounders, Core, Softnet

# A core with less idle time than this is full, percent.
FULL = 5.0
# A core is named as the full one if it was so in this share of the runs.
MOST_RUNS = 0.9

Place = tuple[str, int]  # node, core
_TIMES: dict[str, Callable[[Core], float | None]] = {
    "softirq": lambda core: core.soft,
    "system": lambda core: core.sys,
    "user": lambda core: core.usr,
}


@dataclass(frozen=True)
class Work:
    """What the server's cores did in the runs of a state.

    `idle`, `times` (percent, by kind of time) and `packets` (a second) are means over the runs by
    core. A packet counts once for each device that it passes. `fullest` is the core with the least
    idle time, if it is full, in each run. The other three are sums over the cores, a second.
    """

    idle: Mapping[Place, float]
    times: Mapping[str, Mapping[Place, float]]
    packets: Mapping[Place, float]
    fullest: Sequence[Place | None]
    handed_over: float
    dropped: float
    squeezed: float

    @property
    def full(self) -> Place | None:
        """The core that was full in nearly all runs."""
        (core, count), *_ = Counter(self.fullest).most_common(1)
        return core if count >= MOST_RUNS * len(self.fullest) else None

    @property
    def soft(self) -> Mapping[Place, float]:
        return self.times["softirq"]

    def share(self, core: Place) -> float:
        """Part of the packets that a core processed, percent."""
        total = math.fsum(self.packets.values())
        return 100 * self.packets.get(core, 0.0) / total if total else 0.0


def work_of(runs: Sequence[tuple[Sequence[Core], Sequence[Softnet], float]]) -> Work | None:
    """From each run: the server's cores, all rows of softnet_stat, and the seconds.

    None if there is no run, or the idle or softirq time of a core is not known.
    """
    cores = [{(core.node, core.core): core for core in own} for own, _, _ in runs]
    idle = [_known(run, lambda core: core.idle) for run in cores]
    times = {name: [_known(run, read) for run in cores] for name, read in _TIMES.items()}
    places = [*map(set, cores), *map(set, idle), *map(set, times["softirq"])]
    if not runs or not places[0] or any(one != places[0] for one in places):
        return None
    rows = [
        {(row.node, row.core): row for row in softnet if (row.node, row.core) in run}
        for run, (_, softnet, _) in zip(cores, runs, strict=True)
    ]
    seconds = [length for _, _, length in runs]

    def rates(count: Callable[[Softnet], int]) -> list[dict[Place, float]]:
        return [
            {place: count(row) / length for place, row in run.items()}
            for run, length in zip(rows, seconds, strict=True)
        ]

    def total(count: Callable[[Softnet], int]) -> float:
        return fmean(math.fsum(run.values()) for run in rates(count))

    return Work(
        idle=_means(idle),
        times={name: _means(values) for name, values in times.items()},
        packets=_means(rates(lambda row: row.processed)),
        fullest=[_fullest(run) for run in idle],
        handed_over=total(lambda row: row.received_rps),
        dropped=total(lambda row: row.dropped + row.flow_limit),
        squeezed=total(lambda row: row.squeezed),
    )


def _known(run: Mapping[Place, Core], read: Callable[[Core], float | None]) -> dict[Place, float]:
    return {place: value for place, core in run.items() if (value := read(core)) is not None}


def _means(runs: Sequence[Mapping[Place, float]]) -> dict[Place, float]:
    """The means over the runs, of the cores that all runs have."""
    shared = [place for place in runs[0] if all(place in run for run in runs)]
    return {place: fmean(run[place] for run in runs) for place in shared}


def _fullest(idle: Mapping[Place, float]) -> Place | None:
    core = min(idle, key=lambda place: idle[place])
    return core if idle[core] < FULL else None


def bottleneck(before: Work, baseline: str) -> str:
    """core 0 was full with baseline: 99 % softirq, 0.3 % idle; it processed ..."""
    core = before.full
    runs, full = len(before.fullest), sum(one is not None for one in before.fullest)
    if core is None and full:
        changed = len({one for one in before.fullest if one is not None}) > 1
        which = ", and not always the same one" if changed else ""
        return f"a server core was full with {baseline} in {full} of {runs} runs{which}"
    fullest = core or min(before.idle, key=lambda place: before.idle[place])
    name = name_of(fullest, before)
    if core is None:
        return (
            f"no server core was full with {baseline}: the busiest, {name}, was "
            f"{before.idle[fullest]:.0f} % idle"
        )
    kind = max(before.times, key=lambda one: before.times[one].get(fullest, 0.0))
    text = (
        f"{name} was full with {baseline}: {before.times[kind][fullest]:.0f} % {kind} time, "
        f"{before.idle[fullest]:.1f} % idle"
    )
    if not before.packets.get(fullest):
        return text
    return (
        f"{text}; it processed {before.share(fullest):.0f} % of the packets "
        f"({rate(before.packets[fullest])} a second, counted at each device)"
    )


def nic_interrupts(runs: Iterable[tuple[Confounders, Confounders]]) -> Counter[int]:
    """The interrupts of NICs in these runs, by core."""
    counts: Counter[int] = Counter()
    for first, last in runs:
        for vector, cores in last.nic_interrupts.items():
            earlier = first.nic_interrupts.get(vector, cores)
            for core, (old, new) in enumerate(zip(earlier, cores, strict=False)):
                counts[core] += max(0, new - old)
    return counts


def name_of(core: Place, work: Work) -> str:
    """core 0, or core 0 of worker-1 if there are several nodes."""
    node, number = core
    several = len({node for node, _ in work.idle}) > 1
    return f"core {number} of {node}" if several else f"core {number}"


def rate(value: float) -> str:
    """1.30 million, 12,300, 900, 4.2."""
    if value >= 1e6:
        return f"{value / 1e6:.2f} million"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"
