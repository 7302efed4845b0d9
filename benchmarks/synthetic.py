"""Synthetic sweeps with a known truth, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from analysis.metrics import described
from analysis.schema import Core, Machine, Pair, Record

METRIC_WORDS = described(["bitrate_mbps", "retransmits"])
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


def valued(pair: Pair, **values: float | None) -> Pair:
    """The same pair with other values."""
    return pair.model_copy(update={"values": {**pair.values, **values}})
