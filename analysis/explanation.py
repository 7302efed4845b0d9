"""Why a configuration gains, in words: time of the cores, packets, hand-overs and drops (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.metrics import METRICS, Metric, datagrams_only, server_cores, window_seconds
from analysis.pairing import StateKey
from analysis.recommend import Recommendation
from analysis.schema import Core, Record, Softnet
from analysis.tables import reasons
from analysis.verdict import Contrast, gain, joined, where

# A core with less idle time than this is full, percent.
FULL = 5.0
# A core is named as the full one if it was so in this share of the runs.
MOST_RUNS = 0.9
# Smaller changes of a core's softirq time are not named, percentage points.
LEAST_CHANGE = 5.0
MOST_CORES = 3
# Fewer drops or squeezes a second are not named.
LEAST_RATE = 1.0
# Smaller shares of the datagrams are not named, percent.
LEAST_SHARE = 0.05

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


def explain(
    records: Sequence[Record],
    contrasts: Sequence[Contrast],
    recommendation: Recommendation | None,
    baseline: str,
    metric: Metric,
) -> list[str]:
    """One to three sentences; none if the cores of the baseline were not measured.

    The first is about the fullest core of the baseline. The others compare the work of the cores
    with the configuration that the recommendation names. They are left out unless it is
    significantly better.
    """
    valid = [record for record, why in zip(records, reasons(records), strict=True) if not why]
    gained = _gained(contrasts, recommendation, metric)
    places = {(one.path, one.replicas) for one in valid if one.configuration == baseline}
    if not places:
        return []
    place = (
        (gained.path, gained.replicas)
        if gained
        else min(places, key=lambda one: (one[0] != "overlay", -one[1]))
    )
    before = work(valid, (*place, baseline))
    if before is None:
        return []
    nic = _of_nic(valid, (*place, baseline), before)
    found = [f"At {where(*place)}, {_bottleneck(before, baseline)}{nic}."]
    after = work(valid, (*place, gained.b)) if gained else None
    datagrams = _datagrams(valid, place, [baseline, *([gained.b] if gained else [])])
    if gained and after and after.idle.keys() == before.idle.keys():
        found.append(_moved(before, after, gained.a, gained.b))
        found += datagrams or _lost(before, after, baseline, gained.b)
    else:
        found += datagrams
    return found


def _gained(
    contrasts: Sequence[Contrast], recommendation: Recommendation | None, metric: Metric
) -> Contrast | None:
    """The largest significant gain of what is, or would be, recommended."""
    own = [
        one
        for one in contrasts
        if recommendation
        and one.verdict == "better"
        and one.b == recommendation.named(one.replicas)
    ]
    return max(own, key=lambda one: gain(one.effect, metric), default=None)


def work(records: Sequence[Record], state: StateKey) -> Work | None:
    """The work in the runs of a state; None if the idle or softirq time of a core is not known."""
    own = [one for one in records if (one.path, one.replicas, one.configuration) == state]
    runs = [{(core.node, core.core): core for core in server_cores(one)} for one in own]
    idle = [_known(run, lambda core: core.idle) for run in runs]
    times = {name: [_known(run, read) for run in runs] for name, read in _TIMES.items()}
    places = [*map(set, runs), *map(set, idle), *map(set, times["softirq"])]
    if not runs or not places[0] or any(one != places[0] for one in places):
        return None
    rows = [
        {(row.node, row.core): row for row in one.softnet if (row.node, row.core) in run}
        for one, run in zip(own, runs, strict=True)
    ]
    seconds = [window_seconds(one) for one in own]

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


def _bottleneck(before: Work, baseline: str) -> str:
    """core 0 was full with baseline: 99 % softirq, 0.3 % idle; it processed ..."""
    core = before.full
    runs, full = len(before.fullest), sum(one is not None for one in before.fullest)
    if core is None and full:
        changed = len({one for one in before.fullest if one is not None}) > 1
        which = ", and not always the same one" if changed else ""
        return f"a server core was full with {baseline} in {full} of {runs} runs{which}"
    fullest = core or min(before.idle, key=lambda place: before.idle[place])
    name = _name(fullest, before)
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
        f"({_rate(before.packets[fullest])} a second, counted at each device)"
    )


def _of_nic(records: Sequence[Record], state: StateKey, before: Work) -> str:
    """; it took 98 % of the NIC's interrupts. Empty if there is no full core, or it is not known."""
    own = [one for one in records if (one.path, one.replicas, one.configuration) == state]
    if before.full is None or len({node for node, _ in before.idle}) > 1:
        return ""
    number = before.full[1]
    if all(one.target == "lab" for one in own):
        alone = all(
            one.machine and one.machine.irq_core == number and (one.machine.nic_queues or 1) == 1
            for one in own
        )
        return "; it takes all packets of the emulated NIC" if alone else ""
    counts: Counter[int] = Counter()
    for one in own:
        first, last = one.confounders_before, one.confounders_after
        for vector, cores in (last.nic_interrupts if last else {}).items():
            earlier = first.nic_interrupts.get(vector, cores) if first else cores
            for core, (old, new) in enumerate(zip(earlier, cores, strict=False)):
                counts[core] += max(0, new - old)
    if not counts.total():
        return ""
    return f"; it took {100 * counts[number] / counts.total():.0f} % of the NIC's interrupts"


def _moved(before: Work, after: Work, baseline: str, chosen: str) -> str:
    """The cores whose softirq time changed most, with their packets, and the hand-overs."""
    change = {core: after.soft[core] - before.soft[core] for core in before.soft}
    named = [core for core in change if abs(change[core]) >= LEAST_CHANGE]
    named = sorted(named, key=lambda core: (core != before.full, -abs(change[core])))
    parts = [
        f"from {before.soft[core]:.0f} % to {after.soft[core]:.0f} % on {_name(core, before)}"
        for core in named[:MOST_CORES]
    ]
    if len(named) > MOST_CORES:
        parts.append(
            f"by at least {LEAST_CHANGE:.0f} points on {len(named) - MOST_CORES} more cores"
        )
    if not parts:
        text = f"With {chosen}, softirq time changed by less than {LEAST_CHANGE:.0f} points on every core"
    else:
        text = f"With {chosen}, softirq time went {joined(parts)}"
    gaining = max(change, key=lambda core: after.share(core) - before.share(core))
    if after.share(gaining) - before.share(gaining) >= LEAST_CHANGE:
        text += (
            f"; {_name(gaining, before)} processed {after.share(gaining):.0f} % of the packets "
            f"instead of {before.share(gaining):.0f} %"
        )
    if after.handed_over >= LEAST_RATE:
        text += (
            f"; cores handed packets over {_rate(after.handed_over)} times a second instead of "
            f"{_rate(before.handed_over)} with {baseline}"
        )
    return f"{text}."


def _lost(before: Work, after: Work, baseline: str, chosen: str) -> list[str]:
    """Drops and squeezes of both, if there are some."""
    parts = [
        f"{words} {_rate(mine)} a second with {baseline} and {_rate(other)} with {chosen}"
        for words, mine, other in (
            ("the backlogs dropped", before.dropped, after.dropped),
            ("softirqs ran out of budget", before.squeezed, after.squeezed),
        )
        if max(mine, other) >= LEAST_RATE
    ]
    if not parts:
        return []
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."]


_DROPS = {
    "loss_socket_percent": "full socket buffers",
    "loss_backlog_percent": "full backlogs",
    "loss_device_percent": "devices",
}


def _datagrams(
    records: Sequence[Record], place: tuple[str, int], names: Sequence[str]
) -> list[str]:
    """Where datagrams were dropped; empty for traffic that has something else too."""
    clauses = []
    for name in names:
        own = [r for r in records if (r.path, r.replicas, r.configuration) == (*place, name)]
        drops = {
            words: fmean(METRICS[metric].value(record) or 0.0 for record in own)
            for metric, words in _DROPS.items()
        }
        if not all(map(datagrams_only, own)):
            return []
        total = math.fsum(drops.values())
        by = [f"{share:.1f} % by {words}" for words, share in drops.items() if share >= LEAST_SHARE]
        clauses.append(f"{total:.1f} % with {name}" + (f" ({joined(by)})" if by else ""))
    return [f"Of the datagrams that reached the server, these were dropped: {'; '.join(clauses)}."]


def _name(core: Place, work: Work) -> str:
    """core 0, or core 0 of worker-1 if there are several nodes."""
    node, number = core
    several = len({node for node, _ in work.idle}) > 1
    return f"core {number} of {node}" if several else f"core {number}"


def _rate(value: float) -> str:
    """1.30 million, 12,300, 900, 4.2."""
    if value >= 1e6:
        return f"{value / 1e6:.2f} million"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"
