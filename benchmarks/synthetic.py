"""Synthetic sweeps with a known truth, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from analysis.metrics import described
from analysis.schema import Core, Machine, Pair, Record, Softnet

METRIC_WORDS = described(["bitrate_mbps", "retransmits"])
# Of `mixed`: means of the baseline, and standard deviations of the logarithm of a run and of what the
# runs of a block share; like those of a lab of two cores under a moderate load.
LEVELS = {
    "p50_us": 45.0, "p99_us": 114.0, "p999_us": 310.0, "cpu_s_per_gbit": 0.62, "softirq": 0.45,
    "retransmits": 12.0, "dropped": 3.0, "squeezed": 40.0,
}  # fmt: skip
SPREADS = {"p50_us": 0.03, "p99_us": 0.1, "p999_us": 0.3, "cpu_s_per_gbit": 0.03}
SHARED = {"p50_us": 0.1, "p99_us": 0.2, "p999_us": 0.4, "cpu_s_per_gbit": 0.03}
QUANTILES = {0.0: 0.6, 0.25: 0.9, 0.5: 1.0, 0.75: 1.2, 0.9: 1.6}
MACHINE = Machine(kernel="6.1.0-synthetic", cpu="synthetic", cores=8)


def sweep(
    ratios: Mapping[str, float],
    *,
    replicas: Sequence[int] = (4,),
    blocks: int = 6,
    base: float = 1000.0,
    spread: float = 0.05,
    block_spread: float = 0.05,
    cores: int = 4,
    paths: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[Record]:
    """Records of `blocks` blocks of every configuration in `ratios` at every replica count.

    A run's bitrate (Mbit/s a pair) is `base` times its configuration's ratio, times a log-normal
    factor of the block (SD `block_spread`) and one of the run (SD `spread`). `paths` maps a path
    to its factor (overlay alone by default). One core of `cores` takes most of the softirq.
    """
    rng = np.random.default_rng(seed)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    records: list[Record] = []
    for block in range(blocks):
        for count in rng.permutation(list(replicas)):
            shared = rng.normal(0, block_spread)
            states = [(name, path) for name in ratios for path in (paths or {"overlay": 1.0})]
            for position in rng.permutation(len(states)):
                name, path = states[position]
                factor = ratios[name] * (paths or {}).get(path, 1.0)
                bitrate = base / int(count) * factor * np.exp(shared + rng.normal(0, spread))
                pairs = bitrate * (1 + 0.1 * (rng.random(int(count)) - 0.5))
                soft = np.clip(rng.normal([80.0, *[20.0] * (cores - 1)], 3.0), 0, 95)
                records.append(
                    Record(
                        target="lab",
                        configuration=name,
                        replicas=int(count),
                        path="host" if path == "host" else "overlay",
                        valid=True,
                        metrics=METRIC_WORDS,
                        pairs=[
                            Pair(index=index, values={"bitrate_mbps": value, "retransmits": 0})
                            for index, value in enumerate(
                                (pairs * bitrate / pairs.mean()).tolist(), 1
                            )
                        ],
                        cores=[
                            Core(node="server", core=core, soft=value, idle=(100 - value) / 2)
                            for core, value in enumerate(soft.tolist())
                        ],
                        block=block,
                        order=len(records),
                        seed=seed,
                        plan="synthetic",
                        start=start + timedelta(seconds=5 * len(records)),
                        duration=5,
                        omit=1,
                        machine=MACHINE,
                    )
                )
    return records


def mixed(
    factors: Mapping[str, Mapping[str, float]],
    *,
    replicas: Sequence[int] = (4,),
    blocks: int = 20,
    cores: int = 2,
    base: float = 1000.0,
    levels: Mapping[str, float] | None = None,
    spreads: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[Record]:
    """Records of streams with a pair of request/response beside them, with counters of the server.

    `factors` map each configuration to its factors on the baseline's means: of `bitrate_mbps`
    (`base` Mbit/s of all pairs together) and of the names in `LEVELS`. `levels` and `spreads`
    replace some of those.
    """
    rng = np.random.default_rng(seed + 1)
    means, deviations = {**LEVELS, **(levels or {})}, {**SPREADS, **(spreads or {})}
    ratios = {name: own.get("bitrate_mbps", 1.0) for name, own in factors.items()}
    shared = {name: rng.normal(0, SHARED.get(name, 0), blocks) for name in means}
    found = []
    for record in sweep(
        ratios, replicas=replicas, blocks=blocks, base=base, cores=cores, seed=seed
    ):
        own = factors[record.configuration]
        value = {
            name: mean
            * own.get(name, 1.0)
            * float(np.exp(shared[name][record.block] + rng.normal(0, deviations.get(name, 0))))
            for name, mean in means.items()
        }
        found.append(_mixed(record, value, rng))
    return found


def _mixed(record: Record, value: Mapping[str, float], rng: np.random.Generator) -> Record:
    """The record with its last pair, its cores and its counters."""
    gbit = sum(pair.values["bitrate_mbps"] or 0 for pair in record.pairs) / 1000
    count = len(record.cores)
    shares = np.array([2.0] + [1.0] * (count - 1)) / (count + 1)
    busy = np.clip(100 * value["cpu_s_per_gbit"] * gbit * shares, 0, 99)
    counts = {
        name: [int(one) for one in rng.poisson(value[name] * gbit * record.duration / count, count)]
        for name in ("dropped", "squeezed")
    }
    streams = [
        valued(pair, retransmits=int(rng.poisson(value["retransmits"]))).model_copy(
            update={"kind": "stream"}
        )
        for pair in record.pairs
    ]
    tail = {0.99: value["p99_us"], 0.999: value["p999_us"], 1.0: 3 * value["p999_us"]}
    body = {fraction: value["p50_us"] * times for fraction, times in QUANTILES.items()}
    requests = Pair(
        index=record.replicas + 1,
        kind="rr",
        values={
            **{name: value[name] for name in ("p50_us", "p99_us", "p999_us")},
            "requests_per_second": 1e6 / (2.2 * value["p50_us"]),
        },
        latency=sorted({**body, **tail}.items()),
    )
    pairs = [*streams, requests]
    return record.model_copy(
        update={
            "traffic": "mixed",
            "pairs": pairs,
            "metrics": described(dict.fromkeys(name for pair in pairs for name in pair.values)),
            "cores": [
                Core(node="server", core=core, side="server", idle=100 - used, soft=used * soft)
                for core, (used, soft) in enumerate(
                    zip(busy.tolist(), [value["softirq"] / 0.62] * count, strict=True)
                )
            ],
            "softnet": [
                Softnet(
                    node="server", core=core, processed=10**6, dropped=dropped, squeezed=squeezed,
                    received_rps=0, flow_limit=0,
                )
                for core, (dropped, squeezed) in enumerate(
                    zip(counts["dropped"], counts["squeezed"], strict=True)
                )
            ],
            "window": record.duration,
        }
    )  # fmt: skip


def write(records: Sequence[Record], directory: Path) -> Path:
    """The results directory of a sweep with these records."""
    (directory / "records").mkdir(parents=True)
    for record in records:
        path = directory / "records" / f"run-{record.order:05d}.json"
        path.write_text(record.model_dump_json())
    return directory


def valued(pair: Pair, **values: float | None) -> Pair:
    """The same pair with other values."""
    return pair.model_copy(update={"values": {**pair.values, **values}})
