"""Switching under live connections: what a switch takes, how late, at what cost, how exact its goodput.

    .venv/bin/python benchmarks/switching.py > benchmarks/switching.json   (root, 4 minutes)

A lab of the study's form for each number of pairs, iperf3 at full speed under CUBIC, all configurations
once in each episode. Goodput of windows of 0.3 s against `tcpi_bytes_received` of the same sockets,
which waits for the socket's lock, with GRO of the server's eth1 and overlay off and on.
"""

from __future__ import annotations

import json
import random
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent import sockdiag  # noqa: E402
from agent.goodput import Receiver, receiver, total  # noqa: E402
from agent.machine import Machine  # noqa: E402
from agent.procstat import punctual  # noqa: E402
from experiments.engines import stacks  # noqa: E402
from experiments.engines.embedded import Embedded  # noqa: E402
from experiments.host import lock  # noqa: E402
from experiments.run.episodes import EVERY_S  # noqa: E402
from infra import configurations  # noqa: E402
from infra.configurations import Configuration  # noqa: E402
from infra.lab import layout  # noqa: E402
from infra.lab.plan import node_plan  # noqa: E402
from infra.settings import StackSettings  # noqa: E402

NAMES = ("baseline", "rps", "rfs", "rps-plus", "rfs-plus", "pipeline")
EPISODES, SETTLE, WINDOW, STEADY, SEED = 12, 0.1, 0.3, 0.7, 7
ACCURACY_WINDOWS = 60
AT_ONCE = 0.0002  # seconds


def built_in() -> dict[str, Configuration]:
    known = configurations.load()
    return {name: known[name] for name in NAMES}


def plans(state: StackSettings, known: Mapping[str, Configuration] | None = None) -> dict[str, Any]:
    """The plan of the server's node for each configuration."""
    server, _ = layout.nodes(state.stack)
    return {
        name: node_plan(state.model_copy(update={"steering": one}), server)
        for name, one in (known or built_in()).items()
    }


def document(
    state: StackSettings,
    order: Sequence[str],
    receivers: Sequence[int],
    known: Mapping[str, Configuration] | None = None,
    **changes: float,
) -> dict[str, Any]:
    """The schedule of an episode with one window for each name of `order`."""
    times = {"settle": SETTLE, "seconds": WINDOW, "steady": STEADY, "between": 0.05, **changes}
    step = times["settle"] + times["seconds"] + times["between"]
    return {
        "version": 1,
        "plans": plans(state, known),
        "windows": [
            {
                "plan": name,
                "at": round(times["steady"] + index * step, 3),
                "settle": times["settle"],
                "seconds": times["seconds"],
            }
            for index, name in enumerate(order)
        ],
        "receivers": list(receivers),
        "lease_seconds": 900,
        "connections": 2,  # data and control
        "every": changes.get("every", EVERY_S),
    }


@contextmanager
def lab(name: str, pairs: int, **more: str) -> Iterator[StackSettings]:
    """A lab with the baseline, as long as the block runs."""
    values = {"configuration": "baseline", "replicas": str(pairs), "runs": "0", **more}
    with TemporaryDirectory(prefix="steerlab-") as home, lock.machine(f"benchmark {name}"):
        stack, state = stacks.own(Path(home), name, values)
        engine = Embedded()
        engine.up(stack)
        try:
            yield state
        finally:
            engine.destroy(stack)


def servers(state: StackSettings) -> list[int]:
    """The pids of the iperf3 servers."""
    pairs = [layout.pair(state.stack, index + 1, host=False) for index in range(state.replicas)]
    return [int(Path(pair.pidfile).read_text().split()[0]) for pair in pairs]


@contextmanager
def traffic(state: StackSettings, seconds: float, *more: str) -> Iterator[list[Any]]:
    """An iperf3 client for each pair, on the client's cores."""
    cores = ",".join(map(str, state.cores.client))
    clients = []
    for index in range(state.replicas):
        pair = layout.pair(state.stack, index + 1, host=False)
        words = ["iperf3", "--json", "-C", "cubic", "-t", str(int(seconds) + 1), *more]
        words += ["-c", str(pair.address), "-p", str(pair.port)]
        clients.append(
            subprocess.Popen(
                ["ip", "netns", "exec", pair.client_namespace, "taskset", "-c", cores, *words],
                stdout=subprocess.PIPE,
            )
        )
    try:
        await_connections(state)
        yield clients
    finally:
        for client in clients:
            client.terminate()
            client.communicate()


def await_connections(state: StackSettings) -> None:
    """Return once each server has its control and its data connection."""
    end = time.monotonic() + 20
    with ExitStack() as stack, Machine() as machine:
        for one in [receiver(machine, pid, stack) for pid in servers(state)]:
            while len(one.connections) < 2:
                if time.monotonic() > end:
                    raise RuntimeError(f"{one.name} has no connection")
                time.sleep(0.02)
                one.connect(machine)


@contextmanager
def agent(schedule: Mapping[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """The agent's `switchback`, ready to start."""
    with subprocess.Popen(
        [sys.executable, "-I", str(ROOT / "agent"), "switchback"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if not process.stdin or not process.stdout:
            raise RuntimeError("the agent has no pipes")
        process.stdin.write(json.dumps(schedule) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the agent is not ready: exit status {process.wait()}")
        yield process


def episode(
    state: StackSettings,
    order: Sequence[str],
    known: Mapping[str, Configuration] | None = None,
    **changes: float,
) -> dict[str, Any]:
    """The agent's answer."""
    schedule = document(state, order, servers(state), known, **changes)
    last = schedule["windows"][-1]
    end = last["at"] + last["settle"] + last["seconds"]
    with agent(schedule) as process, traffic(state, end + 2):
        return answered(process)


def answered(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The answer of an agent that is ready; its stdin stays open."""
    if not process.stdin or not process.stdout:
        raise RuntimeError("the agent has no pipes")
    process.stdin.write("start\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.read())
    return answer


def switching(state: StackSettings) -> dict[str, Any]:
    """Switch times, lateness and the agent's CPU time, over episodes in random order."""
    draw = random.Random(SEED)  # noqa: S311
    answers = [episode(state, draw.sample(NAMES, len(NAMES))) for _ in range(EPISODES)]
    windows = [window for answer in answers for window in answer["windows"]]
    times = np.array([window["switch_seconds"] for window in windows]) * 1e3
    late = np.array([late for window in windows for late in window["late"]]) * 1e3
    shares = []
    for answer in answers:
        first, last = answer["windows"][0]["edges"][0], answer["windows"][-1]["edges"][1]
        shares.append((last["own_cpu"] - first["own_cpu"]) / (last["at"] - first["at"]))
    spoiled = [reason for window in windows for reason in window["spoiled"]]
    return {
        "windows": len(windows),
        "writes": round(statistics.mean(window["writes"] for window in windows), 1),
        "fifo": all(answer["fifo"] for answer in answers),
        "switch_ms": spread(times),
        "late_ms": spread(late),
        "agent_share_of_a_core": round(float(np.median(shares)), 4),
        "spoiled": len(spoiled),
        "reasons": sorted({reason["message"] for reason in spoiled})[:5],
        "gbps": {name: round(rate(windows, name), 2) for name in NAMES},
    }


def rate(windows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Gbit/s of all pairs, the median over a configuration's windows."""
    rates = [
        sum(one["bytes"] / one["seconds"] for one in window["received"]) * 8e-9
        for window in windows
        if window["plan"] == name and all(window["received"])
    ]
    return statistics.median(rates) if rates else float("nan")


def spread(values: np.ndarray) -> dict[str, float]:
    names = {"median": 50, "p99": 99, "most": 100}
    return {name: round(float(np.percentile(values, share)), 3) for name, share in names.items()}


class Both(NamedTuple):
    """Bytes of a receiver by the agent and by tcp_info, and what each took in seconds."""

    ours: int
    theirs: int
    ours_took: float
    theirs_took: float


def accuracy(state: StackSettings) -> dict[str, Any]:
    """Ratio of the agent's goodput to that by tcp_info, window by window and pair by pair.

    The kernel answers for tcp_info after it has waited for the socket's lock, and bytes arrive meanwhile:
    both speak of the same window only where it answered at once.
    """
    rows: list[tuple[Both, Both]] = []
    with ExitStack() as stack, Machine() as machine:
        ours = [receiver(machine, pid, stack) for pid in servers(state)]
        diags = [machine.sock_diag(pid) for pid in servers(state)]
        stack.enter_context(traffic(state, ACCURACY_WINDOWS * WINDOW + 5))
        time.sleep(STEADY)
        for one in ours:
            one.connect(machine)
        stack.enter_context(punctual())
        before = edges(ours, diags)
        for _ in range(ACCURACY_WINDOWS):
            time.sleep(WINDOW)
            after = edges(ours, diags)
            rows += zip(before, after, strict=True)
            before = after
    at_once = [(old, new) for old, new in rows if max(old.theirs_took, new.theirs_took) < AT_ONCE]
    return {
        "at_once": agreement(at_once),
        "all": agreement(rows),
        "read_ms": spread(np.array([new.ours_took for _, new in rows]) * 1e3),
        "tcp_info_ms": spread(np.array([new.theirs_took for _, new in rows]) * 1e3),
    }


def agreement(rows: Sequence[tuple[Both, Both]]) -> dict[str, float]:
    """Mean and spread of the ratio of bytes, over windows of single pairs."""
    logs = np.log([(new.ours - old.ours) / (new.theirs - old.theirs) for old, new in rows])
    return {
        "windows": len(rows),
        "ratio": round(float(np.exp(logs.mean())), 5),
        "standard_deviation": round(float(logs.std(ddof=1)), 5),
        "within_1_percent": round(float((np.abs(logs) < 0.01).mean()), 3),
    }


def edges(receivers: Sequence[Receiver], diags: Sequence[sockdiag.SockDiag]) -> list[Both]:
    found = []
    for one, diag in zip(receivers, diags, strict=True):
        reading = one.read()
        between = time.monotonic()
        truth = sum(bytes_received(diag, connection) for connection in one.connections)
        end = time.monotonic()
        size = total(reading, one.connections)
        found.append(Both(size, truth, between - reading.at, end - between))
    return found


def bytes_received(diag: sockdiag.SockDiag, connection: sockdiag.Connection) -> int:
    """tcpi_bytes_received of a socket."""
    head = struct.pack("=BBBxI", connection.family, socket.IPPROTO_TCP, 1 << 1, 0xFFF)
    body = head + connection.identity
    (answer,) = diag.look_up(sockdiag.framed(sockdiag.BY_FAMILY, body))
    return sockdiag.bytes_of(answer)[connection.identity]


def with_gro(state: StackSettings, word: str) -> dict[str, Any]:
    """Accuracy with GRO of the server's eth1 and overlay on or off."""
    server, _ = layout.nodes(state.stack)
    for device in (layout.WIRE, layout.OVERLAY):
        enter = ["ip", "netns", "exec", server.namespace, "ethtool", "-K", device, "gro", word]
        subprocess.run(enter, check=True, stdout=subprocess.DEVNULL)
    return accuracy(state)


def main() -> None:
    """Measure and print the figures."""
    figures: dict[str, Any] = {
        "figure": f"{EPISODES} episodes of {len(NAMES)} windows of {WINDOW} s after {SETTLE} s"
    }
    for pairs in (4, 16):
        with lab(f"switching-{pairs}", pairs) as state:
            row = figures[f"{pairs} pairs"] = switching(state)
            if pairs == 4:
                row["goodput"] = {f"gro {w}": with_gro(state, w) for w in ("off", "on")}
    print(json.dumps(figures, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
