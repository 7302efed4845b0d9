"""The plan of a sweep: its runs in their random order, from a seed (pure).

A split plot: in each block the paths, the replica counts and, within one count, the
configurations come in random order, so that a drift of the machine affects all of them alike.
Under switchback the runs of one block, path and count are an episode, and the orders of several
episodes are balanced (`experiments/run/episodes.py`).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from statistics import fmean
from typing import Any

from pydantic import ConfigDict, ValidationError

from experiments.run import episodes, options
from experiments.run.options import Options
from infra import traffic, untrusted
from infra.complaints import complaint
from infra.configurations import Configuration
from infra.errors import InvalidInput

# Seconds beside the traffic of a run (verify, start, collect, steer again), for the estimate alone.
OVERHEAD_S = {"incremental": 0.6, "fresh": 1.5}


@dataclass(frozen=True)
class Run:
    """One run of the plan; `order` counts from 0 over the whole sweep."""

    order: int
    block: int
    path: str
    replicas: int
    configuration: str


class SweepPlan(Options):
    """All runs of a sweep; two plans with the same `digest` are the same experiment.

    `definitions` has a hash of what each configuration's name meant: a user's file may change.
    With `until_ci`, `blocks` is the maximum. With `isolation` fresh each run has a new lab, as in
    the published study; else the pods stay and steering changes.
    """

    model_config = ConfigDict(validate_by_alias=False, validate_by_name=True)

    left_out: tuple[tuple[str, str], ...]
    definitions: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]

    @property
    def asked(self) -> Options:
        """The options that it was made from, with the configurations that it left out."""
        names = (*self.configurations, *(name for name, _ in self.left_out))
        own = {field: getattr(self, field) for field in Options.model_fields}
        return options.read(own | {"configurations": names})

    @property
    def digest(self) -> str:
        text = json.dumps(_document(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def eta_s(self) -> float:
        return self.seconds_of(len(self.runs))

    def timing(self, pairs: int) -> episodes.Timing:
        """The windows of an episode."""
        return episodes.Timing(self.window, self.settle, episodes.warm_up(pairs))

    @property
    def together(self) -> int:
        """Number of runs that are started together: those of an episode, or one."""
        return len(self.configurations) if self.method == "switchback" else 1

    def key(self, runs: Sequence[Run]) -> Run:
        """The run without which an episode does not count: the baseline's, where it has one."""
        known = self.baseline in self.configurations
        name = self.baseline if known else self.configurations[0]
        return next((run for run in runs if run.configuration == name), runs[0])

    def groups(self, runs: Sequence[Run]) -> list[list[Run]]:
        """The runs in the groups that are started together."""
        if self.method == "isolated":
            return [[run] for run in runs]
        found = groupby(runs, lambda run: (run.block, run.path, run.replicas))
        return [list(group) for _, group in found]

    def seconds_of(self, runs: int) -> float:
        """About how long so many runs take."""
        if self.method == "switchback":
            number = -(-runs // self.together)
            lead = fmean(map(episodes.warm_up, self.replicas)) + episodes.OVERHEAD_S
            return round(runs * self.timing(1).period + number * lead, 1)
        lead = max(kind.lead(self) for kind in traffic.of(self.traffic).kinds)
        run = lead + self.omit + self.duration + OVERHEAD_S[self.isolation]
        return round(runs * run, 1)


def make(asked: Options, *, known: Mapping[str, Configuration], cpus: int) -> SweepPlan:
    """The plan of these options. A configuration that needs more CPUs than there are is left out.

    Raises `InvalidInput` for an unknown name, and where there is nothing to run.
    """
    for name in asked.configurations:
        if name not in known:
            raise InvalidInput(f"configurations: {name!r} is unknown (known: {', '.join(known)})")
    left_out = tuple(
        (name, f"needs {known[name].needs_cpus} CPUs")
        for name in asked.configurations
        if known[name].needs_cpus > cpus
    )
    possible = tuple(name for name in asked.configurations if known[name].needs_cpus <= cpus)
    if not possible:
        raise InvalidInput(
            "configurations: this machine can run none of them: "
            + ", ".join(f"{name} {why}" for name, why in left_out)
        )
    return SweepPlan.model_validate(
        {
            **dict(asked),
            "configurations": possible,
            "left_out": left_out,
            "definitions": tuple((name, known[name].definition) for name in possible),
            "runs": tuple(_order(asked, possible)),
        }
    )


def _order(asked: Options, configurations: tuple[str, ...]) -> list[Run]:
    shuffled = random.Random(asked.seed)  # noqa: S311 an experiment's order, not a secret
    runs: list[Run] = []
    orders = {
        cell: episodes.orders(configurations, shuffled)
        for cell in product(asked.paths, asked.replicas)
        if asked.method == "switchback"
    }
    for block in range(asked.blocks):
        for path in shuffled.sample(asked.paths, len(asked.paths)):
            for count in shuffled.sample(asked.replicas, len(asked.replicas)):
                cell = orders.get((path, count))
                drawn = next(cell) if cell else shuffled.sample(configurations, len(configurations))
                for name in drawn:
                    runs.append(Run(len(runs), block, path, count, name))
    return runs


def from_json(text: str | bytes) -> SweepPlan:
    """A plan as `to_json` wrote it. Raises ValueError, KeyError or TypeError for any other text."""
    document = untrusted.parsed(text)
    if not isinstance(document, dict):
        raise TypeError("it is not a mapping")
    rest = {key: document[key] for key in ("left_out", "definitions", "runs")}
    try:
        return SweepPlan.model_validate({**dict(options.of_kept(document)), **rest})
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        raise ValueError(complaint(error, SweepPlan)) from None


def to_json(plan: SweepPlan) -> str:
    return json.dumps(_document(plan), indent=1) + "\n"


def _document(plan: SweepPlan) -> dict[str, Any]:
    return {
        **options.kept(plan),
        "left_out": plan.left_out,
        "definitions": plan.definitions,
        "runs": [asdict(run) for run in plan.runs],
    }
