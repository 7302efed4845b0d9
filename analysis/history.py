"""The same configuration in several sweeps: its effect in each, and the conditions that changed (pure)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from analysis import comparisons, machine, statistics, verdict
from analysis.compare import CONFIDENCE, NothingToCompare, Runs
from analysis.evidence import Evidence, gather
from analysis.machine import Conditions
from analysis.metrics import Metric
from analysis.pairing import StateKey
from analysis.principal import CANDIDATES, principal
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.tables import configuration_order, run_table
from analysis.verdict import Contrast

Place = tuple[str, int]  # path, replicas


@dataclass(frozen=True)
class Results:
    """The records of one results directory, its name, and the configuration they are compared with."""

    name: str
    records: Sequence[Record]
    baseline: str = "baseline"


@dataclass(frozen=True)
class Row:
    """A configuration in one sweep, judged as in the report of that sweep.

    `start` is that of its first run, None where it is not known. `changed` are the conditions of `compare`
    that differ from those of the row before.
    """

    sweep: str
    start: datetime | None
    kernel: str
    machine: str
    contrast: Contrast
    changed: list[str]

    @property
    def conditions(self) -> list[str]:
        """The names of the changed conditions."""
        return [one.partition(":")[0] for one in self.changed]

    @property
    def date(self) -> str:
        """2026-11-23, in UTC; empty where it is not known."""
        return f"{self.start.astimezone(UTC):%Y-%m-%d}" if self.start else ""


@dataclass(frozen=True)
class Course:
    """The rows of a configuration in the order of their dates, at one replica count and path.

    `mean` is the effect over the sweeps, one value each; None where their conditions differ.
    """

    configuration: str
    path: str
    replicas: int
    rows: list[Row]
    mean: Effect | None

    def sentence(self, metric: Metric) -> str:
        """The effect over all sweeps, or why there is none."""
        at = f"{self.configuration} at {verdict.where(self.path, self.replicas)}"
        if self.mean is None:
            changes = sum(bool(row.changed) for row in self.rows)
            later = len(self.rows) - 1
            many = f"{changes} of the {later} sweeps" if later > 1 else "the sweep"
            return f"{at}: the conditions changed in {many} after the first, so there is no common effect."
        if self.mean.low is None:
            return f"{at}: fewer than two sweeps are conclusive, so there is no common effect."
        return (
            f"{at}: {verdict.change(self.mean, metric)} over {self.mean.n_b} sweeps under equal "
            "conditions, one value each."
        )


@dataclass(frozen=True)
class History:
    """Several configurations over several sweeps, in one metric."""

    metric: Metric
    courses: list[Course]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each configuration and sweep, for JSON and CSV; unknown values are None."""
        return [
            {
                "configuration": course.configuration,
                "path": course.path,
                "replicas": course.replicas,
                "sweep": row.sweep,
                "start": row.start and row.start.isoformat(),
                "kernel": row.kernel,
                "machine": row.machine,
                "baseline": row.contrast.a,
                "metric": self.metric.name,
                "runs": row.contrast.effect.n_b,
                row.contrast.effect.scale: row.contrast.effect.estimate,
                "low": row.contrast.effect.low,
                "high": row.contrast.effect.high,
                "p_holm": row.contrast.p_holm,
                "verdict": row.contrast.verdict,
                "doubt": row.contrast.doubt,
                "changed": "; ".join(row.changed),
            }
            for course in self.courses
            for row in course.rows
        ]

    def to_json(self) -> dict[str, Any]:
        means = [
            {
                "configuration": one.configuration,
                "path": one.path,
                "replicas": one.replicas,
                "mean": one.mean and asdict(one.mean),
            }
            for one in self.courses
        ]
        return {"metric": self.metric.name, "rows": self.rows(), "means": means}


def history(
    sweeps: Sequence[Results],
    *,
    configurations: Sequence[str] = (),
    at: int | None = None,
    metric: Metric | None = None,
) -> History:
    """The effect of configurations in each of these sweeps, against the baseline of each.

    `configurations` are by default all that every sweep has. `at` is the replica count, by default for
    each configuration the largest that every sweep has; the overlay is chosen where every sweep has it.
    `metric` is by default that of `analysis.principal`.
    Raises `NothingToCompare` where there is none, or where two sweeps have runs in common.
    """
    if len(sweeps) < 2:
        raise NothingToCompare("two results directories or more are needed")
    runs = [(one.name, Runs.of(one.records)) for one in sweeps]
    for (one, mine), (other, others) in combinations(runs, 2):
        if mine.common(others):
            raise NothingToCompare(f"{one} and {other} have runs in common: leave one of them out")
    asked = [metric] if metric else CANDIDATES
    gathered = [
        gather(sweep.records, sweep.baseline, asked, run_table(sweep.records)) for sweep in sweeps
    ]
    baselines = [sweep.baseline for sweep in sweeps]
    metric = metric or principal(list(zip(gathered, baselines, strict=True)), CONFIDENCE)
    found = [
        _Judged(sweep, of_each[metric.name])
        for sweep, of_each in zip(sweeps, gathered, strict=True)
    ]
    names = configurations or [
        name
        for name in configuration_order(
            (key[2] for key in found[0].evidence.series), sweeps[0].baseline
        )
        if all(name != one.sweep.baseline for one in found) and _places(found, name, at)
    ]
    if not names:
        raise NothingToCompare(
            f"no configuration was measured in every directory{_at(at)}: {_measured(found)}"
        )
    return History(metric, [_course(found, name, at) for name in names])


class _Judged:
    """A sweep with its comparisons against the baseline, by state."""

    def __init__(self, sweep: Results, evidence: Evidence) -> None:
        self.sweep = sweep
        self.evidence = evidence
        couples = comparisons.against_couples(evidence, sweep.baseline)
        judged = comparisons.family(evidence, couples, CONFIDENCE)
        self.contrasts = {b: one for (_, b), one in zip(couples, judged, strict=True)}

    def places(self, name: str) -> set[Place]:
        return {key[:2] for key in self.evidence.series if key[2] == name}

    def contrast(self, key: StateKey) -> Contrast:
        if key in self.contrasts:
            return self.contrasts[key]
        reference = (*key[:2], self.sweep.baseline)
        nothing = Effect(
            None,
            problem=f"no valid run of {reference[2]} with {self.evidence.metric.title}",
            scale=self.evidence.metric.scale,
        )
        return verdict.contrast(reference, key, nothing, None, self.evidence.metric)

    def conditions(self, key: StateKey) -> Conditions:
        """Those of both sides, and the configuration that is compared with."""
        reference = (*key[:2], self.sweep.baseline)
        known = [self.evidence.conditions.get(one, {}) for one in (key, reference)]
        return {
            **machine.together(*known),
            "compared with": frozenset({self.sweep.baseline}),
        }

    def records(self, key: StateKey) -> list[Record]:
        return [
            one
            for one in self.sweep.records
            if one.valid and (one.path, one.replicas, one.configuration) == key
        ]


def _course(found: Sequence[_Judged], name: str, at: int | None) -> Course:
    for one in found:
        if name == one.sweep.baseline:
            raise NothingToCompare(f"{name} is the baseline of {one.sweep.name}")
    places = _places(found, name, at)
    if not places:
        raise NothingToCompare(
            f"{name} was not measured in every directory at one replica count{_at(at)}: "
            f"{_measured(found)}"
        )
    path, replicas = max(places, key=lambda place: (place[0] == "overlay", place[1]))
    key = (path, replicas, name)
    rows: list[Row] = []
    before: Conditions = {}
    for one in sorted(found, key=lambda one: _start(one.records(key)) or _NEVER):
        conditions = one.conditions(key)
        rows.append(_row(one, key, machine.differences(before, conditions) if rows else []))
        before = conditions
    return Course(name, path, replicas, rows, _mean(rows, found[0].evidence.metric))


# Imported records have no start: they are older than all others.
_NEVER = datetime.min.replace(tzinfo=UTC)


def _row(one: _Judged, key: StateKey, changed: list[str]) -> Row:
    records = one.records(key)
    return Row(
        sweep=one.sweep.name,
        start=_start(records),
        kernel=" or ".join(sorted({r.machine.kernel for r in records if r.machine})),
        machine=_machine(records),
        contrast=one.contrast(key),
        changed=changed,
    )


def _start(records: Sequence[Record]) -> datetime | None:
    starts = (one.start for one in records if one.start)
    return min((one if one.tzinfo else one.replace(tzinfo=UTC) for one in starts), default=None)


def _machine(records: Sequence[Record]) -> str:
    """The nodes of the servers, with processor and cores."""
    nodes = {pair.server_node for one in records for pair in one.pairs if pair.server_node}
    models = {f"{one.machine.cpu}, {one.machine.cores} cores" for one in records if one.machine}
    return ": ".join(filter(None, (", ".join(sorted(nodes)), " or ".join(sorted(models)))))


def _mean(rows: Sequence[Row], metric: Metric) -> Effect | None:
    """The effect over the conclusive sweeps, with a t interval; None where the conditions differ."""
    if any(row.changed for row in rows):
        return None
    effects = [row.contrast.effect for row in rows if row.contrast.verdict != "inconclusive"]
    estimates = [one.estimate for one in effects if one.estimate is not None]
    nulls = [one.null for one in effects if one.estimate is not None]
    return statistics.effect(
        metric.scale, nulls, estimates, paired=True, confidence=CONFIDENCE, check=False
    )


def _places(found: Sequence[_Judged], name: str, at: int | None) -> Collection[Place]:
    """The paths and replica counts at which every sweep has valid runs of a configuration."""
    common = set.intersection(*(one.places(name) for one in found))
    return {place for place in common if at in (None, place[1])}


def _at(at: int | None) -> str:
    return "" if at is None else f" at {verdict.pairs(at)}"


def _measured(found: Sequence[_Judged]) -> str:
    """What each directory has."""
    there: Mapping[str, list[str]] = {
        one.sweep.name: sorted({f"{key[2]}-{key[1]}" for key in one.evidence.series})
        for one in found
    }
    return "; ".join(
        f"{name} has {', '.join(states) or 'no valid run'}" for name, states in there.items()
    )
