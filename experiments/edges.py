"""The two edges of a measured window: what /proc says of every core, and the difference (pure).

Nothing runs between the edges: the kernel's own accounting is the average over the window, per
tick where the kernel has no IRQ_TIME_ACCOUNTING. Sources: proc(5), Documentation/filesystems/proc,
net/core/net-procfs.c for softnet_stat, and sysstat's definition of the percentages.
"""

from __future__ import annotations

import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from analysis.schema import Core, Softnet
from infra import foreign
from infra.cores import MAX_CPUS, numbered

# Order of the columns of /proc/stat. Guest time is part of user time; mpstat shows it apart, so
# that the percentages of a machine that runs guests sum to less than 100.
STAT_FIELDS = (
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice",
)  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """Raw texts at one moment; parsed after the traffic has ended."""

    at: float
    stat: str
    softirqs: str
    softnet: str
    own_cpu: float

    @classmethod
    def read(cls, proc: Path = Path("/proc")) -> Edge:
        """Read the three files, nothing else."""
        at = time.monotonic()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(
            at=at,
            stat=(proc / "stat").read_text(errors="replace"),
            softirqs=(proc / "softirqs").read_text(errors="replace"),
            softnet=(proc / "net/softnet_stat").read_text(errors="replace"),
            own_cpu=usage.ru_utime + usage.ru_stime,
        )


def cores(before: Edge, after: Edge, node: str) -> list[Core]:
    """Percent of the window that each core spent in each state, as mpstat prints them."""
    with foreign.reading(f"/proc/stat of {node}"):
        first, last = _stat(before.stat), _stat(after.stat)
        both = sorted(first.keys() & last.keys())
        return [_core(node, core, first[core], last[core]) for core in both]


def _stat(text: str) -> dict[int, dict[str, int]]:
    rows = (line.split(maxsplit=len(STAT_FIELDS) + 1) for line in foreign.lines(text))
    return {
        numbered(row[0]): dict(
            zip(STAT_FIELDS, map(foreign.whole, row[1 : len(STAT_FIELDS) + 1]), strict=False)
        )
        for row in rows
        if row and row[0].startswith("cpu") and row[0] != "cpu"
    }


def _core(node: str, core: int, before: dict[str, int], after: dict[str, int]) -> Core:
    # idle and iowait of a tickless core may step back by a tick: that is no negative time
    spent = {field: max(0, after[field] - before.get(field, 0)) for field in after}
    guest, guest_nice = spent.pop("guest", 0), spent.pop("guest_nice", 0)
    total = sum(spent.values())
    if total == 0:
        return Core(node=node, core=core)
    spent["user"] -= min(spent["user"], guest)
    spent["nice"] -= min(spent["nice"], guest_nice)

    def percent(field: str) -> float:
        return round(100 * spent.get(field, 0) / total, 3)

    return Core(
        node=node,
        core=core,
        usr=percent("user"),
        nice=percent("nice"),
        sys=percent("system"),
        iowait=percent("iowait"),
        irq=percent("irq"),
        soft=percent("softirq"),
        steal=percent("steal"),
        idle=percent("idle"),
    )


def softnet(before: Edge, after: Edge, node: str) -> list[Softnet]:
    """Differences of each core's row of softnet_stat, and of its NET_RX softirqs."""
    with foreign.reading(f"/proc/net/softnet_stat of {node}"):
        first, last = _softnet(before.softnet), _softnet(after.softnet)
    with foreign.reading(f"/proc/softirqs of {node}"):
        net_rx_first, net_rx_last = _net_rx(before.softirqs), _net_rx(after.softirqs)
    received = {
        core: _wrapped(net_rx_last[core] - net_rx_first[core])
        for core in net_rx_first.keys() & net_rx_last.keys()
    }
    return [
        Softnet(
            node=node,
            core=core,
            net_rx=received.get(core),
            **{name: _wrapped(last[core][name] - first[core][name]) for name in last[core]},
        )
        for core in sorted(first.keys() & last.keys())
    ]


# Columns of softnet_stat (hexadecimal, 32 bits); the thirteenth is the CPU.
_SOFTNET = {"processed": 0, "dropped": 1, "squeezed": 2, "received_rps": 9, "flow_limit": 10}
_SOFTNET_CPU = 12


def _softnet(text: str) -> dict[int, dict[str, int]]:
    rows: dict[int, dict[str, int]] = {}
    for line in foreign.lines(text):
        values = [
            _hexadecimal(word) for word in line.split(maxsplit=_SOFTNET_CPU + 1)[: _SOFTNET_CPU + 1]
        ]
        core = values[_SOFTNET_CPU] if len(values) > _SOFTNET_CPU else len(rows)
        rows[core] = {name: values[column] for name, column in _SOFTNET.items()}
    return rows


def _hexadecimal(word: str) -> int:
    if not re.fullmatch("[0-9a-f]{8}", word):
        raise ValueError(f"{word[:40]!r} is no counter")
    return int(word, 16)


def _wrapped(difference: int) -> int:
    """The kernel keeps these counters in 32 bits; a second of traffic may pass their end."""
    return difference % 2**32


def _net_rx(text: str) -> dict[int, int]:
    header, *lines = foreign.lines(text)
    online = [numbered(name) for name in header.split(maxsplit=MAX_CPUS)]
    for line in lines:
        name, _, counts = line.partition(":")
        if name.strip() == "NET_RX":
            return dict(
                zip(online, map(foreign.whole, counts.split(maxsplit=MAX_CPUS)), strict=False)
            )
    return {}
