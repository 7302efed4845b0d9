"""UDP above capacity: do the kernel's counters agree with iperf3's own, and where are datagrams dropped?

    .venv/bin/python -m benchmarks.udp > benchmarks/udp.json        (root, about 5 minutes)

On the lab with 4 pairs, for datagrams of full and of small size. `whole`: from before the first datagram to after
the last, so that both count the same ones; iperf3 still misses what arrives after its end. `window`: the
measured seconds, as a record has them; there the two windows differ by some milliseconds. Differences are
counters relative to iperf3, of all pairs together. `unaccounted` is the part of the datagrams sent that was
neither delivered nor counted as dropped.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent import procstat as counters
from analysis.metrics import METRICS
from analysis.schema import Datagrams, Softnet
from benchmarks import machine, show
from experiments.engines import stacks
from experiments.engines.embedded import Embedded
from experiments.host import lock, procstat
from experiments.host.procstat import CounterSample
from experiments.run import measure
from experiments.targets.lab import clients
from experiments.targets.lab.backend import LabBackend
from infra.lab import measurement

PAIRS, RUNS, DURATION, OMIT = 4, 5, 5, 1
CONFIGURATIONS = ("baseline", "rps")
TRAFFIC = ("udp:rate=0", "udp:rate=0,size=64")
SHARES = ("loss_percent", "loss_socket_percent", "loss_backlog_percent", "loss_device_percent")
Counts = dict[str, float]


def main() -> None:
    """Measure and print the figures."""
    found: dict[str, Any] = {"machine": machine()}
    with TemporaryDirectory(prefix="steerlab-") as home, lock.machine("benchmark of UDP"):
        engine = Embedded()
        for name in CONFIGURATIONS:
            for traffic in TRAFFIC:
                values = {"configuration": name, "replicas": str(PAIRS), "runs": "0"}
                values |= {"duration": str(DURATION), "omit": str(OMIT), "traffic": traffic}
                stack, state = stacks.own(Path(home), "udp", values)
                engine.up(stack)
                try:
                    what = measurement.of(state)
                    every = _compared([whole(what) for _ in range(RUNS)])
                    found[f"{name}, {traffic}"] = {"whole": every, "window": _window(what)}
                finally:
                    engine.destroy(stack)
    show(found)


def whole(what: measurement.Measurement) -> tuple[Counts, Counts]:
    """One run without omitted seconds: the counters from before it to after it, and iperf3's own."""
    servers = [pid for pair in what.pairs if (pid := LabBackend(what)._server(pair))]
    samples: list[CounterSample] = []
    with ExitStack() as stack:

        def start(_: float, started: Sequence[int]) -> None:
            networks = counters.networks_of([*servers, *started])
            read = counters.Counters(counters.PROC, stack, [*networks.values()]).read
            samples.append(CounterSample.of(read().document()))
            stack.callback(lambda: samples.append(CounterSample.of(read().document())))

        results = clients.run(what.model_copy(update={"omit": 0}), what.pairs, start)
    row = procstat.datagrams(samples[0], samples[1], "lab")
    assert row  # noqa: S101 the servers run
    backlog = procstat.softnet(samples[0], samples[1], "lab")
    return _counted(row, backlog), _iperf3([one.raw for one in results])


def _window(what: measurement.Measurement) -> dict[str, Any]:
    """Records of runs."""
    runs, records = [], []
    for _ in range(RUNS):
        record, raw = measure.run(what)
        if record.datagrams:
            records.append(record)
            runs.append((_counted(record.datagrams[0], record.softnet), _iperf3(raw)))
    shares = {
        name: round(statistics.mean(METRICS[name].value(one) or 0 for one in records), 2)
        for name in SHARES
    }
    return _compared(runs) | {"percent": shares, "valid": sum(one.valid for one in records)}


def _counted(row: Datagrams, backlog: Sequence[Softnet]) -> Counts:
    dropped = sum(one.dropped + one.flow_limit for one in backlog)
    sent = row.sent or 0
    return {
        "sent": sent,
        "delivered": row.delivered,
        "lost": sent - row.delivered,
        "dropped": row.socket_drops + row.other_errors + dropped,
    }


def _iperf3(raw: Sequence[bytes]) -> Counts:
    """What iperf3 has: datagrams that the clients sent, and that the servers received and missed."""
    documents = [json.loads(one) for one in raw]
    sent = sum(one["end"]["sum"]["packets"] for one in documents)
    received = [one["server_output_json"]["end"]["sum_received"] for one in documents]
    lost = sum(one["lost_packets"] for one in received)
    return {
        "sent": sent,
        "delivered": sum(one["packets"] for one in received) - lost,
        "lost": lost,
        "dropped": lost,
    }


def _compared(runs: Sequence[tuple[Counts, Counts]]) -> dict[str, Any]:
    """The mean and the largest difference over the runs, and the mean of the counters."""
    difference = {
        name: [mine[name] / other[name] - 1 for mine, other in runs if other[name]]
        for name in runs[0][0]
    }
    missing = [1 - (mine["delivered"] + mine["dropped"]) / mine["sent"] for mine, _ in runs]
    return {
        "runs": len(runs),
        "counted": {
            name: round(statistics.mean(one[name] for one, _ in runs)) for name in difference
        },
        "difference": {
            name: {
                "mean": round(statistics.mean(found), 4),
                "most": round(_largest(found), 4),
            }
            for name, found in difference.items()
            if found
        },
        "unaccounted": round(statistics.mean(missing), 5),
    }


def _largest(values: list[float]) -> float:
    return max(values, key=abs)


if __name__ == "__main__":
    main()
