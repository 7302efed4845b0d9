"""The counters of /proc at both ends of a measured window, and their differences (pure).

Nothing is read in between: the kernel's own accounting is the average over the window, per
tick where the kernel has no IRQ_TIME_ACCOUNTING. Sources: proc(5), Documentation/filesystems/proc,
net/core/net-procfs.c for softnet_stat, and sysstat's definition of the percentages.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agent.procstat import PROC, Counters, listed
from agent.values import MAX_CPUS
from analysis.schema import Core, Datagrams, Softnet
from infra import untrusted
from infra.cores import numbered

# Order of the columns of /proc/stat. Guest time is part of user time; mpstat shows it apart, so
# that the percentages of a machine that runs guests sum to less than 100.
STAT_FIELDS = (
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice",
)  # fmt: skip

# Idle time of a tickless core may step back (proc(5)): so many ticks, or this share of the window.
_SLACK_TICKS, _SLACK = 2, 0.02

Ticks = Mapping[str, int]


class Task(NamedTuple):
    """A process and the CPU time that it has used, and its children that ended, in ticks."""

    pid: int
    parent: int
    start: int
    user: int
    system: int
    ended_user: int
    ended_system: int
    name: str


@dataclass(frozen=True)
class CounterSample:
    """Raw texts at one moment; parsed after the traffic has ended.

    `own` are the processes of the experiment, None where they are not known. `networks` are the
    texts of network namespaces: of the measured pods, and without `snmp` of the node.
    """

    at: float
    stat: str
    softirqs: str
    softnet: str
    own_cpu: float
    tasks: tuple[str, ...] = ()
    own: tuple[int, ...] | None = None
    tick: int = 100
    networks: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def of(cls, read: Mapping[str, Any]) -> CounterSample:
        """From the document of an `agent.procstat.Sample`."""
        own = read.get("own")
        return cls(
            **{
                **read,
                "tasks": tuple(read.get("tasks", ())),
                "own": None if own is None else tuple(own),
                "networks": tuple(read.get("networks", ())),
            }
        )

    @classmethod
    def read(cls, proc: Path = PROC, own: Iterable[int] | None = None) -> CounterSample:
        """The counters and all processes of this machine now; `own` has this process, if given."""
        with ExitStack() as stack:
            sample = Counters(proc, stack).read(None if own is None else list(own))
        return cls.of(sample.document(listed(proc)))

    @cached_property
    def cores(self) -> dict[int, dict[str, int]]:
        """The ticks of each core that is online."""
        with untrusted.reading("/proc/stat"):
            known = len(STAT_FIELDS) + 1
            rows = (line.split(maxsplit=known)[:known] for line in untrusted.lines(self.stat))
            return {
                numbered(row[0]): dict(
                    zip(STAT_FIELDS, map(untrusted.whole, row[1:]), strict=False)
                )
                for row in rows
                if row and row[0].startswith("cpu") and row[0] != "cpu"
            }

    @cached_property
    def processes(self) -> dict[int, Task]:
        """The processes by pid."""
        with untrusted.reading("/proc/PID/stat"):
            return {task.pid: task for task in map(_task, self.tasks)}


def _task(line: str) -> Task:
    *numbers, name = line.split(" ", 7)
    pid, parent, start, user, system, *ended = map(untrusted.whole, numbers)
    ended_user, ended_system = ended
    return Task(pid, parent, start, user, system, ended_user, ended_system, name)


def cores(
    before: CounterSample,
    after: CounterSample,
    node: str,
    serving: Collection[int] = (),
    using: Collection[int] = (),
) -> list[Core]:
    """Percent of the window that each core spent in each state, as mpstat prints them.

    `using` are the cores that work for measured pairs, `serving` those that work for servers.
    """
    return [
        _core(
            node,
            core,
            _spent(before.cores[core], after.cores[core]),
            "server" if core in serving else "client" if core in using else None,
        )
        for core in sorted(before.cores.keys() & after.cores.keys())
    ]


def _spent(before: Ticks, after: Ticks) -> dict[str, int] | None:
    """The ticks of a window; None where a counter went back further than idle time may."""
    spent = {field: after[field] - before.get(field, 0) for field in after}
    slack = _SLACK_TICKS + _SLACK * sum(map(abs, spent.values()))
    for field, ticks in spent.items():
        if ticks < (-slack if field in ("idle", "iowait") else 0):
            return None
    return {field: max(0, ticks) for field, ticks in spent.items()}


def _core(
    node: str, core: int, spent: dict[str, int] | None, side: Literal["server", "client"] | None
) -> Core:
    spent = dict(spent or {})
    guest, guest_nice = spent.pop("guest", 0), spent.pop("guest_nice", 0)
    total = sum(spent.values())
    if total == 0:
        return Core(node=node, core=core, side=side)
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
        side=side,
    )


def softnet(before: CounterSample, after: CounterSample, node: str) -> list[Softnet]:
    """Differences of each core's row of softnet_stat, and of its NET_RX softirqs."""
    rows = _softnet_differences(before, after)
    received = _net_rx_differences(before, after)
    return [
        Softnet(node=node, core=core, net_rx=received.get(core), **row)
        for core, row in sorted(rows.items())
        if row is not None
    ]


def backward(before: CounterSample, after: CounterSample, node: str) -> list[str]:
    """The counters without a difference: they decreased during the window."""
    times = {
        core: _spent(before.cores[core], after.cores[core])
        for core in before.cores.keys() & after.cores.keys()
    }
    udp = f"the UDP counters of node {node} decreased: not measured"
    named: tuple[tuple[str, Mapping[int, object]], ...] = (
        ("/proc/stat", times),
        ("softnet_stat", _softnet_differences(before, after)),
        ("NET_RX", _net_rx_differences(before, after)),
    )
    return [
        f"the counters of core {core} of node {node} in {name} decreased: not measured"
        for name, differences in named
        for core, difference in sorted(differences.items())
        if difference is None
    ] + [udp] * (_datagram_differences(before, after) is None)


def _softnet_differences(
    before: CounterSample, after: CounterSample
) -> dict[int, dict[str, int] | None]:
    with untrusted.reading("/proc/net/softnet_stat"):
        first, last = _softnet(before), _softnet(after)
    found: dict[int, dict[str, int] | None] = {}
    for core in first.keys() & last.keys():
        row = {name: _wrapped(last[core][name] - first[core][name]) for name in last[core]}
        known = {name: value for name, value in row.items() if value is not None}
        found[core] = known if len(known) == len(row) else None
    return found


# Columns of softnet_stat (hexadecimal, 32 bits); the thirteenth is the CPU.
_SOFTNET = {"processed": 0, "dropped": 1, "squeezed": 2, "received_rps": 9, "flow_limit": 10}
_SOFTNET_CPU = 12


def _softnet(edge: CounterSample) -> dict[int, dict[str, int]]:
    """The rows by core. Before Linux 5.10 they do not name theirs: they are of those online."""
    online = sorted(edge.cores)
    rows: dict[int, dict[str, int]] = {}
    for number, line in enumerate(filter(None, untrusted.lines(edge.softnet))):
        words = line.split(maxsplit=_SOFTNET_CPU + 1)[: _SOFTNET_CPU + 1]
        values = [_hexadecimal(word) for word in words]
        if len(values) > _SOFTNET_CPU:
            core = values[_SOFTNET_CPU]
        else:
            core = online[number] if number < len(online) else number
        rows[core] = {name: values[column] for name, column in _SOFTNET.items()}
    return rows


def _hexadecimal(word: str) -> int:
    if not re.fullmatch("[0-9a-f]{8}", word):
        raise ValueError(f"{word[:40]!r} is no counter")
    return int(word, 16)


def _wrapped(difference: int) -> int | None:
    """The kernel keeps these counters in 32 bits: a window may pass their end, but not half of them.

    Thus more than half is a counter that went back.
    """
    passed = difference % 2**32
    return passed if passed < 2**31 else None


def _net_rx_differences(before: CounterSample, after: CounterSample) -> dict[int, int | None]:
    with untrusted.reading("/proc/softirqs"):
        first, last = _net_rx(before.softirqs), _net_rx(after.softirqs)
    return {core: _wrapped(last[core] - first[core]) for core in first.keys() & last.keys()}


def _net_rx(text: str) -> dict[int, int]:
    header, *lines = untrusted.lines(text)
    online = [numbered(name) for name in header.split(maxsplit=MAX_CPUS)]
    for line in lines:
        name, _, counts = line.partition(":")
        if name.strip() == "NET_RX":
            return dict(
                zip(online, map(untrusted.whole, counts.split(maxsplit=MAX_CPUS)), strict=False)
            )
    return {}


def datagrams(before: CounterSample, after: CounterSample, node: str) -> Datagrams | None:
    """UDP of the measured pods over the window; None if it was not read, or a counter decreased."""
    found = _datagram_differences(before, after)
    if not found:
        return None
    return Datagrams(
        node=node,
        sent=found["OutDatagrams"],
        delivered=found["InDatagrams"],
        socket_drops=found["RcvbufErrors"],
        other_errors=max(0, found["InErrors"] - found["RcvbufErrors"]),
        device_drops=found["device"],
    )


def _datagram_differences(before: CounterSample, after: CounterSample) -> dict[str, int] | None:
    """Empty where they were not read at both edges, None where one decreased."""
    with untrusted.reading("/proc/net/snmp and /proc/net/dev"):
        first, last = _networks(before), _networks(after)
    found = {name: last[name] - first[name] for name in first.keys() & last.keys()}
    return found if all(count >= 0 for count in found.values()) else None


_MOST_UDP = 32
_UDP = ("InDatagrams", "InErrors", "OutDatagrams", "RcvbufErrors")
# In a row of /proc/net/dev, after the device's name: rx_dropped and rx_missed_errors together.
_DEV_DROP, _DEV_FIELDS = 3, 16


def _networks(edge: CounterSample) -> dict[str, int]:
    """The sums over the namespaces; empty if no UDP counters were read."""
    udp = [_udp(one["snmp"]) for one in edge.networks if one.get("snmp")]
    if not udp:
        return {}
    sums = {name: sum(one[name] for one in udp) for name in _UDP}
    return {**sums, "device": sum(_device_drops(one["dev"]) for one in edge.networks)}


def _udp(text: str) -> dict[str, int]:
    """The rows `Udp:` of /proc/net/snmp: names, then values."""
    names, values = (line.split(maxsplit=_MOST_UDP)[1:] for line in untrusted.lines(text)[:2])
    found = dict(zip(names, map(untrusted.whole, values), strict=False))
    return {name: found[name] for name in _UDP}


def _device_drops(text: str) -> int:
    """Packets that the devices of a namespace dropped on receipt; after two lines of headings."""
    rows = (
        line.rpartition(":")[2].split(maxsplit=_DEV_FIELDS) for line in untrusted.lines(text)[2:]
    )
    return sum(untrusted.whole(row[_DEV_DROP]) for row in rows if row)
