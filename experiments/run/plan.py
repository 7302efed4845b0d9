"""The plan of a sweep: which state is measured when, from a seed (pure).

A split plot: in each block the paths, the replica counts and, within one count, the
configurations come in random order, so that a drift of the machine hits all alike.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from experiments.run import options
from experiments.run.options import Options
from infra import untrusted
from infra.configurations import Configuration
from infra.errors import InvalidInput

# Seconds beside the traffic of a run (verify, start, collect, re-steer), for the ETA alone.
OVERHEAD_S = 0.6
# The same where everything is made anew for each run.
FRESH_OVERHEAD_S = 1.5


@dataclass(frozen=True)
class Run:
    """One run of the plan; `order` counts from 0 over the whole sweep."""

    order: int
    block: int
    path: str
    replicas: int
    configuration: str


@dataclass(frozen=True, kw_only=True)
class SweepPlan(Options):
    """What a sweep will do; two plans with one `digest` are the same experiment.

    `definitions` holds a hash of what each configuration's name stood for: a user's file may change.
    With `until_ci` the blocks are the most that there will be: a state whose ratio is known to
    that relative half-width needs no more runs. With `isolation` fresh each run has a lab of its own,
    made for it and taken away, as the published study had; else the pods stay and steering changes.
    """

    left_out: tuple[tuple[str, str], ...]
    definitions: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]

    @property
    def asked(self) -> Options:
        """The options that it was made from, with the configurations that it left out."""
        own = {one.name: getattr(self, one.name) for one in fields(Options)}
        names = (*self.configurations, *(name for name, _ in self.left_out))
        return Options(**own | {"configurations": names})

    @property
    def digest(self) -> str:
        text = json.dumps(_document(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def eta_s(self) -> float:
        return self.seconds_of(len(self.runs))

    def seconds_of(self, runs: int) -> float:
        """About how long so many runs take."""
        overhead = OVERHEAD_S if self.isolation == "incremental" else FRESH_OVERHEAD_S
        return round(runs * (self.duration + self.omit + overhead), 1)


def make(asked: Options, *, known: Mapping[str, Configuration], cpus: int) -> SweepPlan:
    """The plan of a matrix. A configuration that this machine has no cores for is left out.

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
    own = {one.name: getattr(asked, one.name) for one in fields(Options)}
    return SweepPlan(
        **own | {"configurations": possible},
        left_out=left_out,
        definitions=tuple((name, known[name].definition) for name in possible),
        runs=tuple(_order(asked.seed, asked.blocks, possible, asked.replicas, asked.paths)),
    )


def _order(
    seed: int,
    blocks: int,
    configurations: Sequence[str],
    replicas: Sequence[int],
    paths: Sequence[str],
) -> list[Run]:
    shuffled = random.Random(seed)  # noqa: S311 an experiment's order, not a secret
    runs: list[Run] = []
    for block in range(blocks):
        for path in shuffled.sample(list(paths), len(paths)):
            for count in shuffled.sample(list(replicas), len(replicas)):
                for name in shuffled.sample(list(configurations), len(configurations)):
                    runs.append(Run(len(runs), block, path, count, name))
    return runs


def from_json(text: str | bytes) -> SweepPlan:
    """A plan as `to_json` wrote it. Raises ValueError, KeyError or TypeError for any other text."""
    from pydantic import TypeAdapter

    document = untrusted.parsed(text)
    if not isinstance(document, dict):
        raise TypeError("it is not a mapping")
    try:
        own = options.of_kept(document)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return SweepPlan(
        **{one.name: getattr(own, one.name) for one in fields(Options)},
        left_out=tuple((str(name), str(why)) for name, why in document["left_out"]),
        definitions=tuple((str(name), str(what)) for name, what in document["definitions"]),
        runs=TypeAdapter(tuple[Run, ...]).validate_python(document["runs"]),
    )


def to_json(plan: SweepPlan) -> str:
    return json.dumps(_document(plan), indent=1) + "\n"


def _document(plan: SweepPlan) -> dict[str, Any]:
    return {
        **options.kept(plan),
        "left_out": plan.left_out,
        "definitions": plan.definitions,
        "runs": [asdict(run) for run in plan.runs],
    }
