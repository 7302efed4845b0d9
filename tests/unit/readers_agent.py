"""The node agent's readers: plans, snapshots and the files of a kernel, by its own verbs."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest.mock import patch

from foreign_documents import json_like, text_like
from imitation import absent, answer, on
from readers import add
from steer_tree import Tree, plan, rule, steer
from switched_tree import PLANS, document, episode, populate

from agent import cli, processes
from agent.session import requested

OWNER = "mine/server"


class _NoSignals:
    """Signals that never come, and handlers that stay as they are."""

    def check(self) -> None: ...

    def at_once(self) -> nullcontext[None]:
        return nullcontext()

    def ignore(self) -> None: ...


def _raised(error: Exception) -> str:
    """An error that the agent would report as unexpected is a fault of it."""
    if isinstance(error, OSError):
        return steer.explain(error)
    raise error


def verb(*words: str) -> Callable[[Path], object]:
    """A verb's exit status: with a reason on stderr, or with JSON on stdout."""

    def read(folder: Path) -> int:
        out, err = io.StringIO(), io.StringIO()
        with ExitStack() as stack:
            for module, name, value in (
                (steer.sys, "stdout", out),
                (steer.sys, "stderr", err),
                (cli, "Signals", _NoSignals),
                (cli, "unforeseen", _raised),
                (steer.os, "kill", lambda *_: None),  # whatever pid a file names
            ):
                stack.enter_context(patch.object(module, name, value))
            status: int = steer.main([*words], on(folder))
        if out.getvalue():
            json.loads(out.getvalue())
        if status:
            assert err.getvalue().startswith("steer: ")
        assert out.getvalue() or status
        return status

    return read


def node(folder: Path) -> None:
    tree = Tree(folder)
    tree.device("eth0", queues=2, gro="on")
    tree.device("vxlan.calico")


def _plan(data: bytes) -> object:
    """A plan on stdin, up to where it is held against a machine."""
    with patch.object(steer.sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8")):
        read = steer.read_plan(None, None)
        return read and steer.wanted_values(read, steer.Cpus([0, 1], [0, 1, 2, 3], [1]))


_PLAN = plan(
    rule("nic", "eth0", cpus="1", flows=8),
    rule("pod", "eth0", namespace="/run/netns/cni-*"),
    cores=[0],
    queue_core=0,
    sock_flow_entries=32,
    lease_seconds=60,
)
_PLANS = json_like(_PLAN)
add("plan of the agent, on stdin", _plan, _PLANS, json.dumps(_PLAN), errors=(steer.SteerError,))
add(
    "a request of a session",
    requested,
    json_like(["show"]),
    '["show"]',
    errors=(steer.SteerError,),
)
add(
    "plan of the agent, in a file",
    lambda folder: steer.read_plan(f"@{folder / 'plan'}", None),
    _PLANS,
    json.dumps(_PLAN),
    errors=(steer.SteerError,),
    file="plan",
    plain=True,
)


def _applied(folder: Path) -> object:
    return verb("apply", "--plan", f"@{folder / 'plan'}")(folder)


_SMALL = plan(rule("nic", "eth0", cpus="1", flows=8), sock_flow_entries=32)
add(
    "plan that the agent applies",
    _applied,
    json_like(_SMALL),
    json.dumps(_SMALL),
    errors=(steer.SteerError,),
    file="plan",
    plain=True,
    around=node,
)

_KNOBS = ("rps_cpus", "rps_flow_cnt")
_QUEUES = [steer.Place(None, "own", "eth0", 2, f"rx-{n}", 0) for n in range(2)]
_SNAPSHOT = steer.Snapshot(
    owner=OWNER,
    boot_id="boot-one",
    since="2025-01-01T00:00:00Z",
    pid=1,
    plan=plan(rule("nic", "eth0", cpus="1", flows=8), owner=OWNER),
    lease=steer.Lease(60, 1e9, 2**22 + 1, "no such time"),
    entries=[
        *(steer.Entry(queue, knob, "0").writing("1") for queue in _QUEUES for knob in _KNOBS),
        steer.Entry(steer.THE_MACHINE, "rps_sock_flow_entries", "0"),
    ],
).to_text()
_SAVED = json.loads(_SNAPSHOT)
del _SAVED["checksum"]  # else no change of it would be looked at any further
_FIRST = {
    **_SAVED,
    "sock_flow_entries": "0",
    "entries": [
        {**{n: v for n, v in queue._asdict().items() if n != "inode"}, **dict.fromkeys(_KNOBS, "0")}
        for queue in _QUEUES
    ],
}
del _FIRST["version"]
for _words in (
    ("show",),
    ("verify", "--owner", OWNER, "--saved"),
    ("restore", "--owner", OWNER),
    ("restore", "--all", "--force"),
    ("apply", "--plan", json.dumps({**_SMALL, "owner": OWNER})),
    ("apply", "--plan", json.dumps({**_SMALL, "owner": "another"})),
):
    add(
        f"snapshot, by {' '.join(_words)[:30]}",
        verb(*_words),
        json_like(_SAVED) | json_like(_FIRST),
        _SNAPSHOT,
        json.dumps(_FIRST),
        file="run/steerlab/mine%2Fserver.snapshot",
        around=node,
    )
for _file, _text in (
    ("proc/sys/kernel/random/boot_id", "boot-one\n"),
    ("proc/sys/net/core/rps_sock_flow_entries", "32768\n"),
    ("sys/devices/system/cpu/online", "0-1\n"),
    ("sys/devices/system/cpu/isolated", "1\n"),
    ("sys/fs/cgroup/cpuset.cpus.isolated", "1\n"),
    ("sys/class/net/eth0/ifindex", "2\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "3\n"),
    ("sys/class/net/eth0/queues/rx-1/rps_flow_cnt", "8\n"),
    ("run/steerlab/mine%2Fserver.watchdog", "2025-01-01T00:00:00Z: x\n"),
):
    add(
        f"the agent's {_file.rpartition('/')[2]}",
        verb("show"),
        text_like([_text]),
        _text,
        file=_file,
        around=node,
    )
for _file, _text in (
    ("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:   16384 kB\n"),
    ("proc/sys/kernel/osrelease", "6.18.3-1-amd64\n"),
    ("sys/class/net/eth0/uevent", "DEVTYPE=vlan\nINTERFACE=eth0\n"),
):
    add(
        f"the agent's {_file.rpartition('/')[2]}",
        verb("apply", "--plan", json.dumps(_SMALL)),
        text_like([_text]),
        _text,
        file=_file,
        around=node,
    )

_ROUTES = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
)


def _by_route(folder: Path) -> None:
    tree = Tree(folder)
    tree.device("eth0")


add(
    "the agent's routes",
    verb("verify", "--plan", json.dumps(plan(rule("nic", "auto", optional=True)))),
    text_like([_ROUTES, _ROUTES.replace("\t", " ")]),
    _ROUTES,
    file="proc/net/route",
    around=_by_route,
)
_POD = "pod:00000000-0000-0000-0000-000000000001"
_CGROUP = f"0::/kubepods.slice/kubepods-pod{_POD[4:].replace('-', '_')}.slice/x\n"
add(
    "the agent's cgroups",
    verb("verify", "--plan", json.dumps(plan(rule("pod", "eth0", namespace=_POD, optional=True)))),
    text_like([_CGROUP]),
    _CGROUP,
    file="proc/7/cgroup",
    around=node,
)
add(
    "the agent's watch file",
    lambda folder: steer.standing_watch(steer.Store(folder / "run/steerlab", ""), OWNER),
    text_like(["1 23"]),
    "1 23",
    errors=(steer.SteerError, OSError),
    file="run/steerlab/mine%2Fserver.watch",
)
_MOUNTS = "25 1 0:22 / /proc rw - proc proc rw\n26 1 0:4 net:[4026531840] /run/netns/x rw - nsfs nsfs rw\n"


def _mounts(folder: Path) -> object:
    lines = steer.lines_of(folder / "mountinfo", " - nsfs ", time.monotonic() + 60)
    return steer.namespace_mounts(lines)


add(
    "the agent's mounts",
    _mounts,
    text_like([_MOUNTS]),
    _MOUNTS,
    file="mountinfo",
    plain=True,
)


def _start_time(folder: Path) -> object:
    with patch.object(processes, "read_text", lambda _: read_text(folder / "stat")):
        return steer.start_time(1)


read_text = steer.read_text
_STAT = f"1 (a b) S {' '.join(str(n) for n in range(50))}\n"
add(
    "the agent's process",
    _start_time,
    text_like([_STAT]),
    _STAT,
    errors=(OSError,),
    file="stat",
    plain=True,
)

_SCHEDULE = document("baseline", "rps", plans={name: PLANS[name] for name in ("baseline", "rps")})
add(
    "schedule of an episode",
    lambda folder: steer.Driver().schedule(f"@{folder / 'schedule'}"),
    json_like(_SCHEDULE),
    json.dumps(_SCHEDULE),
    errors=(steer.SteerError,),
    file="schedule",
    plain=True,
)


def _line(data: bytes) -> object:
    """A schedule on a line of stdin."""
    stdin = os.memfd_create("stdin")
    try:
        os.write(stdin, data)
        os.lseek(stdin, 0, os.SEEK_SET)
        return steer.Driver(stdin).schedule(None)
    finally:
        os.close(stdin)


add(
    "schedule of an episode, on stdin",
    _line,
    json_like(_SCHEDULE),
    json.dumps(_SCHEDULE),
    errors=(steer.SteerError,),
)
_CONNECTION = steer.Connection(7, 1, 5, 2, bytes(48))
add(
    "the agent's connections",
    lambda data: steer.total(steer.Reading(0, [b"rchar: 1\n"], [data], ""), [_CONNECTION]),
    text_like([answer(7, 5).decode("latin-1")]),
    answer(7, 5),
    errors=(ValueError, OSError),
)
add(
    "the agent's absent connections",
    lambda data: steer.connections([data]),
    text_like([absent().decode("latin-1")]),
    absent(),
    errors=(OSError,),
)


def _populated(folder: Path) -> None:
    populate(Tree(folder))


def _episode(folder: Path) -> object:
    tree = object.__new__(Tree)
    tree.root = folder
    with patch.object(steer.os, "sched_setscheduler", lambda *_: None):
        return json.dumps(episode(tree, document("rps")))


_KEPT = {"rollout": "one", "plan": _SMALL, "until": 5.0, "before": ["two", _SMALL]}
_LOGGED = {"n": 7, "who": "me", "node": "n1", "rollout": "one", "step": "keep"}
for _file, _read in (("rollout.kept", _KEPT), ("audit.jsonl", _LOGGED)):
    add(
        f"the agent's {_file}",
        verb("rollout", "status"),
        json_like(_read),
        json.dumps(_read),
        file=f"var/lib/steerlab/{_file}",
        around=node,
    )


for _file, _text in (
    ("proc/71/io", "rchar: 1000\nwchar: 5\n"),
    ("proc/stat", "cpu  1 2\ncpu0 1 2\nintr 5\n"),
    ("proc/softirqs", "  CPU0\n  NET_RX: 5\n"),
    ("proc/net/softnet_stat", "00000001 00000002\n"),
):
    add(
        f"an episode's {_file.rpartition('/')[2]}",
        _episode,
        text_like([_text]),
        _text,
        errors=(steer.SteerError,),
        file=_file,
        around=_populated,
        plain=True,
        few=30,
    )
    add(
        f"what the agent observes in {_file.rpartition('/')[2]}",
        verb("observe", "--seconds", "0", "--plan", json.dumps(PLANS["baseline"])),
        text_like([_text]),
        _text,
        file=_file,
        around=_populated,
        plain=True,
    )
