"""Noise of runs and episodes, fitted or measured, and sweeps with it and with known effects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis import evidence
from analysis.evidence import Evidence
from analysis.pairing import Series, StateKey
from analysis.statistics import Floats

Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]

RUN_SPREAD = 0.06
BLOCK_SPREAD = 0.10
RHO = 0.7


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.normal(0, RUN_SPREAD, shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """A long tail of slow runs: skewness -1.4 on the logarithms, mean zero."""
    return RUN_SPREAD * dips(rng, shape)


def one_sided(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """The same with a calm baseline (0 on axis -2): ratios to it have skewness -1.2."""
    logs = skewed(rng, shape)
    logs[..., 0, :] *= 0.3
    return logs


def dips(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return math.sqrt(2) - rng.gamma(2.0, 1 / math.sqrt(2), shape)


def two_states(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """One of five is in the slow state: skewness -1.1."""
    state = (0.2 - (rng.random(shape) < 0.2)) / 0.4
    return 0.9 * state + math.sqrt(1 - 0.9**2) * rng.normal(size=shape)


class Spread(NamedTuple):
    """Standard deviations of a configuration's logarithms, and the shape of its windows' noise.

    `episode` is its interaction with the connections of an episode, half of its variance shared
    by configurations of one `family`; `window` is the noise of a window.
    """

    family: str
    episode: float
    window: float
    shape: Noise


# Fitted to live switching on the lab (2 cores, 4 pairs): paired differences from the baseline
# have standard deviations of 0.13 to 0.23. The first window of an episode is lower.
LAB = {
    "baseline": Spread("baseline", 0.055, 0.11, two_states),
    "rps": Spread("rps", 0.10, 0.16, dips),
    "rfs": Spread("rfs", 0.045, 0.075, dips),
    "rps-plus": Spread("rps", 0.10, 0.16, dips),
    "rfs-plus": Spread("rfs", 0.045, 0.075, dips),
    "pipeline": Spread("pipeline", 0.055, 0.11, two_states),
    "GRO": Spread("GRO", 0.012, 0.028, dips),
}
SWEEPS = json.loads(Path(__file__).with_name("episodes.json").read_text())["sweeps"]
MEASURED = len(SWEEPS[0]["mbps"])
FIRST_WINDOW = 0.045
SLOW_CHANGES = 0.02


def lab(rng: np.random.Generator, shape: tuple[int, ...], windows: int = 1) -> Floats:
    """Noise of switchback on the lab for configurations (axis -2) in the order of `LAB`.

    The last axis has the `windows` of each episode, one episode after the other. What all
    configurations of an episode share cancels in ratios and is left out.
    """
    *places, configurations, length = shape
    episodes = (*places, length // windows)
    logs = rng.normal(0, SLOW_CHANGES, shape)
    first = rng.integers(configurations, size=episodes)
    numbers = np.arange(configurations)[:, None]
    logs[..., ::windows] -= FIRST_WINDOW * (first[..., None, :] == numbers)
    families = {one.family: rng.normal(size=episodes) for one in LAB.values()}
    for number, one in enumerate([*LAB.values()][:configurations]):
        own = (families[one.family] + rng.normal(size=episodes)) / math.sqrt(2)
        logs[..., number, :] += one.episode * np.repeat(own, windows, axis=-1)
        logs[..., number, :] += one.window * one.shape(rng, (*places, length))
    return logs


def measured(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Episodes that were measured on the lab, drawn with replacement from one sweep.

    Six configurations at one place; without their effects.
    """
    table = np.log([*rng.choice(SWEEPS)["mbps"].values()])
    noise = table - table.mean(axis=-1, keepdims=True)
    drawn = rng.integers(table.shape[-1], size=shape[-1])
    return np.asarray(noise[: shape[-2], drawn].reshape(shape))


def collapsing(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Noise of the lab, and one window of fifty has a tenth of the bitrate, but not of the baseline."""
    logs = lab(rng, shape)
    logs[..., 1:, :] += math.log(0.1) * ((rng.random(shape) < 0.02) - 0.02)[..., 1:, :]
    return logs


def wandering(rng: np.random.Generator, shape: tuple[int, ...], rho: float = RHO) -> Floats:
    """Noise whose neighbours along the last axis (the blocks) are correlated."""
    steps = rng.normal(0, RUN_SPREAD, shape)
    values = np.empty(shape)
    values[..., 0] = steps[..., 0]
    for block in range(1, shape[-1]):
        values[..., block] = (
            rho * values[..., block - 1] + math.sqrt(1 - rho**2) * steps[..., block]
        )
    return values


def sweep(
    rng: np.random.Generator,
    *,
    configurations: int,
    counts: int = 1,
    blocks: int = 10,
    effects: Mapping[tuple[int, int], float] | None = None,
    noise: Noise = normal,
    drift: Noise = normal,
    occasion: float = 0.0,
) -> Evidence:
    """A sweep in random blocks: level of the occasion, of the block and count, and run noise.

    Configuration 0 is the baseline. `effects` are logarithms by (count, configuration); `drift`
    makes what all configurations of a block and count share.
    """
    level = math.log(1000) + occasion
    logs = level + BLOCK_SPREAD / RUN_SPREAD * drift(rng, (counts, 1, blocks))
    logs = logs + noise(rng, (counts, configurations, blocks))
    for place, effect in (effects or {}).items():
        logs[place] += effect
    labels = tuple(("plan", 0, block) for block in range(blocks))
    series: dict[StateKey, Series] = {
        ("overlay", count + 1, name_of(number)): Series(
            np.exp(logs[count, number]), labels, tuple(map(float, range(blocks)))
        )
        for count in range(counts)
        for number in range(configurations)
    }
    return Evidence(series, {key: {} for key in series}, evidence.check(series, labels))


def name_of(number: int) -> str:
    return f"c{number}" if number else "baseline"
