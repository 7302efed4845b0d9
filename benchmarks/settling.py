"""How long a change of the steering has an effect on goodput, for each kind of change.

    .venv/bin/python -m benchmarks.settling > benchmarks/settling.json        (root, 17 minutes)

Words after it are numbers of pairs (4, 16). In each episode every configuration has a window after and before
a window of the baseline, and the agent reads goodput every 10 ms. `course` is the mean goodput over the
episodes in percent of the late level (the mean from 0.45 s on), in steps of 10 ms after the first write.

`settled_ms` is the first moment from which on no mean over 100 ms differs from the late level by more than
3 %; `interval_ms` has 95 % of it over resampled episodes, whose noise makes it later. `left` is the share of the
effect that is left in the 100 ms after the settle time of the knobs that change (`settle`, agent/knobs.py), and `bias`
the deviation of that goodput from the late level, each with its 95 % interval.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import machine, show, switching
from experiments.run import episodes
from infra.configurations import Configuration
from infra.settings import StackSettings

EPISODES, SEED = 40, 20261127
STEP, WINDOW, LATE, SPAN = 0.01, 0.7, 0.45, 10  # SPAN in steps
NEAR, RESAMPLED = 0.03, 1000
STEADY = 1.0
BASE = "baseline"


class Change(NamedTuple):
    """One kind of change: goodput after it by episode and step, and the late level before it."""

    rates: np.ndarray
    before: np.ndarray


def known() -> dict[str, Configuration]:
    """The baseline, and what is changed into and back from it."""
    built_in = switching.built_in()
    merging = {"gro": "on"}
    return {
        **{name: built_in[name] for name in (BASE, "rps", "rfs", "rps-plus", "pipeline")},
        "gro-nic": Configuration.model_validate({"name": "gro-nic", "nic": merging}),
        "gro-overlay": Configuration.model_validate({"name": "gro-overlay", "overlay": merging}),
    }


def main(asked: list[str]) -> None:
    """Measure and print the figures."""
    found: dict[str, Any] = {
        "machine": machine(),
        "figure": f"{EPISODES} episodes, windows of {WINDOW} s",
    }
    for pairs in map(int, asked or ["4", "16"]):
        found[f"{pairs} pairs"] = figures(measured(pairs))
    show(found)


def measured(pairs: int) -> list[dict[str, Any]]:
    """The agent's answers."""
    draw = random.Random(SEED)  # noqa: S311
    settings = known()
    others = [name for name in settings if name != BASE]
    answers = []
    with switching.lab(f"settling-{pairs}", pairs) as state:
        for _ in range(EPISODES):
            order = [BASE]
            for name in draw.sample(others, len(others)):
                order += [name, BASE]
            answers.append(episode(state, order, settings))
    return answers


def episode(
    state: StackSettings, order: Sequence[str], settings: Mapping[str, Configuration]
) -> dict[str, Any]:
    """The agent's answer for windows of these configurations, one after the other."""
    return switching.episode(
        state, order, settings, every=STEP, steady=STEADY, between=STEP,
        settle=0.1, seconds=WINDOW - STEP - 0.1,
    )  # fmt: skip


def figures(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        f"{a} to {b}": described(change, settle_of(a, b))
        for (a, b), change in sorted(changes(answers).items())
    }


def settle_of(*names: str) -> float:
    """The settle time of a change between two configurations."""
    settings = known()
    return episodes.settle_of([settings[name] for name in names])


def changes(answers: list[dict[str, Any]]) -> dict[tuple[str, str], Change]:
    """All changes between two valid windows, by the configurations before and after (pure)."""
    found: dict[tuple[str, str], list[tuple[np.ndarray, float]]] = {}
    late = round(LATE / STEP)
    for answer in answers:
        level, name = np.nan, ""
        for window, rates in zip(answer["windows"], courses(answer), strict=True):
            if name and not window["spoiled"]:
                found.setdefault((name, window["plan"]), []).append((rates, level))
            level = float(rates[late:].mean())
            name = "" if window["spoiled"] else window["plan"]
    return {
        key: Change(np.array([rates for rates, _ in rows]), np.array([level for _, level in rows]))
        for key, rows in found.items()
    }


def courses(answer: Mapping[str, Any]) -> list[np.ndarray]:
    """Gbit/s of all pairs in each window, by steps after its first write (pure)."""
    trace = [reading for window in answer["windows"] for reading in window["trace"]]
    sizes = [[np.nan if one is None else one for one in reading["bytes"]] for reading in trace]
    at = np.array([reading["at"] for reading in trace])
    received = np.array(sizes, dtype=float).sum(axis=1)
    steps = np.arange(round(WINDOW / STEP)) * STEP
    return [
        np.diff(np.interp(answer["start"] + window["at"] + window["late"][0] + steps, at, received))
        / STEP
        * 8e-9
        for window in answer["windows"]
    ]


def described(change: Change, settle: float) -> dict[str, Any]:
    draw = np.random.default_rng(SEED)
    count = len(change.rates)
    picks = [draw.integers(0, count, count) for _ in range(RESAMPLED)]
    first = round(settle / STEP)
    early = change.rates[:, first : first + SPAN].mean(axis=1)
    late = change.rates[:, round(LATE / STEP) :].mean(axis=1)
    bias = [early[pick].mean() / late[pick].mean() - 1 for pick in picks]
    effect = [change.before[pick].mean() - late[pick].mean() for pick in picks]
    left = [(early[p].mean() - late[p].mean()) / one for p, one in zip(picks, effect, strict=True)]
    mean = change.rates.mean(axis=0) / late.mean()
    return {
        "episodes": count,
        "gbps": [round(float(change.before.mean()), 2), round(float(late.mean()), 2)],
        "settled_ms": settled(change.rates),
        "interval_ms": interval([settled(change.rates[pick]) for pick in picks], 0),
        "settle": settle,
        "left": [round(float(np.median(left)), 3), *interval(left, 3)],
        "bias": [round(float(early.mean() / late.mean() - 1), 3), *interval(bias, 3)],
        "course": " ".join(f"{100 * one:.1f}" for one in mean),
    }


def settled(rates: np.ndarray) -> int:
    """Milliseconds from which on no mean over SPAN steps is further than NEAR from the late level (pure)."""
    mean = rates.mean(axis=0)
    moving = np.convolve(mean, np.ones(SPAN) / SPAN, mode="valid")
    beyond = np.flatnonzero(np.abs(moving / mean[round(LATE / STEP) :].mean() - 1) > NEAR)
    return round((int(beyond[-1]) + 1 if len(beyond) else 0) * STEP * 1000)


def interval(values: list[float] | list[int], digits: int) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [round(float(low), digits), round(float(high), digits)]


if __name__ == "__main__":
    main(sys.argv[1:])
