"""Counters of the kernel at moments, and at both edges of a window. Sent to nodes as it is: imports no other module.

As a program it prints JSON; its argument is the request.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc")
FILES = {"stat": "stat", "softirqs": "softirqs", "softnet": "net/softnet_stat"}
NETWORK_FILES = {"snmp": "net/snmp", "dev": "net/dev"}
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
    networks: Sequence[Mapping[str, bytes]] = ()  # texts of NETWORK_FILES of each namespace

    def document(self, others: Mapping[str, bytes] | None = None) -> dict[str, Any]:
        """For JSON; of each file only the rows that are used.

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
            "networks": [
                {
                    "snmp": _lines(one.get("snmp", b"").decode(errors="replace"), "Udp:"),
                    "dev": one["dev"].decode(errors="replace"),
                }
                for one in self.networks
            ],
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
    """The files of FILES, and of namespaces, open as long as `stack`."""

    def __init__(
        self, proc: Path, stack: ExitStack, networks: Sequence[Mapping[str, Path]] = ()
    ) -> None:
        self._proc = proc
        self._files = _opened({name: proc / path for name, path in FILES.items()}, stack)
        self._networks = [_opened(paths, stack) for paths in networks]

    def read(self, own: list[int] | None = None) -> Sample:
        at = time.monotonic()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        tasks = {str(pid): _process(self._proc, str(pid)) for pid in own or ()}
        texts = _texts(self._files)
        networks = [_texts(files) for files in self._networks]
        return Sample(at, usage.ru_utime + usage.ru_stime, texts, own, tasks, networks)


def _opened(paths: Mapping[str, Path], stack: ExitStack) -> dict[str, int]:
    files = {}
    for name, path in paths.items():
        files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, files[name])
    return files


def _texts(files: Mapping[str, int]) -> dict[str, bytes]:
    return {name: whole_text(file) for name, file in files.items()}


def networks_of(pids: Iterable[int], proc: Path = PROC) -> dict[str, dict[str, Path]]:
    """The files of NETWORK_FILES of the network namespaces of these processes, by namespace."""
    found: dict[str, dict[str, Path]] = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            files = {name: proc / str(pid) / path for name, path in NETWORK_FILES.items()}
            found.setdefault(os.readlink(f"{proc}/{pid}/ns/net"), files)
    return found


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
    start: float,
    window: tuple[float, float | None],
    own: list[int] | None,
    networks: Sequence[Mapping[str, Path]] = (),
) -> list[dict[str, Any]]:
    """The edges of a window of `omit` and `duration` seconds after `start` (monotonic).

    Without a duration it ends at a line on stdin. All processes are listed outside of the window,
    which is the traffic's.
    """
    omit, duration = window
    first = start + omit
    with ExitStack() as stack:
        counters = Counters(PROC, stack, networks)
        with punctual():
            sleep_until(first - LISTING_S)
            others = listed()
            sleep_until(first)
            before = counters.read(own)
            if duration is None:
                sys.stdin.readline()
            else:
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


def edges_of_pods(
    omit: float, duration: float | None, uids: Iterable[str] = (), datagrams: bool = False
) -> list[dict[str, Any]]:
    """Both edges of a window that begins `omit` seconds after a line on stdin.

    `uids` are those of the pods whose processes are the experiment's. With `datagrams` the UDP
    counters of these pods are read too, and the devices of pods and node.
    """
    own = of_pods(uids)
    networks: dict[str, dict[str, Path]] = {}
    if datagrams:
        networks = networks_of(set(own or ()) - {os.getpid()})
        here = {"dev": PROC / NETWORK_FILES["dev"]}
        networks.setdefault(os.readlink(PROC / "self/ns/net"), here)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        raise SystemExit("stdin was closed before the start signal")
    return both_edges(time.monotonic(), (omit, duration), own, [*networks.values()])


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
    import subprocess  # most of a look's time, and most looks run no command

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
