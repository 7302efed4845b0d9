"""Latency and CPU time per Gbit of six configurations under switchback, beside runs by hand on the same lab.

    .venv/bin/python -m benchmarks.latency > benchmarks/latency.json        (root, 25 minutes)

Words after it are rates of a stream: 300M, 0 for no limit. At each rate a sweep of mixed traffic at 4 pairs takes the
time of two `sweep --quick`; `detectable` is the smallest ratio that it finds. `by_hand` needs no schedule and no window: the
agent applies a configuration, four iperf3 and the client of episodes run for 2.5 s, with as many new connections as an
episode has, because p99 over several connections is not the mean p99 of one. The configurations come in random order in
each round. The value of a run is the geometric mean over windows as long as those of the sweep, which begin after 0.5 s:
p99 of a long time is higher than that of its parts, since some parts are worse. Its ratios and intervals are estimated as those of any sweep, and `agreement` is the ratio of both ratios with
its 90 % interval. `level` is the median over windows or runs. `clients` compares this client, with one connection,
with sockperf, both in turns in the baseline.
"""

from __future__ import annotations

import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from analysis.load import load
from analysis.metrics import METRICS
from analysis.schema import Pair, Record
from analysis.statistics import Effect
from analysis.summary import summarise
from benchmarks import machine, show, switching
from benchmarks.methods import agreed, pooled
from benchmarks.sweep import run
from experiments.host import calls
from experiments.targets import roundtrips
from infra.lab import layout
from infra.settings import StackSettings
from infra.traffic import pingpong
from infra.traffic.contract import QUANTILES, Failure, Values
from infra.traffic.rr import CONNECTIONS, Rr

# Seconds of a window, and episodes: without a limit fewer round trips are in a second, and they vary more.
RATES = {"300M": (0.4, 60), "0": (1.5, 25)}
PAIRS, ROUNDS, CLIENTS, SEED = 4, 12, 16, 20261127
SECONDS, SETTLE = 2, 0.5
LATENCY = ("p50_us", "p99_us", "p999_us")
EVERY = (*LATENCY, "cpu_s_per_gbit", "bitrate_mbps")


class Window(NamedTuple):
    """Of a run of sockperf."""

    duration: int = SECONDS
    omit: int = 0
    streams: int = 1


def main(asked: list[str]) -> None:
    """Measure and print the figures."""
    found: dict[str, Any] = {"machine": machine()}
    for rate in asked or RATES:
        seconds, episodes = RATES[rate]
        wall, records = switchback(rate, seconds, episodes)
        with switching.lab("latency", PAIRS, traffic="mixed") as state:
            hand = by_hand(state, rate, seconds)
            clients = both_clients(state, rate)
        found[f"{rate} a stream"] = {
            "wall_s": round(wall, 1),
            "window_s": seconds,
            "episodes": episodes,
            "invalid": sum(not record.valid for record in records),
            "switchback": {name: figures(records, name) for name in EVERY},
            "by_hand": {name: figures(hand, name) for name in LATENCY},
            "agreement": {name: agreements(records, hand, name) for name in LATENCY},
            "clients": {name: figures(clients, name) for name in LATENCY},
        }
    show(found)


def switchback(rate: str, seconds: float, episodes: int) -> tuple[float, list[Record]]:
    """The wall time of a sweep, and its records."""
    with TemporaryDirectory(prefix="steerlab-") as folder:
        out = Path(folder) / "out"
        wall, _ = run(
            out, "--method", "switchback", "--traffic", f"mixed:congestion=cubic,rate={rate}",
            "--configurations", ",".join(switching.NAMES), "--replicas", str(PAIRS),
            "--window", str(seconds), "--runs", str(episodes), "--seed", str(SEED),
        )  # fmt: skip
        return wall, load(out).records


def by_hand(state: StackSettings, rate: str, seconds: float) -> list[Record]:
    """A record of each run."""
    draw = random.Random(SEED)  # noqa: S311
    plans = switching.plans(state)
    found = []
    for block in range(ROUNDS):
        for name in draw.sample(switching.NAMES, len(switching.NAMES)):
            calls.call("apply", plan=plans[name])
            with switching.traffic(state, SECONDS + 5, "-b", rate):
                found.append(recorded(name, block, of_pingpong(state, CONNECTIONS, seconds)))
    calls.call("apply", plan=plans["baseline"])
    return found


def both_clients(state: StackSettings, rate: str) -> list[Record]:
    """Both clients in turns, as if they were configurations."""
    clients: dict[str, Callable[[StackSettings], dict[float, float]]] = {
        "baseline": of_sockperf,
        "pingpong": partial(of_pingpong, connections=1, seconds=SECONDS),
    }
    draw = random.Random(SEED)  # noqa: S311
    found = []
    for block in range(CLIENTS):
        for name in draw.sample(sorted(clients), 2):
            with switching.traffic(state, SECONDS + 5, "-b", rate):
                found.append(recorded(name, block, clients[name](state)))
    return found


def of_sockperf(state: StackSettings) -> dict[float, float]:
    """Microseconds by fraction."""
    pair = layout.pair(state.stack, PAIRS + 1, host=False)
    kind, window = Rr(), Window()
    words = kind.client(str(pair.address), pair.port, window)
    done = subprocess.run([*within(state), *words], capture_output=True, check=False, timeout=30)
    return known(kind.parse(done.stdout, done.stderr, done.returncode, window))


def of_pingpong(state: StackSettings, connections: int, seconds: float) -> dict[float, float]:
    """The same of the client of episodes, as the geometric mean over windows of so many seconds."""
    pair = layout.pair(state.stack, PAIRS + 1, host=False)
    words = ["python3", "-I", pingpong.__file__, str(pair.address), str(pair.port), "tcp", "64"]
    words.append(str(connections))
    with subprocess.Popen([*within(state), *words], stdout=subprocess.PIPE) as client:
        first = time.monotonic() + SETTLE
        time.sleep(SETTLE + SECONDS)
        client.send_signal(signal.SIGTERM)
        trips = roundtrips.read(client.communicate()[0], b"", client.wait())
    probe = roundtrips.Probe(PAIRS + 1, trips)
    starts = [first + number * seconds for number in range(int(SECONDS / seconds))]
    every = [known(probe.within(start, start + seconds)) for start in starts]
    parts = set.intersection(*map(set, every))
    return {part: statistics.geometric_mean(one[part] for one in every) for part in parts}


def known(found: Values | Failure) -> dict[float, float]:
    if isinstance(found, Failure):
        raise RuntimeError(found.text)
    return dict(found.latency)


def within(state: StackSettings) -> list[str]:
    """What runs a command in the client's pod, on the client's cores."""
    pair = layout.pair(state.stack, PAIRS + 1, host=False)
    cores = ",".join(map(str, state.cores.client))
    return ["ip", "netns", "exec", pair.client_namespace, "taskset", "-c", cores]


def recorded(name: str, block: int, quantiles: dict[float, float]) -> Record:
    """A quantile is None where the messages were too few for it."""
    values = {of: quantiles.get(part) for part, of in QUANTILES.items()}
    return Record(
        target="lab", configuration=name, replicas=1, valid=True, block=block, duration=SECONDS,
        traffic="rr", pairs=[Pair(index=1, values=values)],
    )  # fmt: skip


def figures(records: Sequence[Record], name: str) -> dict[str, Any]:
    """By configuration: the level, and the ratio to the baseline."""
    metric = METRICS[name]
    levels: dict[str, list[float]] = {}
    for record in records:
        if record.valid and (value := metric.value(record)) is not None:
            levels.setdefault(record.configuration, []).append(value)
    found: dict[str, Any] = {
        configuration: {"level": round(statistics.median(values), 3), "runs": len(values)}
        for configuration, values in levels.items()
    }
    for configuration, effect in effects(records, name).items():
        found[configuration] |= {
            "ratio": round(effect.estimate or 0, 3),
            "interval_95": [round(effect.low or 0, 3), round(effect.high or 0, 3)],
            "detectable": round(effect.mde or 0, 3),
        }
    return found


def effects(records: Sequence[Record], name: str) -> dict[str, Effect]:
    contrasts = summarise(records, metric=METRICS[name]).contrasts
    return {one.b: one.effect for one in contrasts if one.effect.low}


def agreements(first: Sequence[Record], second: Sequence[Record], name: str) -> dict[str, Any]:
    one, other = effects(first, name), effects(second, name)
    return {
        key: agreed(pooled([one[key]]), pooled([other[key]])) for key in one.keys() & other.keys()
    }


if __name__ == "__main__":
    main(sys.argv[1:])
