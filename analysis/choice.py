"""Which configuration to keep: within the limits, gaining, losing nowhere, changing least (pure)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.limits import Standing, worst_of
from analysis.metrics import BITRATE, Metric
from analysis.schema import Record
from analysis.tradeoff import NOTHING, Row, Tradeoff
from analysis.verdict import Contrast, gain

# A configuration is not recommended where its estimate is below the baseline by more than this.
MARGIN = 0.05
# A smaller gain is no reason to steer, even if it is certain.
WORTHWHILE = 0.01
# A simpler configuration is not preferred to one whose estimate is better by more than this.
NEAR = 0.03
_UNKNOWN = 10**6

Place = tuple[str, int]  # path, replicas


@dataclass(frozen=True)
class Choice:
    """The recommended configuration. `configuration` is None where no single one can be recommended.

    The baseline is recommended where nothing within the limits is significantly better.
    `tentative` would be recommended if it keeps the limits, which is inconclusive. `by_count` has
    the choice for each replica count where one for all does not exist; a count without comparisons
    or without a certain choice has none.
    """

    configuration: str | None = None
    by_count: dict[int, str] = field(default_factory=dict)
    tentative: str | None = None


@dataclass(frozen=True)
class Case:
    """What a choice rests on: comparisons with the baseline and with each other in one metric, the
    number of values that each configuration changes, and the trade-off with the limits.

    `places` are those that were measured or attempted, also where no run is valid: a
    configuration without evidence at one of them is not recommended for all.
    """

    contrasts: Sequence[Contrast]
    pairwise: Sequence[Contrast]
    complexity: Mapping[str, int]
    baseline: str
    places: Sequence[Place]
    metric: Metric = BITRATE
    tradeoff: Tradeoff = NOTHING

    def of(self, name: str, places: Collection[Place]) -> list[Contrast]:
        return [one for one in self.contrasts if one.b == name and place(one) in places]

    def mean_gain(self, name: str, places: Collection[Place] | None = None) -> float:
        """Over these places, or all."""
        own = self.of(name, self.places if places is None else places)
        return math.fsum(gain(one.effect, self.metric) for one in own) / len(own)

    def rows(self, name: str, places: Collection[Place]) -> list[Row]:
        return [
            row
            for row in self.tradeoff.rows
            if row.configuration == name and (row.path, row.replicas) in places
        ]

    def standing(self, name: str, places: Collection[Place]) -> Standing:
        return worst_of(row.standing for row in self.rows(name, places))

    def within(self, name: str, places: Collection[Place]) -> bool:
        return self.standing(name, places) == "within"

    def likely(self, name: str, places: Collection[Place]) -> bool:
        """Whether its estimates are within the limits."""
        checks = [check for row in self.rows(name, places) for check in row.limits]
        return all(
            check.standing != "exceeded"
            and check.limit.standing(check.found.estimate, check.found.estimate) == "within"
            for check in checks
        )

    def possible(self, name: str, places: Collection[Place]) -> bool:
        """Whether no interval is wholly beyond its limit, not even that of doubtful runs."""
        checks = [check for row in self.rows(name, places) for check in row.limits]
        return all(
            check.limit.standing(check.found.low, check.found.high) != "exceeded"
            for check in checks
        )

    def gaining(self, *, excluded: bool = True) -> list[str]:
        """The configurations that gain somewhere; without `excluded`, where no limit excludes them."""
        found = [
            one.b
            for one in self.contrasts
            if gains(one, self.metric)
            and (excluded or self.standing(one.b, [place(one)]) != "exceeded")
        ]
        return list(dict.fromkeys(found))

    @property
    def keeps_baseline(self) -> bool:
        """Whether no limit excludes the baseline, not even by the interval of doubtful runs."""
        return self.possible(self.baseline, self.places)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(one.b for one in self.contrasts))


def choose(case: Case) -> Choice:
    """The choice over all replica counts and paths.

    A configuration *gains* where its verdict is "better" and its gain at least 1 %. It *may lose*
    where its verdict is "worse" or "inconclusive", where its interval lies wholly on the worse
    side (harm does not wait for Holm), where its estimate is more than 5 % worse than the
    baseline, and where it was not measured. (The percentages apply to ratios.)
    Recommended is one that is within the limits everywhere, gains somewhere and may lose nowhere:
    of those whose mean gain is within 3 % of the leader's, and that are not significantly worse
    than it anywhere, as far as they are compared with it, the one that changes the fewest values.
    The leader has the highest mean gain. Where
    the baseline exceeds a limit, a configuration within the limits need not gain. Where
    none is left, the choice is made for each count.
    """
    if all(one.verdict == "inconclusive" for one in case.contrasts):
        return Choice()
    best = _kept(case, case.places)
    if best is not None:
        return Choice(best)
    tentative = _tentative(case, case.places)
    if tentative is None and case.keeps_baseline and not case.gaining(excluded=False):
        return Choice(case.baseline)
    counts = sorted({one.replicas for one in case.contrasts})
    certain = {
        count: _certain(case, [one for one in case.places if one[1] == count]) for count in counts
    }
    by_count = {count: name for count, name in certain.items() if name is not None}
    compared = {place(one) for one in case.contrasts}
    if set(certain.values()) == {case.baseline} and compared == set(case.places):
        return Choice(case.baseline, by_count)
    return Choice(None, by_count, tentative)


def _certain(case: Case, places: Collection[Place]) -> str | None:
    """The choice at these places, the baseline where nothing is better.

    None where it depends on a limit that is inconclusive, and where nothing is within the limits.
    """
    best = _kept(case, places)
    if best is None and case.possible(case.baseline, places):
        return None if _tentative(case, places) else case.baseline
    return best


def _kept(case: Case, places: Collection[Place]) -> str | None:
    """The choice that is within all limits for certain."""
    exceeded = case.standing(case.baseline, places) == "exceeded"
    return _best(case, places, case.within, rescued=exceeded)


def _tentative(case: Case, places: Collection[Place]) -> str | None:
    """The choice if all inconclusive limits are kept: rather by its estimates than by chance.

    A baseline that exceeds a limit by doubtful runs is taken to exceed it.
    """
    rescued = not case.possible(case.baseline, places)
    return _best(case, places, case.likely, rescued=rescued) or _best(
        case, places, case.possible, rescued=rescued
    )


def _best(
    case: Case,
    places: Collection[Place],
    allowed: Callable[[str, Collection[Place]], bool],
    *,
    rescued: bool,
) -> str | None:
    """The configuration to keep at all these places, of those that are allowed there.

    Where it is `rescued`, from a baseline that exceeds a limit, it need not gain.
    """
    fit = {}
    for name in case.names:
        own = case.of(name, places)
        if {place(one) for one in own} != set(places) or not allowed(name, places):
            continue
        if (
            all(one.verdict != "inconclusive" for one in own)
            if rescued
            else any(gains(one, case.metric) for one in own)
            and not any(may_lose(one, case.metric) for one in own)
        ):
            fit[name] = case.mean_gain(name, places)
    if not fit:
        return None
    leader = max(fit, key=lambda name: fit[name])
    rivals = [one for one in case.pairwise if place(one) in places and leader in (one.a, one.b)]
    behind = {
        one.a if one.b == leader else one.b
        for one in rivals
        if one.verdict == ("better" if one.b == leader else "worse")
    }
    alike = {name for one in rivals for name in (one.a, one.b)} - behind | {leader}
    near = math.log1p(NEAR) if rivals and rivals[0].effect.scale == "ratio" else math.inf
    return min(
        (name for name in fit if name in alike and fit[leader] - fit[name] <= near),
        key=lambda name: (case.complexity.get(name, _UNKNOWN), -fit[name], name),
    )


def place(one: Contrast) -> Place:
    return one.path, one.replicas


def gains(one: Contrast, metric: Metric) -> bool:
    least = math.log1p(WORTHWHILE) if one.effect.scale == "ratio" else 0.0
    return one.verdict == "better" and gain(one.effect, metric) >= least


def may_lose(one: Contrast, metric: Metric) -> bool:
    """Whether the configuration may be worse than the baseline there, as `choose` defines it."""
    effect = one.effect
    margin = math.log(1 - MARGIN) if effect.scale == "ratio" else -math.inf
    return (
        one.verdict in ("worse", "inconclusive")
        or gain(effect, metric) < margin
        or wholly_worse(one, metric)
    )


def wholly_worse(one: Contrast, metric: Metric) -> bool:
    """Whether the whole interval is on the worse side."""
    effect = one.effect
    bound = effect.high if metric.better == "higher" else effect.low
    return bound is not None and metric.sign * (bound - effect.null) < 0


def changed_values(records: Iterable[Record], reference: Iterable[Record]) -> int | None:
    """The number of values that differ between a configuration and the reference.

    Each knob of a role counts once, however many pods or queues there are. None where no record
    has its steering.
    """
    found, other = _values(records), _values(reference)
    if not found or not other:
        return None
    return sum(found.get(key) != other.get(key) for key in found.keys() | other.keys())


def _values(records: Iterable[Record]) -> dict[tuple[str, str], set[str]]:
    values: dict[tuple[str, str], set[str]] = {}
    for record in records:
        if record.steering_before:
            table = str(record.steering_before.sock_flow_entries)
            values.setdefault(("machine", "sock_flow_entries"), set()).add(table)
            for queue in record.steering_before.queues:
                values.setdefault((queue.role, "rps_cpus"), set()).add(queue.rps_cpus)
                flows = str(queue.rps_flow_cnt)
                values.setdefault((queue.role, "rps_flow_cnt"), set()).add(flows)
            for one in record.steering_before.settings:
                values.setdefault((one.role, one.knob), set()).add(one.value)
    return values
