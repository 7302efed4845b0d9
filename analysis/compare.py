"""The regression gate: is B worse than A?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from analysis import comparisons, dependence, machine, statistics, tradeoff, verdict
from analysis.evidence import Evidence, gather
from analysis.limits import InvalidLimit, Limit, worst_of
from analysis.metrics import BITRATE, Metric
from analysis.pairing import StateKey, arms
from analysis.principal import CANDIDATES, principal
from analysis.schema import Record
from analysis.statistics import Effect, Floats
from analysis.tables import run_table
from analysis.tradeoff import LimitCheck
from analysis.verdict import Contrast

CONFIDENCE = 0.95
WORSE = 4
INCONCLUSIVE = 5


# The spread between two sweeps (standard deviation of the logarithm of each) that is assumed where
# no baseline measures it.
ALLOWANCE = 0.03

_METHODS = {
    "paired": "paired by block",
    "unpaired": "unpaired",
    "relative": "each relative to the baseline of its own sweep",
}


class NothingToCompare(ValueError):
    """A side has no run of the requested kind; the message lists the runs that exist."""


class Runs(NamedTuple):
    """The runs of a directory by content, with and without a time."""

    timed: frozenset[bytes]
    untimed: frozenset[bytes]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Runs:
        timed, untimed = (
            frozenset(
                hashlib.sha256(one.model_dump_json().encode()).digest()
                for one in records
                if bool(one.start) is has
            )
            for has in (True, False)
        )
        return cls(timed, untimed)

    def common(self, other: Runs) -> int:
        """How many runs are in both: two equal records are the same run.

        Imported records have no time, so a few of them can be equal by chance: they count where one
        directory has all of the other's.
        """
        copied = self.untimed <= other.untimed or other.untimed <= self.untimed
        return len(self.timed & other.timed) + copied * len(self.untimed & other.untimed)


@dataclass(frozen=True)
class Comparison(Contrast):
    """The answer: B against A in one metric.

    `p_holm` decides; it is adjusted over the `family`, the number of comparisons in the report of
    the same records. `exit_code`: 4 where B is worse, 5 where the runs are inconclusive,
    0 where B is better or there is no significant difference. With `limits`: 4 where B exceeds
    one, 5 where that is inconclusive, 0 where it keeps all.
    """

    metric: str = BITRATE.name
    family: int = 1
    sentence: str = ""
    differences: Sequence[str] = ()
    limits: Sequence[LimitCheck] = ()

    @property
    def exit_code(self) -> int:
        answer = worst_of(one.standing for one in self.limits) if self.limits else self.verdict
        return {
            "worse": WORSE,
            "exceeded": WORSE,
            "inconclusive": INCONCLUSIVE,
        }.get(answer, 0)

    def to_json(self) -> dict[str, Any]:
        """The same as data."""
        return {
            **asdict(replace(self, limits=())),
            "limits": [one.to_json() for one in self.limits],
            "exit_code": self.exit_code,
        }


def compare(
    records_a: Sequence[Record],
    records_b: Sequence[Record],
    a: str,
    b: str,
    *,
    at: int | None = None,
    metric: Metric | None = None,
    limits: Sequence[Limit] = (),
    force: bool = False,
    baseline: str = "baseline",
) -> Comparison:
    """Configuration `b` of `records_b` against configuration `a` of `records_a`.

    The same records twice compare two configurations of one sweep, as the report does: by block,
    and judged in the report's family. Other records (before and after a change) are two sweeps:
    each side is taken relative to its own baseline where both have one, which cancels effects that
    all configurations of a sweep share. `at` is the replica count, by default the largest that
    both have; `metric` is by default that of `analysis.principal`; the overlay is compared where
    both have it. Runs under unlike conditions are inconclusive unless `force` is given. `limits`
    are those of B, relative to A. Raises NothingToCompare where a side has no such run, or where
    the two have runs in common, and InvalidLimit for a difference of two sweeps in a metric that
    they compare by ratio.
    """
    together = records_a is records_b or list(records_a) == list(records_b)
    if together and a == b:
        raise NothingToCompare(f"{a} would be compared with itself")
    if not together and (shared := Runs.of(records_a).common(Runs.of(records_b))):
        raise NothingToCompare(
            f"{shared} of the runs are in both directories, so these are not two experiments: "
            "compare within one of them, or remove the copies"
        )
    asked = [metric] if metric else CANDIDATES
    wanted = {one.name: one for one in (*asked, *(limit.metric for limit in limits))}.values()
    of_a, of_b = (
        gather(records, baseline, wanted, run_table(records)) for records in (records_a, records_b)
    )
    directly = (a, b) if not together and baseline in (a, b) else None
    metric = metric or principal([(of_a, baseline), (of_b, baseline)], CONFIDENCE, directly)
    before, after = of_a[metric.name], of_b[metric.name]
    path, replicas = _place(records_a, records_b, before, after, a, b, at)
    first, second = (path, replicas, a), (path, replicas, b)
    differences: list[str] = []
    size = 1
    missing = [
        f"{name} has no valid run with this metric"
        for evidence, name in ((before, a), (after, b))
        if (path, replicas, name) not in evidence.series
    ]
    if missing:
        nothing = Effect(None, problem=verdict.joined(list(dict.fromkeys(missing))))
        found = verdict.contrast(first, second, nothing, None, metric)
    elif together:
        differences = before.unlike(first, second)
        found, size = _within(before, first, second, baseline, force)
    else:
        found, differences = two_sweeps(before, after, first, second, baseline, force=force)
    checks = []
    for limit in limits:
        mine, other = of_a[limit.metric.name], of_b[limit.metric.name]
        if together or limit.kind == "value":
            one = tradeoff.check(limit, other, second, a, CONFIDENCE, alike=not force)
        else:
            one = _across(limit, mine, other, first, second, baseline, force)
        checks.append(one)
    return Comparison(
        **vars(found),
        metric=metric.name,
        family=size,
        sentence=_sentence(found, metric, size, checks, apart=not together),
        differences=differences,
        limits=checks,
    )


def _across(
    limit: Limit,
    before: Evidence,
    after: Evidence,
    a: StateKey,
    b: StateKey,
    baseline: str,
    force: bool,
) -> LimitCheck:
    """What two sweeps show of a limit of B relative to A."""
    if limit.kind != limit.metric.scale:
        raise InvalidLimit(
            f"{limit}: two directories are compared by {limit.metric.scale} in "
            f"{limit.metric.name}: write a percentage such as {limit.metric.name}=+10%, or a value"
        )
    if a not in before.series or b not in after.series:
        return tradeoff.unmeasured(limit)
    left, right = _sides(before, after, a, b, baseline)
    differences = machine.differences(left.conditions, right.conditions)
    effect = _between(left, right, differences, force).effect
    # not the doubt of the comparison: a limit does not need runs that would find a doubling
    return tradeoff.of_effect(limit, effect, _doubt(left, right, differences, force))


def _within(
    evidence: Evidence, a: StateKey, b: StateKey, baseline: str, force: bool
) -> tuple[Contrast, int]:
    """One comparison of a sweep as its family judges it, and the size of that family."""
    of_report = [
        comparisons.against_couples(evidence, baseline),
        *comparisons.pairwise_couples(evidence, baseline),
    ]
    size = 0
    own = next((family for family in of_report if (a, b) in family or (b, a) in family), None)
    if own is None:
        own, size = comparisons.alone(evidence, (a, b), baseline)
    couples = [(a, b) if couple == (b, a) else couple for couple in own]
    judged = comparisons.family(evidence, couples, CONFIDENCE, size=size)
    found = judged[couples.index((a, b))]
    if force:
        doubt = evidence.doubt(a, b, alike=False)
        found = verdict.contrast(a, b, found.effect, found.p_holm, evidence.metric, doubt=doubt)
    return found, max(1, size, sum(one.p_holm is not None for one in judged))


def two_sweeps(
    before: Evidence,
    after: Evidence,
    a: StateKey,
    b: StateKey,
    baseline: str,
    *,
    force: bool = False,
) -> tuple[Contrast, list[str]]:
    """B of one sweep against A of another, and the conditions in which their runs differ."""
    left, right = _sides(before, after, a, b, baseline)
    differences = machine.differences(left.conditions, right.conditions)
    return _between(left, right, differences, force), differences


@dataclass(frozen=True)
class _Side:
    """One side of a comparison of two sweeps; `reference` is its baseline, where it is used."""

    evidence: Evidence
    key: StateKey
    reference: StateKey | None

    @property
    def conditions(self) -> machine.Conditions:
        keys = [self.key, self.reference] if self.reference else [self.key]
        return machine.together(*(self.evidence.conditions[key] for key in keys))

    def values(self) -> Floats:
        """The runs (logarithms for a ratio), each relative to the baseline of its block."""
        series, log = self.evidence.series, self.evidence.metric.scale == "ratio"
        if not self.reference:
            return np.log(series[self.key].values) if log else series[self.key].values
        base, own, _ = arms(series[self.reference], series[self.key])
        return np.log(own) - np.log(base) if log else own - base

    @property
    def worth(self) -> float:
        """Independent runs that each is worth; runs without a reference that depend on each other are a doubt."""
        return self.evidence.worth if self.reference else 1.0

    @property
    def kept(self) -> float:
        """The share of sound experiments whose verdict the check for dependence does not withhold."""
        return self.evidence.kept if self.reference else 1 - dependence.ALPHA

    def doubt(self, *, alike: bool) -> str:
        if self.reference:
            return self.evidence.doubt(self.reference, self.key, alike=alike)
        return self.evidence.doubt_alone(self.key, alike=alike)


def _sides(
    before: Evidence, after: Evidence, a: StateKey, b: StateKey, baseline: str
) -> tuple[_Side, _Side]:
    """Both sides with their baselines, or both without; a baseline has no reference itself."""
    found = []
    for evidence, key in ((before, a), (after, b)):
        reference = (*key[:2], baseline)
        if key == reference or reference not in evidence.series:
            return _Side(before, a, None), _Side(after, b, None)
        if not arms(evidence.series[reference], evidence.series[key])[2]:
            return _Side(before, a, None), _Side(after, b, None)
        found.append(_Side(evidence, key, reference))
    return found[0], found[1]


def _between(left: _Side, right: _Side, differences: Sequence[str], force: bool) -> Contrast:
    """One comparison of two sweeps, judged alone."""
    relative = left.reference is not None
    metric = left.evidence.metric
    measured = [
        side.evidence.series[key].values
        for side in (left, right)
        for key in (side.key, side.reference)
        if key
    ]
    ratio = metric.scale == "ratio"
    if ratio and not all(np.all(values > 0) for values in measured):
        unknown = Effect(None, problem="a run has 0: no ratio")
        return verdict.contrast(left.key, right.key, unknown, None, metric)
    spread = ALLOWANCE if ratio else ALLOWANCE * float(np.mean(measured[0]))
    effect = statistics.difference(
        left.values(),
        right.values(),
        paired=False,
        check=False,
        allowance=0.0 if relative else math.sqrt(2) * spread,
        worth=min(side.worth for side in (left, right)),
    )
    effect = statistics.exponential(effect) if ratio else effect
    effect = replace(effect, method="relative" if relative else "unpaired")
    effect = statistics.with_power(effect, family=1, kept=left.kept * right.kept)
    doubt = _doubt(left, right, differences, force)
    return verdict.contrast(left.key, right.key, effect, effect.p, metric, doubt=doubt)


def _doubt(left: _Side, right: _Side, differences: Sequence[str], force: bool) -> str:
    """Why a comparison of two sweeps is inconclusive; empty where it is not."""
    unlike = [f"the runs differ in {one}" for one in differences if not force]
    doubts = [*unlike, *(side.doubt(alike=not force) for side in (left, right))]
    return next(filter(None, doubts), "")


def _place(
    records_a: Sequence[Record],
    records_b: Sequence[Record],
    before: Evidence,
    after: Evidence,
    a: str,
    b: str,
    at: int | None,
) -> tuple[str, int]:
    """The path and replica count to compare at: where both have valid runs, else any."""
    tried = []
    for records, name in ((records_a, a), (records_b, b)):
        own = {
            (one.path, one.replicas)
            for one in records
            if one.configuration == name and at in (None, one.replicas)
        }
        if not own:
            there = {f"{one.configuration}-{one.replicas}" for one in records}
            where = "" if at is None else f" at {verdict.pairs(at)}"
            raise NothingToCompare(
                f"no run of {name}{where}; runs exist of: {', '.join(sorted(there)) or 'nothing'}"
            )
        tried.append(own)
    both = tried[0] & tried[1]
    if not both:
        raise NothingToCompare(f"{a} and {b} share no replica count and path")
    usable = {
        place for place in both if (*place, a) in before.series and (*place, b) in after.series
    }
    return max(usable or both, key=lambda place: (place[0] == "overlay", place[1]))


def _sentence(
    found: Contrast, metric: Metric, size: int, checks: Sequence[LimitCheck], *, apart: bool
) -> str:
    effect = found.effect
    why = f" ({found.doubt})" if found.doubt else ""
    at = verdict.where(found.path, found.replicas)
    parts = [f"{found.b} against {found.a} at {at}: {found.verdict}{why}"]
    if effect.estimate is not None:
        sizes = f"{verdict.estimate(effect, 3)} {verdict.bounds(effect, 3)}".strip()
        parts.append(f"{metric.title} ({metric.unit}): {sizes}, p {verdict.p_value(effect.p)}")
        if size > 1:
            adjusted = verdict.p_value(found.p_holm)
            parts[-1] += f", adjusted over the report's {size} comparisons {adjusted}"
        parts.append(f"{effect.n_b} against {effect.n_a} runs, {_METHODS[effect.method]}")
        if apart and effect.method == "unpaired":
            parts.append(
                "without a baseline beside both sides, a spread between sweeps of "
                f"{ALLOWANCE * 100:.0f} % is assumed"
            )
        if effect.mde is not None:
            least = verdict.detectable(effect, metric)
            parts.append(f"a difference of {least} would be found in 80 % of such experiments")
    parts += [f"limit {one.limit}: {one.standing} ({tradeoff.stated(one)})" for one in checks]
    return "; ".join(parts) + "."
