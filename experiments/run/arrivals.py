"""What the steered devices received in a run, and the path that it shows (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from analysis.schema import Received, Steering
from experiments.host.arrived import arrived
from experiments.run.readback import Answers
from experiments.targets.contract import AnyMeasurement

# Shares of the bytes that the measured pods received. With the first one the path is the overlay. A NIC or an
# overlay with less than the second did not receive the measured packets. Between the last two only some
# pairs use the overlay; sizes of headers that are counted differ by less.
OVERLAY_SHARE, LEAST_SHARE, SOME = 0.5, 0.01, (0.05, 0.85)
# Fewer bytes of pods are probes and ARP, of a run without traffic; they show no path.
TRAFFIC = 20_000

Path = Literal["overlay", "direct", "host"]


def differences(before: Answers, after: Answers) -> list[Received]:
    """Of all nodes, by the agents' answers before and after a run."""
    first = dict(before)
    return [
        row
        for node, answer in after
        if node in first
        for row in arrived(
            node, first[node].get("device_counts", ()), answer.get("device_counts", ())
        )
    ]


def path(what: AnyMeasurement, rows: Sequence[Received], steering: Steering | None) -> Path:
    """The path of the measured packets on a cluster, where it depends on the CNI; that of the lab is declared.

    Without counters, and without traffic, it is the overlay, unless the agent found none on the route.
    """
    if what.target != "kubernetes":
        return what.path
    measured = _bytes(rows, "pod")
    if measured >= TRAFFIC:
        return "overlay" if _bytes(rows, "overlay") >= OVERLAY_SHARE * measured else "direct"
    steered = {queue.role for queue in steering.queues} if steering else {"overlay"}
    return "direct" if what.overlay_device == "auto" and "overlay" not in steered else what.path


def unused(rows: Sequence[Received]) -> list[str]:
    """Warnings: steered devices that the measured packets did not pass, other tunnels that they did, and unlike paths."""
    words = []
    for node in dict.fromkeys(row.node for row in rows):
        own = [row for row in rows if row.node == node]
        measured = _bytes(own, "pod")
        if measured < TRAFFIC:
            continue
        words += [
            f"{row.role} {row.device} of node {node} is steered, but the measured packets do not pass "
            f"it: it received {row.bytes / 1e6:.1f} MB, and the pods {measured / 1e6:.1f} MB"
            for row in own
            if row.steered and row.role in ("nic", "overlay") and row.bytes < LEAST_SHARE * measured
        ]
        words += [
            f"the measured packets of node {node} pass {row.device}, which is not steered"
            for row in own
            if not row.steered and row.bytes >= OVERLAY_SHARE * measured
        ]
        tunnelled = _bytes(own, "overlay") / measured
        if SOME[0] <= tunnelled < SOME[1]:
            words.append(
                f"the overlay of node {node} received {tunnelled:.0%} of the bytes of its pods: the "
                "packets of the pairs take different paths"
            )
    return words


def _bytes(rows: Sequence[Received], role: str) -> int:
    return sum(row.bytes for row in rows if row.role == role)
