"""What `tune` reaches, by simulation: races and confirmations with a known truth, on the noise of the lab.

.venv/bin/python -m benchmarks.race > benchmarks/race.json
.venv/bin/python -m benchmarks.race --docs    # the kept figures into docs/statistics.md

The noise was fitted to live switching of 12 configurations on one lab (2 cores, 4 pairs). The unit
tests run the same functions with fewer races. An episode takes 0.7 s and 0.3 s for each window. The
answer is looked at after every episode, as a user who may press Ctrl-C at any time can.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.race import Costs, Race
from analysis.statistics import Floats
from analysis.tuning import Step, Tuning
from benchmarks import ROOT, show, tables
from benchmarks.noise import FIRST_WINDOW, SLOW_CHANGES, Noise, dips, two_states

KEPT = Path(__file__).with_suffix(".json")
COSTS = Costs(episode=0.7, window=0.3)
RACES = 500
# Part of the races that must have a value for its mean.
LEAST = 0.05
AR = 0.5
EPISODE = 0.06
EPS = math.log1p(0.03)


def rare_dips(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """One of 25 is lower by 3.5: skewness -1."""
    dip = 0.04 - (rng.random(shape) < 0.04)
    return np.asarray(rng.normal(0, 0.73, shape) + 3.5 * dip)


def unit(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.normal(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Student's t with 3 degrees of freedom."""
    return np.asarray(rng.standard_t(3, shape) / math.sqrt(3))


class Kind(NamedTuple):
    """Standard deviations of an arm's interaction with episodes and of its windows; their shape."""

    episode: float
    window: float
    shape: Noise


QUIET = Kind(0.012, 0.028, rare_dips)
MEDIUM = Kind(0.025, 0.05, unit)
RFS = Kind(0.045, 0.075, dips)
TWO_STATES = Kind(0.055, 0.11, two_states)
RPS = Kind(0.10, 0.16, dips)


class Arm(NamedTuple):
    """A configuration: its true ratio to the baseline, and the values that it changes."""

    family: str
    kind: Kind
    ratio: float
    complexity: int


# As measured.
LAB = [
    Arm("baseline", TWO_STATES, 1.0, 0),
    Arm("GRO", QUIET, 2.338, 3),
    Arm("GRO", QUIET, 2.243, 1),
    Arm("GRO", QUIET, 2.238, 3),
    Arm("GRO", QUIET, 2.142, 1),
    Arm("GRO", RFS, 1.629, 6),
    Arm("rfs", RFS, 1.415, 2),
    Arm("pipeline", TWO_STATES, 1.374, 2),
    Arm("rfs", RFS, 1.348, 4),
    Arm("mask", MEDIUM, 1.189, 1),
    Arm("pod", MEDIUM, 1.05, 1),
    Arm("mask", MEDIUM, 0.859, 1),
]

Scenario = Callable[[np.random.Generator, int], list[Arm]]


def lab(rng: np.random.Generator, count: int) -> list[Arm]:
    """The measured arms; further ones are variants that differ from a measured one by some 5 %."""
    arms = [*LAB]
    for number in rng.integers(1, len(LAB), count - len(LAB)):
        like = LAB[number]
        ratio = like.ratio * math.exp(rng.normal(0, 0.05))
        arms.append(like._replace(ratio=ratio, complexity=like.complexity + 1))
    return arms


def noisy(rng: np.random.Generator, count: int) -> list[Arm]:
    """All arms as noisy as the baseline."""
    return [arm._replace(kind=TWO_STATES) for arm in lab(rng, count)]


def very_noisy(rng: np.random.Generator, count: int) -> list[Arm]:
    """All arms, the baseline too, as noisy as RPS."""
    return [arm._replace(kind=RPS) for arm in lab(rng, count)]


def equal(rng: np.random.Generator, count: int) -> list[Arm]:
    return [arm._replace(ratio=1.0) for arm in lab(rng, count)]


def base_best(rng: np.random.Generator, count: int) -> list[Arm]:
    """The others lose 3 to 40 %."""
    baseline, *others = equal(rng, count)
    return [
        baseline,
        *(arm._replace(ratio=math.exp(-rng.uniform(0.03, 0.5))) for arm in others),
    ]


def one_better(rng: np.random.Generator, count: int, by: float = 1.1) -> list[Arm]:
    arms = equal(rng, count)
    number = int(rng.integers(1, count))
    arms[number] = arms[number]._replace(ratio=by)
    return arms


def heavy_tails(rng: np.random.Generator, count: int) -> list[Arm]:
    return [arm._replace(kind=arm.kind._replace(shape=heavy)) for arm in lab(rng, count)]


def one_very_noisy(rng: np.random.Generator, count: int) -> list[Arm]:
    arms = lab(rng, count)
    number = int(rng.integers(1, count))
    arms[number] = arms[number]._replace(kind=Kind(0.2, 0.4, dips))
    return arms


class Noises(NamedTuple):
    """Noise of all arms of a race, as arrays."""

    truth: Floats
    families: Floats  # number of the family of each arm
    episode: Floats
    window: Floats
    shapes: list[Noise]
    shape: Floats  # number of the shape of each arm

    @classmethod
    def of(cls, arms: Sequence[Arm]) -> Noises:
        families = [*dict.fromkeys(arm.family for arm in arms)]
        shapes = [*dict.fromkeys(arm.kind.shape for arm in arms)]
        return cls(
            np.log([arm.ratio for arm in arms]),
            np.array([families.index(arm.family) for arm in arms]),
            np.array([arm.kind.episode for arm in arms]),
            np.array([arm.kind.window for arm in arms]),
            shapes,
            np.array([shapes.index(arm.kind.shape) for arm in arms]),
        )

    def draw(self, rng: np.random.Generator, arms: NDArray[np.int64], length: int = 1) -> Floats:
        """Logs of the windows of one episode, in this order of arms."""
        number = len(arms)
        families = rng.normal(size=int(self.families.max()) + 1)
        own = (families[self.families] + rng.normal(size=len(self.truth))) / math.sqrt(2)
        logs = (self.truth + self.episode * own)[arms] + rng.normal(0, EPISODE)
        drawn = np.stack([shape(rng, (number,)) for shape in self.shapes])
        logs += self.window[arms] / math.sqrt(length) * drawn[self.shape[arms], np.arange(number)]
        logs[0] -= FIRST_WINDOW
        return np.asarray(logs + _slow(rng, number))


def _slow(rng: np.random.Generator, number: int) -> Floats:
    """Changes within an episode."""
    steps = rng.normal(0, SLOW_CHANGES, number)
    steps[1:] *= math.sqrt(1 - AR**2)
    decay = AR ** np.arange(number)
    if number > 60:
        raise ValueError(number)
    return np.asarray(decay * np.cumsum(steps / decay))


class Case(NamedTuple):
    """What came of one simulated race."""

    best_in_set: bool
    within: bool  # what the race recommends is within 3 % of the best
    size: int
    confirmed: bool  # there is a ratio of fresh episodes
    covered: float  # whether its interval has the truth; NaN without one
    half_width: float
    better: bool  # an arm is called better than the baseline
    better_at_any_look: bool  # after some episode; also if the baseline was out of the set
    baseline: bool  # the answer is the baseline
    found: bool  # the answer is the best arm
    loss_held: bool
    seconds: float


def simulated(
    rng: np.random.Generator,
    scenario: Scenario,
    count: int,
    minutes: float,
    *,
    collapse: float = 0.0,
    costs: Costs = COSTS,
) -> Case:
    """One race with its confirmation. Windows collapse to a tenth with the probability `collapse`."""
    arms = scenario(rng, count)
    noises = Noises.of(arms)
    truth = noises.truth
    used, ever = 0.0, False
    tuning = Tuning(Race([arm.complexity for arm in arms]), costs, 60 * minutes)
    while step := tuning.step(used):
        logs = measured(rng, noises, step)
        if collapse:
            logs += math.log(0.1) * (rng.random(len(logs)) < collapse)
        used += costs.of(step.total)
        tuning.add(step, logs.tolist())
        look = tuning.answer()
        ever = ever or look.arm != 0 or 0 not in look.standing.open
    answer = tuning.answer()
    standing, ratio = answer.standing, answer.ratio
    best, arm = int(np.argmax(truth)), standing.recommended
    low = high = math.nan
    if ratio and ratio.low and ratio.high:
        low, high = math.log(ratio.low), math.log(ratio.high)
    return Case(
        best_in_set=bool(np.any(truth[[*standing.open]] >= truth[best] - 1e-9)),
        within=bool(truth[arm] >= truth[best] - EPS),
        size=len(standing.open),
        confirmed=ratio is not None,
        covered=float(low <= truth[arm] - truth[0] <= high) if ratio else math.nan,
        half_width=math.sinh((high - low) / 2),
        better=answer.arm != 0,
        better_at_any_look=ever,
        baseline=answer.arm == 0,
        found=answer.arm == best,
        loss_held=bool(truth[best] - truth[arm] <= standing.loss),
        seconds=used,
    )


def measured(rng: np.random.Generator, noises: Noises, step: Step) -> Floats:
    """The log of each arm of a step, in random order; a longer window has less noise of its own."""
    order = rng.permutation(len(step.arms))
    logs = np.empty(len(order))
    logs[order] = noises.draw(rng, np.asarray(step.arms)[order], step.length)
    return logs


def cases(
    scenario: Scenario,
    count: int,
    minutes: float,
    numbers: Iterable[int],
    seed: int = 1,
    **more: Any,
) -> list[Case]:
    """The simulated races of these numbers; each has a random stream of its own."""
    streams = (np.random.default_rng((seed, number)) for number in numbers)
    return [simulated(rng, scenario, count, minutes, **more) for rng in streams]


def means(made: Sequence[Case]) -> dict[str, float]:
    """Of each field, over the races that have it; NaN if so few have it that they show nothing."""
    table = np.array(made, float)
    known = ~np.isnan(table)
    number = known.sum(axis=0)
    found = np.where(known, table, 0.0).sum(axis=0) / np.maximum(number, 1)
    found[number < len(made) * LEAST] = math.nan
    return dict(zip(Case._fields, map(float, found), strict=True))


TABLE: Mapping[str, tuple[Scenario, int, tuple[float, ...]]] = {
    "12 lab": (lab, 12, (1, 3)),
    "24 lab": (lab, 24, (1, 3, 5)),
    "48 lab": (lab, 48, (3, 5, 10)),
    "12 noisy": (noisy, 12, (1, 3, 5)),
    "24 noisy": (noisy, 24, (3, 5, 10)),
    "24 very noisy": (very_noisy, 24, (3, 5, 10)),
    "12 equal": (equal, 12, (3,)),
    "24 equal": (equal, 24, (1, 3, 10)),
    "48 equal": (equal, 48, (3,)),
    "24 one +10 %": (one_better, 24, (3, 10)),
    "24 one +5 %": (partial(one_better, by=1.05), 24, (3, 10)),
    "24 base best": (base_best, 24, (3,)),
    "24 heavy tails": (heavy_tails, 24, (3,)),
    "24 one very noisy": (one_very_noisy, 24, (3,)),
}


def figures(races: int = RACES, seed: int = 1) -> dict[str, Any]:
    """For each scenario and number of minutes, what came of the races; on all cores."""
    cells = [(name, minutes) for name, (_, _, budgets) in TABLE.items() for minutes in budgets]
    with ProcessPoolExecutor() as pool:
        made = pool.map(partial(_cell, races=races, seed=seed), cells)
        return table(dict(zip(cells, made, strict=True)))


def _cell(cell: tuple[str, float], races: int, seed: int) -> list[Case]:
    name, minutes = cell
    scenario, count, _ = TABLE[name]
    return cases(scenario, count, minutes, range(races), seed)


def table(made: Mapping[tuple[str, float], Sequence[Case]]) -> dict[str, Any]:
    """The figures of these races, by the name of the scenario and by minutes (pure)."""
    (number,) = {len(found) for found in made.values()}
    races: dict[str, dict[str, dict[str, float | None]]] = {}
    for (name, minutes), found in made.items():
        races.setdefault(name, {})[f"{minutes:g} min"] = {
            field: None if math.isnan(value) else round(value, 4)
            for field, value in means(found).items()
        }
    return {
        "figure": f"means over {number} simulated races each, each with its confirmation",
        "noise": "fitted to the lab: 2 cores, 4 pairs",
        "seconds": {"episode": COSTS.episode, "window": COSTS.window},
        "number": number,
        "standard_error": round(0.5 / math.sqrt(number), 4),
        "races": races,
    }


PAGE = ROOT / "docs/statistics.md"


def page(text: str, kept: Mapping[str, Any]) -> str:
    """A page of the docs with the kept figures between its marks (pure)."""
    return tables.marked(text, "benchmarks/race.py", _lines(kept))


# Columns of the docs, and the fields that they show.
_SHARES = {
    "best in the set": "best_in_set",
    "recommended within 3 % of the best": "within",
    "an arm is called better than the baseline": "better",
    "at any look": "better_at_any_look",
    "interval of the ratio covers": "covered",
    "its half-width": "half_width",
}


def _lines(kept: Mapping[str, Any]) -> list[str]:
    heads = ["arms, scenario", "time", *_SHARES, "size of the set"]
    rows = [
        [name, words, *_shares(found), f"{found['size']:.1f}"]
        for name, budgets in kept["races"].items()
        for words, found in budgets.items()
    ]
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def _shares(found: Mapping[str, float | None]) -> list[str]:
    shares = [found[field] for field in _SHARES.values()]
    return ["–" if share is None else f"{100 * share:.1f} %" for share in shares]


def main() -> None:
    """Print the figures as JSON, or write the kept ones into the docs."""
    if sys.argv[1:] == ["--docs"]:
        PAGE.write_text(page(PAGE.read_text(), json.loads(KEPT.read_text())))
    else:
        show(figures())


if __name__ == "__main__":
    main()
