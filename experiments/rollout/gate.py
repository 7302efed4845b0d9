"""The gate of a rollout (pure): a node's health with the plan, compared with its own baseline."""

from __future__ import annotations

from experiments.rollout.contract import Reading

# A node may lose this share of its packets, or so many, or twice its baseline. Devices also count packets of protocols
# that nobody handles.
DROPS, FEW_DROPS = 1e-4, 20
# So many exhausted budgets in a second, or twice the baseline, are no reason to restore.
SQUEEZES = 100.0
# Milliseconds of a handshake above twice the baseline.
LATENCY_MS = 1.0
# Softirqs may take twice the CPU time for what is received, or so much of a core.
FEW_CORES = 0.05
# Less than so many bytes a second tell nothing about it.
FEW_BYTES = 1e6


def faults(before: Reading, with_plan: Reading) -> list[str]:
    """The reasons why a node is worse with the plan than before it; empty if it is not."""
    found = [] if with_plan.ready else ["it is not Ready"]
    if not with_plan.seconds or not before.seconds:
        return found
    share, was = _share(with_plan), _share(before)
    many = with_plan.dropped > 2 * before.dropped + FEW_DROPS
    if many and share > max(2 * was, DROPS):
        found.append(f"it drops {share:.2%} of its packets, {was:.2%} before")
    rate, was = with_plan.squeezed / with_plan.seconds, before.squeezed / before.seconds
    if rate > 2 * was + SQUEEZES:
        found.append(f"softirqs run out of budget {rate:.0f} times a second, {was:.0f} before")
    cost, cheap = _cost(with_plan), _cost(before)
    if cost and cheap and cost > 2 * cheap and with_plan.softirq_s > FEW_CORES * with_plan.seconds:
        found.append(f"softirqs take {cost:.2g} s of CPU time for a Gbit, {cheap:.2g} s before")
    late, early = with_plan.latency_ms, before.latency_ms
    if early is not None and late is None:
        found.append("another node cannot connect to it any more")
    if early is not None and late is not None and late > 2 * early + LATENCY_MS:
        found.append(f"a handshake with it takes {late:.1f} ms, {early:.1f} ms before")
    return found


def _cost(reading: Reading) -> float | None:
    """CPU seconds of softirqs for a Gbit that was received; None where too little was."""
    enough = reading.received > FEW_BYTES * reading.seconds
    return reading.softirq_s / (reading.received * 8 / 1e9) if enough else None


def _share(reading: Reading) -> float:
    """The share of packets that were dropped."""
    return reading.dropped / max(1, reading.packets + reading.dropped)
