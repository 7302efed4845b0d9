"""Why a configuration gains, in words: time of the cores, packets, hand-overs and drops (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from analysis.metrics import METRICS, Metric, datagrams_only, server_cores, window_seconds
from analysis.pairing import StateKey
from analysis.recommend import Recommendation
from analysis.schema import Record
from analysis.tables import reasons
from analysis.verdict import Contrast, gain, joined, where
from analysis.work import Work, bottleneck, name_of, nic_interrupts, rate, work_of

# Smaller changes of a core's softirq time are not named, percentage points.
LEAST_CHANGE = 5.0
MOST_CORES = 3
# Fewer drops or squeezes a second are not named.
LEAST_RATE = 1.0
# Smaller shares of the datagrams are not named, percent.
LEAST_SHARE = 0.05


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
    found = [f"At {where(*place)}, {bottleneck(before, baseline)}{nic}."]
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
    return work_of([(server_cores(one), one.softnet, window_seconds(one)) for one in own])


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
    runs = [(one.confounders_before, one.confounders_after) for one in own]
    counts = nic_interrupts([(first, last) for first, last in runs if first and last])
    if not counts.total():
        return ""
    return f"; it took {100 * counts[number] / counts.total():.0f} % of the NIC's interrupts"


def _moved(before: Work, after: Work, baseline: str, chosen: str) -> str:
    """The cores whose softirq time changed most, with their packets, and the hand-overs."""
    change = {core: after.soft[core] - before.soft[core] for core in before.soft}
    named = [core for core in change if abs(change[core]) >= LEAST_CHANGE]
    named = sorted(named, key=lambda core: (core != before.full, -abs(change[core])))
    parts = [
        f"from {before.soft[core]:.0f} % to {after.soft[core]:.0f} % on {name_of(core, before)}"
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
            f"; {name_of(gaining, before)} processed {after.share(gaining):.0f} % of the packets "
            f"instead of {before.share(gaining):.0f} %"
        )
    if after.handed_over >= LEAST_RATE:
        text += (
            f"; cores handed packets over {rate(after.handed_over)} times a second instead of "
            f"{rate(before.handed_over)} with {baseline}"
        )
    return f"{text}."


def _lost(before: Work, after: Work, baseline: str, chosen: str) -> list[str]:
    """Drops and squeezes of both, if there are some."""
    parts = [
        f"{words} {rate(mine)} a second with {baseline} and {rate(other)} with {chosen}"
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
