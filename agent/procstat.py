"""Counters of the kernel at moments, and at both edges of a window. Sent to nodes as it is: imports no other module.

As a program it prints JSON; its argument is the request.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc")
FILES = {"stat": "stat", "softirqs": "softirqs", "softnet": "net/softnet_stat"}
# How long before a window the processes are listed: with hundreds of them this takes some ms.
LISTING_S = 0.02
_PART = 1 << 17
_MOST = 1 << 22
# A file that is made of rows ends a read where a page is full of them; none is longer than this.
_SHORT = 3500


class Sample(NamedTuple):
    """The texts of FILES, this process's CPU time, and processes, at a moment (monotonic)."""

    at: float
    own_cpu: float
    texts: dict[str, bytes]
    own: list[int] | None = None  # the experiment's processes, where they are known
    tasks: Mapping[str, bytes] = {}  # their lines in /proc/PID/stat, by pid

    def document(self, others: Mapping[str, bytes] | None = None) -> dict[str, Any]:
        """For JSON; of /proc/stat the cores alone, of /proc/softirqs those of the network.

        `others` are the lines of all processes.
        """
        texts = {name: text.decode(errors="replace") for name, text in self.texts.items()}
        texts["stat"] = _lines(texts["stat"], "cpu")
        header, _, rows = texts["softirqs"].partition("\n")
        texts["softirqs"] = f"{header}\n{_lines(rows, 'NET_')}"
        lines = {**(others or {}), **self.tasks}
        return {
            "at": self.at,
            "own_cpu": self.own_cpu,
            "tasks": [task(pid, line) for pid, line in lines.items() if line],
            "own": self.own,
            "tick": os.sysconf("SC_CLK_TCK"),
            **texts,
        }


def _lines(text: str, start: str) -> str:
    return "".join(f"{line}\n" for line in text.split("\n") if line.lstrip().startswith(start))


def task(pid: str, line: bytes) -> str:
    """`pid parent start user system children-user children-system name`."""
    name, _, rest = line.decode(errors="replace").partition("(")[2].rpartition(")")
    fields = rest.split()  # counted from the third field of proc_pid_stat(5)
    return " ".join((pid, fields[1], fields[19], *fields[11:15], " ".join(name.split())))


class Counters:
    """The files of FILES, open as long as `stack`."""

    def __init__(self, proc: Path, stack: ExitStack) -> None:
        self._proc = proc
        self._files = {
            name: os.open(proc / path, os.O_RDONLY | os.O_CLOEXEC) for name, path in FILES.items()
        }
        for file in self._files.values():
            stack.callback(os.close, file)

    def read(self, own: list[int] | None = None) -> Sample:
        at = time.monotonic()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        tasks = {str(pid): _process(self._proc, str(pid)) for pid in own or ()}
        texts = {name: whole_text(file) for name, file in self._files.items()}
        return Sample(at, usage.ru_utime + usage.ru_stime, texts, own, tasks)


def whole_text(file: int) -> bytes:
    """All of a file of /proc, from its start."""
    parts: list[bytes] = []
    size = 0
    while size < _MOST:
        part = os.pread(file, _PART, size)
        parts.append(part)
        size += len(part)
        if len(part) < _SHORT:
            break
    return b"".join(parts)


def listed(proc: Path = PROC) -> dict[str, bytes]:
    """The line of every process, by pid."""
    names = os.listdir(proc)
    return {name: _process(proc, name) for name in names if name.isdigit()}


def _process(proc: Path, pid: str) -> bytes:
    """Its line; empty where it ended."""
    try:
        descriptor = os.open(f"{proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    except OSError:
        return b""


@contextmanager
def punctual() -> Iterator[bool]:
    """Run before all normal processes, as far as this one may (whether it does), without pauses."""
    fifo = False
    gc.disable()
    try:
        with suppress(OSError, AttributeError):
            flags = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, flags, os.sched_param(1))
            fifo = True
        yield fifo
    finally:
        with suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        gc.enable()


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def both_edges(
    start: float, window: Iterable[float], own: list[int] | None
) -> list[dict[str, Any]]:
    """The edges of a window of `omit` and `duration` seconds after `start` (monotonic).

    All processes are listed outside of the window, which is the traffic's.
    """
    omit, duration = window
    first = start + omit
    with ExitStack() as stack:
        counters = Counters(PROC, stack)
        with punctual():
            sleep_until(first - LISTING_S)
            others = listed()
            sleep_until(first)
            before = counters.read(own)
            sleep_until(first + duration)
            after = counters.read(own)
        return [before.document(others), after.document(listed())]


def of_pods(uids: Iterable[str]) -> list[int] | None:
    """The processes of pods, by their control groups, and this one; None where one has none."""
    found = {}
    for path in PROC.glob("[0-9]*/cgroup"):
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


def edges_of_pods(omit: float, duration: float, uids: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Both edges of a window that begins `omit` seconds after a line on stdin.

    `uids` are those of the pods whose processes are the experiment's.
    """
    own = of_pods(uids)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        raise SystemExit("stdin was closed before the start signal")
    return both_edges(time.monotonic(), (omit, duration), own)


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


def printed(words: list[str]) -> str:
    """The output of a command; empty if the node does not have it."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace")


def look(request: dict[str, Any]) -> None:
    if "window" in request:
        answer: Any = edges_of_pods(*request["window"])
    else:
        files = read_files(request["files"])
        said = {" ".join(words): printed(words) for words in request.get("commands", ())}
        answer = {"files": files, "commands": said}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    look(json.loads(sys.argv[1]))
