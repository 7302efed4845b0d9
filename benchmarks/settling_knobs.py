"""How long a change of each switchable knob has an effect on goodput, by kind of change.

    .venv/bin/python -m benchmarks.settling_knobs > benchmarks/settling_knobs.json        (root, 5 minutes)

A number after it is that of the episodes on each form of the lab. `benchmarks.settling` measures steering and GRO
alone, with more episodes, from and to the baseline. Here an episode has one window of each configuration, those of one
kind after each other in random order, and the agent reads goodput every 10 ms. A change belongs to the slowest kind
among the knobs that differ.

Goodput of the window of SPAN seconds after each settle time is compared with the late level of the same window (the mean
from 0.45 s on), as a difference of logarithms. `offset` is what all changes of a kind have in common, such as a dip after
each write, and `left` the share of the effect that is left: the slope over the effects, which are known from the other
windows of both configurations. Both have 95 % intervals over resampled changes. `left` is null for kinds without an
effect. `needs` is the shortest settle time from which on `offset` is within NEAR and `left` below SHARE, with intervals within
NEAR and 2 SHARE; null if there is none. `spread` is the standard deviation of the effects.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from benchmarks import machine, show, switching
from benchmarks.settling import LATE, STEP, WINDOW, courses, episode, interval
from experiments.run import episodes
from infra.configurations import Configuration
from infra.settings import Form

PAIRS, EPISODES, SEED = 4, 8, 20261129
SPAN, NEAR, SHARE, RESAMPLED = 0.3, 0.03, 0.05, 1000
SEEN = 0.1  # the least spread of effects from which `left` is known
TIMES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # candidates of a settle time, in seconds

# The kinds of change and their knobs, the fastest first.
KINDS: Mapping[str, tuple[str, ...]] = {
    "machine": (
        "netdev_budget", "netdev_budget_usecs", "dev_weight", "dev_weight_rx_bias", "netdev_max_backlog",
        "gro_normal_batch", "netdev_tstamp_prequeue", "skb_defer_max", "flow_limit_table_len",
        "flow_limit_cpu_bitmap",
    ),
    "offloads": ("tx-checksum-ip-generic", "tso", "gso", "tx-udp_tnl-segmentation"),
    "steering": ("rps_cpus", "rps_flow_cnt", "rps_sock_flow_entries"),
    "gro": ("gro", "rx-gro-list", "rx-udp-gro-forwarding"),
    "napi": ("threaded", "napi_defer_hard_irqs", "gro_flush_timeout"),
}  # fmt: skip
_ENTRIES = 32768
_MERGING = {"gro": "on"}


def known(form: Form) -> dict[str, Configuration]:
    """What is switched on this form of the lab, whose overlay has GRO only where it is stock."""
    node = ("nic", "overlay", "veth")
    documents: dict[str, dict[str, Any]] = {
        "baseline": {},
        "budget": {"machine": {"netdev_budget": 600}},
        "budget-usecs": {"machine": {"netdev_budget_usecs": 16000}},
        "weight": {"machine": {"dev_weight": 128}},
        "rx-bias": {"machine": {"dev_weight_rx_bias": 2}},
        "backlog": {"machine": {"netdev_max_backlog": 10000}},
        "gro-batch": {"machine": {"gro_normal_batch": 32}},
        "no-prequeue": {"machine": {"netdev_tstamp_prequeue": "off"}},
        "no-defer": {"machine": {"skb_defer_max": 0}},
        "flow-limit": {"machine": {"flow_limit_table_len": 8192, "flow_limit_cpu_bitmap": "all"}},
        "checksum": {"overlay": {"tx-checksum-ip-generic": "off"}},
        "tso": {"veth": {"tso": "off"}},
        "gso": {"veth": {"tso": "off", "gso": "off"}},
        "tunnel": {"nic": {"tx-udp_tnl-segmentation": "off" if form == "stock" else "on"}},
        "rps": {role: {"rps_cpus": "all"} for role in node},
        "rfs": {
            **{role: {"rps_flow_cnt": _ENTRIES} for role in node},
            "machine": {"rps_sock_flow_entries": _ENTRIES},
        },
        "gro-nic": {"nic": _MERGING},
        "gro-overlay": {"overlay": {"gro": "off" if form == "stock" else "on"}},
        "gro-list": {"overlay": {**_MERGING, "rx-gro-list": "on"}},
        "gro-udp": {"nic": {**_MERGING, "rx-udp-gro-forwarding": "on"}},
        "threaded": {"nic": {**_MERGING, "threaded": "on"}},
        "deferred": {"nic": {**_MERGING, "napi_defer_hard_irqs": 2, "gro_flush_timeout": 20000}},
    }
    return {
        name: Configuration.model_validate({"name": name, **document})
        for name, document in documents.items()
    }


class Change(NamedTuple):
    """One change between two configurations: goodput after it by step, in Gbit/s."""

    kind: str
    names: tuple[str, str]
    effect: float  # the logarithm of the level before it over that after it, from other windows
    rates: np.ndarray


def main(asked: Sequence[str]) -> None:
    """Measure and print the figures."""
    count = int(asked[0]) if asked else EPISODES
    found: list[Change] = []
    levels, invalid = {}, 0
    for form in get_args(Form):
        answers = measured(form, count)
        levels[form] = {
            name: round(float(np.median(rows)), 2) for name, rows in late_levels(answers).items()
        }
        invalid += sum(bool(window["spoiled"]) for one in answers for window in one["windows"])
        found += changes(answers, known(form))
    show(
        {
            "machine": machine(),
            "pairs": PAIRS,
            "figure": f"{count} episodes on each form of the lab, windows of {WINDOW} s",
            "invalid_windows": invalid,
            "gbps": levels,
            "kinds": {
                kind: described([one for one in found if one.kind == kind]) for kind in KINDS
            },
        }
    )


def measured(form: Form, count: int) -> list[dict[str, Any]]:
    """The agent's answers."""
    draw = random.Random(SEED)  # noqa: S311
    settings = known(form)
    kinds = {
        kind: [name for name in settings if kind_of(settings, "baseline", name) == kind]
        for kind in KINDS
    }
    answers = []
    with switching.lab(f"settling-{form}", PAIRS, **{"lab.form": form}) as state:
        for _ in range(count):
            order = [
                name
                for kind in draw.sample([*kinds], len(kinds))
                for name in draw.sample(kinds[kind], len(kinds[kind]))
            ]
            answers.append(episode(state, order, settings))
    return answers


def kind_of(settings: Mapping[str, Configuration], one: str, other: str) -> str:
    """The slowest kind among the knobs in which two configurations differ (pure)."""
    names = {knob.name for knob in episodes.differing([settings[one], settings[other]])}
    kinds = [kind for kind, knobs in KINDS.items() if names & set(knobs)]
    return kinds[-1] if kinds else next(iter(KINDS))


def changes(
    answers: Sequence[Mapping[str, Any]], settings: Mapping[str, Configuration]
) -> list[Change]:
    """All changes between two valid windows of one form of the lab (pure)."""
    levels = late_levels(answers)
    found = []
    for answer in answers:
        before, level = "", 0.0
        for window, rates in zip(answer["windows"], courses(answer), strict=True):
            after = "" if window["spoiled"] else window["plan"]
            if before and after and min(len(levels[before]), len(levels[after])) > 1:
                effect = np.log(
                    without(levels[before], level) / without(levels[after], late(rates))
                )
                kind = kind_of(settings, before, after)
                found.append(Change(kind, (before, after), float(effect), rates))
            before, level = after, late(rates)
    return found


def late_levels(answers: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The late levels of the valid windows of each configuration, Gbit/s of all pairs (pure)."""
    found: dict[str, list[float]] = {}
    for answer in answers:
        for window, rates in zip(answer["windows"], courses(answer), strict=True):
            if not window["spoiled"]:
                found.setdefault(window["plan"], []).append(late(rates))
    return dict(sorted(found.items()))


def without(levels: Sequence[float], one: float) -> float:
    """The mean of all others (pure)."""
    return (sum(levels) - one) / (len(levels) - 1)


def late(rates: np.ndarray) -> float:
    return float(rates[round(LATE / STEP) :].mean())


def described(changes: Sequence[Change]) -> dict[str, Any]:
    """Figures of the changes of one kind (pure)."""
    rates = np.array([one.rates for one in changes])
    effects = np.array([one.effect for one in changes])
    draw = np.random.default_rng(SEED)
    picks = [draw.integers(0, len(rates), len(rates)) for _ in range(RESAMPLED)]
    spread = float(effects.std())
    offset: dict[float, list[float]] = {}
    left: dict[float, list[float]] = {}
    for time in TIMES:
        early = rates[:, round(time / STEP) : round((time + SPAN) / STEP)].mean(axis=1)
        logs = np.log(early / rates[:, round(LATE / STEP) :].mean(axis=1))
        rows = [fitted(effects[pick], logs[pick]) for pick in picks]
        for figure, number in ((offset, 0), (left, 1)):
            own = fitted(effects, logs)[number]
            figure[time] = [round(own, 3), *interval([row[number] for row in rows], 3)]
    mean = (rates / rates[:, round(LATE / STEP) :].mean(axis=1, keepdims=True)).mean(axis=0)
    return {
        "changes": len(changes),
        "spread": round(spread, 3),
        "offset": {f"{time:g}": row for time, row in offset.items()},
        "left": {f"{time:g}": row for time, row in left.items()} if spread > SEEN else None,
        "needs": needed(offset, left if spread > SEEN else {}),
        "course": " ".join(f"{100 * one:.1f}" for one in mean),
    }


def fitted(effects: np.ndarray, logs: np.ndarray) -> tuple[float, float]:
    """Offset at no effect, and slope (pure)."""
    slope, offset = np.polyfit(effects, logs, 1)
    return float(offset), float(slope)


def needed(
    offset: Mapping[float, Sequence[float]], left: Mapping[float, Sequence[float]]
) -> float | None:
    """The shortest settle time from which on all is near enough (pure)."""
    found = None
    for time in sorted(offset, reverse=True):
        share = left.get(time, (0.0, 0.0, 0.0))
        if max(map(abs, offset[time])) > NEAR or share[0] > SHARE or share[2] > 2 * SHARE:
            break
        found = time
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
