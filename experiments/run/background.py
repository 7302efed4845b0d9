"""CPU time of other programs, from the counters at both ends of a window (pure).

The kernel counts the time of each core by kind, and the time of each process. The time of other
programs is the user, nice and system time of the cores, minus the time of the experiment's
processes. Softirq time belongs to the traffic. Without IRQ_TIME_ACCOUNTING the kernel charges
softirqs to the interrupted process. Their total is the time charged to all processes beyond the
cores' system time. It is subtracted from the experiment's processes, which cause these packets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from experiments.host.procstat import CounterSample, Task

# Kernel threads that process packets: their time always belongs to the traffic.
_PACKETS = ("ksoftirqd/", "napi/", "backlog_napi/")

_MOST_NAMED = 3
_LEAST_NAMED = 0.02  # cores


class Background(NamedTuple):
    """Mean over the window, in cores; and the programs that used most, in words."""

    cores: float
    who: list[str]


class _Used(NamedTuple):
    """Ticks that a process used in the window."""

    task: Task
    user: int
    system: int


def measured(
    before: CounterSample, after: CounterSample, cores: Collection[int]
) -> Background | str:
    """CPU time of other programs on these cores, or why it is not known.

    Children of the experiment's processes belong to it.
    """
    seconds = after.at - before.at
    if not before.own:
        return "the processes of the experiment were not found"
    if not after.tasks or seconds <= 0:
        return "the processes of the node were not read"
    used = _used(before, after)
    pids = {one.task.pid for one in used}
    if not pids.issuperset(before.own):
        return "a process of the experiment ended before the measurement did"
    own = [one for one in used if {one.task.pid, one.task.parent} & set(before.own)]
    everywhere = before.cores.keys() & after.cores.keys()
    system = _ticks(before, after, everywhere, ("system",))
    charged = sum(one.system for one in used if not one.task.name.startswith("ksoftirqd/"))
    on_top = max(0, charged - system)
    traffic = [one for one in used if one.task.name.startswith(_PACKETS[1:])]
    own_system = max(0, sum(one.system for one in (*own, *traffic)) - on_top)
    own_user = sum(one.user for one in own)
    here = everywhere & set(cores)
    foreign = max(0, _ticks(before, after, here, ("user", "nice")) - own_user)
    foreign += max(0, _ticks(before, after, here, ("system",)) - own_system)
    per_core = before.tick * seconds
    return Background(foreign / per_core, _named(used, {one.task.pid for one in own}, per_core))


def _ticks(
    before: CounterSample, after: CounterSample, cores: Collection[int], fields: Sequence[str]
) -> int:
    return sum(
        max(0, after.cores[core][field] - before.cores[core][field])
        for core in cores
        for field in fields
    )


def _used(before: CounterSample, after: CounterSample) -> list[_Used]:
    """CPU time of each process; a process that ended is counted at the parent that waited for it."""
    found = {
        pid: (task, _time(task, before.processes.get(pid))) for pid, task in after.processes.items()
    }
    for pid, task in before.processes.items():
        if pid in after.processes and after.processes[pid].start == task.start:
            continue
        # the parent also has the time that it used before the window
        heir = task.parent if task.parent in found else 1
        if heir in found:
            one, (user, system) = found[heir]
            ended_user, ended_system = _time(task, None)
            found[heir] = one, (user - ended_user, system - ended_system)
    return [_Used(task, *time) for task, time in found.values()]


def _time(task: Task, since: Task | None) -> tuple[int, int]:
    """User and system ticks of a process and its ended children, since it was seen before."""
    user, system = task.user + task.ended_user, task.system + task.ended_system
    if since is None or since.start != task.start:
        return user, system
    return user - since.user - since.ended_user, system - since.system - since.ended_system


def _named(used: Sequence[_Used], own: Collection[int], per_core: float) -> list[str]:
    """The programs that used most, each with its share."""
    by_name: dict[str, int] = {}
    for one in used:
        if one.task.pid not in own and not one.task.name.startswith(_PACKETS):
            by_name[one.task.name] = by_name.get(one.task.name, 0) + one.user + one.system
    most = sorted(by_name.items(), key=lambda item: (-item[1], item[0]))[:_MOST_NAMED]
    return [
        f"{name} {ticks / per_core:.2f}" for name, ticks in most if ticks / per_core > _LEAST_NAMED
    ]
