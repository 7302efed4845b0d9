"""Reads files of a node, once or at both edges of a window; sent to nodes as it is.

Standard library only, Python 3.8. Prints JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

# How long before a window the processes are listed: with hundreds of them this takes some ms.
LISTING_S = 0.02
EDGE = {"stat": "stat", "softirqs": "softirqs", "softnet": "net/softnet_stat"}


def read_files(patterns: Iterable[str], root: Path = Path("/")) -> dict[str, str]:
    """Each file by its path below `root`; a directory's text is the name of what it leads to.

    A file that cannot be read, or no longer exists, is left out.
    """
    found = {}
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            name = f"/{path.relative_to(root)}"
            with suppress(OSError):
                found[name] = (
                    path.resolve().name if path.is_dir() else path.read_text(errors="replace")
                )
    return found


def edge(proc: Path = Path("/proc"), own: list[int] | None = None) -> dict[str, Any]:
    """The counters of the kernel at this moment, and the CPU time of processes.

    `own` are the processes of the experiment, this one among them; None where they are not known.
    """
    return legible(counters(str(proc), own), others(str(proc)))


def counters(proc: str, own: list[int] | None) -> dict[str, Any]:
    """The kernel's counters and the experiment's own processes, read as fast as possible."""
    at = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "at": at,
        "own_cpu": usage.ru_utime + usage.ru_stime,
        "tasks": {str(pid): _process(proc, str(pid)) for pid in own or ()},
        "own": own,
        "tick": os.sysconf("SC_CLK_TCK"),
        **{name: _read(f"{proc}/{path}").decode(errors="replace") for name, path in EDGE.items()},
    }


def others(proc: str) -> dict[str, bytes]:
    """The line of every process, by pid."""
    names = os.listdir(proc)  # noqa: PTH208 - a path object for each costs as much again
    return {name: _process(proc, name) for name in names if name.isdigit()}


def legible(edge: dict[str, Any], others: dict[str, bytes]) -> dict[str, Any]:
    """The edge with each process that still ran as `task` writes it."""
    lines = {**others, **edge["tasks"]}
    return {**edge, "tasks": [task(pid, line) for pid, line in lines.items() if line]}


def _process(proc: str, pid: str) -> bytes:
    """Its line; empty where it ended."""
    try:
        return _read(f"{proc}/{pid}/stat")
    except OSError:
        return b""


def _read(path: str) -> bytes:
    """The whole file, in as few system calls as it takes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
    finally:
        os.close(descriptor)


def task(pid: str, line: bytes) -> str:
    """`pid parent start user system children-user children-system name`."""
    name, _, rest = line.decode(errors="replace").partition("(")[2].rpartition(")")
    fields = rest.split()  # counted from the third field of proc_pid_stat(5)
    return " ".join((pid, fields[1], fields[19], *fields[11:15], " ".join(name.split())))


def first_of_all() -> None:
    """Use real-time scheduling if permitted, to wake up in time even if all cores are busy."""
    with suppress(OSError, AttributeError):
        flags = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, flags, os.sched_param(1))


def as_others() -> None:
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def both_edges(
    start: float, window: Iterable[float], own: list[int] | None
) -> list[dict[str, Any]]:
    """The edges of a window of `omit` and `duration` seconds after `start` (monotonic).

    All processes are listed outside of the window, which is the traffic's.
    """
    omit, duration = window
    first = start + omit
    try:
        first_of_all()
        sleep_until(first - LISTING_S)
        listed_before = others("/proc")
        sleep_until(first)
        before = counters("/proc", own)
        sleep_until(first + duration)
        after = counters("/proc", own)
    finally:
        as_others()
    return [legible(before, listed_before), legible(after, others("/proc"))]


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def of_pods(uids: Iterable[str]) -> list[int] | None:
    """The processes of pods, by their control groups, and this one; None where one has none."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            found[int(path.parent.name)] = path.read_text(errors="replace").replace("_", "-")
    own = {os.getpid()}
    wanted = list(uids)
    for uid in wanted:
        pids = {pid for pid, groups in found.items() if uid in groups}
        if not pids:
            return None
        own |= pids
    return sorted(own) if wanted else None


def window(omit: float, duration: float, uids: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Both edges of a window that begins `omit` seconds after a line on stdin.

    `uids` are those of the pods whose processes are the experiment's.
    """
    own = of_pods(uids)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        raise SystemExit("stdin was closed before the start signal")
    return both_edges(time.monotonic(), (omit, duration), own)


def printed(words: list[str]) -> str:
    """The output of a command; empty if the node does not have it."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace")


def main(request: dict[str, Any]) -> None:
    if "window" in request:
        answer: Any = window(*request["window"])
    else:
        files = read_files(request["files"])
        said = {" ".join(words): printed(words) for words in request.get("commands", ())}
        answer = {"files": files, "commands": said}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
