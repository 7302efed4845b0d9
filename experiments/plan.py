"""The plan of a sweep: which state is measured when, from a seed (pure).

A split plot: in each block the paths, the replica counts and, within one count, the
configurations come in random order, so that a drift of the machine hits all alike.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from infra.configurations import Configuration
from infra.refusals import BadInput

# Seconds beside the traffic of a run (verify, start, collect, re-steer), for the ETA alone.
OVERHEAD_S = 0.6
# The same where everything is made anew for each run.
FRESH_OVERHEAD_S = 1.5

ISOLATIONS = ("incremental", "fresh")


@dataclass(frozen=True)
class Run:
    """One run of the plan; `order` counts from 0 over the whole sweep."""

    order: int
    block: int
    path: str
    replicas: int
    configuration: str


@dataclass(frozen=True)
class Plan:
    """What a sweep will do; two plans with one `digest` are the same experiment.

    `definitions` holds a hash of what each configuration's name stood for: a user's file may change.
    With `until_ci` the blocks are the most that there will be: a state whose ratio is known to
    that relative half-width needs no more runs. With `isolation` fresh each run has a lab of its own,
    made for it and taken away, as the published study had; else the pods stay and steering changes.
    """

    seed: int
    blocks: int
    configurations: tuple[str, ...]
    replicas: tuple[int, ...]
    paths: tuple[str, ...]
    duration: int
    omit: int
    streams: int
    settings: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    definitions: tuple[tuple[str, str], ...]
    until_ci: float | None
    isolation: str
    runs: tuple[Run, ...]

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def eta_s(self) -> float:
        return self.seconds_of(len(self.runs))

    def seconds_of(self, runs: int) -> float:
        """About how long so many runs take."""
        overhead = OVERHEAD_S if self.isolation == "incremental" else FRESH_OVERHEAD_S
        return round(runs * (self.duration + self.omit + overhead), 1)


def make(
    *,
    seed: int,
    blocks: int,
    configurations: Sequence[str],
    replicas: Sequence[int],
    paths: Sequence[str],
    duration: int,
    omit: int,
    streams: int,
    known: Mapping[str, Configuration],
    cpus: int,
    settings: Mapping[str, str] | None = None,
    until_ci: float | None = None,
    isolation: str = "incremental",
) -> Plan:
    """The plan of a matrix. A configuration that this machine has no cores for is left out.

    Raises `BadInput` for an unknown or a repeated name, and where there is nothing to run.
    """
    for name in configurations:
        if name not in known:
            raise BadInput(f"configurations: {name!r} is unknown (known: {', '.join(known)})")
    for key, values in (("configurations", configurations), ("replicas", replicas)):
        if not values:
            raise BadInput(f"{key}: name at least one")
        if len(set(values)) != len(values):
            raise BadInput(f"{key}: {', '.join(map(str, values))} names one of them twice")
    left_out = tuple(
        (name, f"needs {known[name].needs_cpus} CPUs")
        for name in configurations
        if known[name].needs_cpus > cpus
    )
    possible = [name for name in configurations if known[name].needs_cpus <= cpus]
    if not possible:
        raise BadInput(
            "configurations: this machine can run none of them: "
            + ", ".join(f"{name} {why}" for name, why in left_out)
        )
    return Plan(
        seed=seed,
        blocks=blocks,
        configurations=tuple(possible),
        replicas=tuple(replicas),
        paths=tuple(paths),
        duration=duration,
        omit=omit,
        streams=streams,
        settings=tuple(sorted((settings or {}).items())),
        left_out=left_out,
        definitions=tuple((name, _definition(known[name])) for name in possible),
        until_ci=until_ci,
        isolation=isolation,
        runs=tuple(_order(seed, blocks, possible, replicas, paths)),
    )


def _definition(configuration: Configuration) -> str:
    text = configuration.model_dump_json(exclude={"summary"})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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


def from_json(text: str) -> Plan:
    """A plan as `to_json` wrote it."""
    fields = json.loads(text)
    fields["runs"] = tuple(Run(**run) for run in fields["runs"])
    for key in ("settings", "left_out", "definitions"):
        fields[key] = tuple((name, value) for name, value in fields[key])
    for key in ("configurations", "replicas", "paths"):
        fields[key] = tuple(fields[key])
    return Plan(**fields)


def to_json(plan: Plan) -> str:
    return json.dumps(asdict(plan), indent=1) + "\n"
