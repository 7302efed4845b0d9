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

EDGE = {"stat": "stat", "softirqs": "softirqs", "softnet": "net/softnet_stat"}


def read_files(patterns: Iterable[str], root: Path = Path("/")) -> dict[str, str]:
    """Each file by its path below `root`; a directory's text is the name of what it leads to.

    A file that cannot be read, or is gone by then, is left out.
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
    """The counters of the kernel at this moment, and the CPU time of its processes.

    `own` are the processes of the experiment, this one among them; None where they are not known.
    """
    at = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    texts = {name: (proc / path).read_text(errors="replace") for name, path in EDGE.items()}
    own_tasks = {pid: task(proc / str(pid)) for pid in own or ()}
    as_others()  # to list all processes takes longer
    others = [task(path) for path in proc.glob("[0-9]*") if int(path.name) not in own_tasks]
    return {
        "at": at,
        "own_cpu": usage.ru_utime + usage.ru_stime,
        "tasks": [line for line in (*own_tasks.values(), *others) if line],
        "own": own,
        "tick": os.sysconf("SC_CLK_TCK"),
        **texts,
    }


def task(process: Path) -> str:
    """`pid parent start user system children-user children-system name`; empty where it ended."""
    try:
        text = (process / "stat").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()  # counted from the third field of proc_pid_stat(5)
    return " ".join((process.name, fields[1], fields[19], *fields[11:15], " ".join(name.split())))


def first_of_all() -> None:
    """Wake up in time also where all cores are busy, as far as this process may."""
    with suppress(OSError, AttributeError):
        flags = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, flags, os.sched_param(1))


def as_others() -> None:
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def both_edges(
    start: float, window: Iterable[float], own: list[int] | None
) -> list[dict[str, Any]]:
    """The edges of a window of `omit` and `duration` seconds after `start` (monotonic)."""
    omit, duration = window
    edges = []
    try:
        for moment in (start + omit, start + omit + duration):
            first_of_all()
            sleep_until(moment)
            edges.append(edge(own=own))
    finally:
        as_others()
    return edges


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
    """What a command prints; nothing where this node does not have it."""
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
