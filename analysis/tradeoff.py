"""What each configuration buys and what it costs, in every metric, and which limits it keeps (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy import special

from analysis import comparisons, statistics, verdict
from analysis.evidence import Evidence
from analysis.limits import Limit, Standing, worst_of
from analysis.metrics import METRICS, Metric
from analysis.pairing import StateKey, arms
from analysis.statistics import Effect, Floats
from analysis.verdict import Contrast, Verdict


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; None is "not known"."""

    estimate: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LimitCheck:
    """What the runs show of a limit; `found` is on the scale of the limit, `doubt` why it cannot
    be told, where that is not the interval alone."""

    limit: Limit
    standing: Standing
    found: Interval
    doubt: str = ""

    def to_json(self) -> dict[str, Any]:
        found = asdict(self.found)
        return {
            "limit": str(self.limit), "standing": self.standing, **found, "doubt": self.doubt
        }  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One configuration at one replica count and path, by the names of metrics.

    `levels` are the means over its runs with their intervals (geometric means where a metric is
    compared by ratio), `contrasts` its comparisons with the baseline; the baseline's row has none.
    """

    path: str
    replicas: int
    configuration: str
    levels: Mapping[str, Interval] = field(default_factory=dict)
    contrasts: Mapping[str, Contrast] = field(default_factory=dict)
    limits: Sequence[LimitCheck] = ()

    @property
    def standing(self) -> Standing:
        """Of all limits together."""
        return worst_of(one.standing for one in self.limits)

    @property
    def buys(self) -> dict[str, Contrast]:
        """The metrics in which it is better, by an amount that counts."""
        return {n: one for n, one in self.contrasts.items() if changed(n, one) == "better"}

    @property
    def costs(self) -> dict[str, Contrast]:
        """The metrics in which it is worse, by an amount that counts."""
        return {n: one for n, one in self.contrasts.items() if changed(n, one) == "worse"}


@dataclass(frozen=True)
class Tradeoff:
    """The rows in the order of the states, baseline first at each place.

    Rows have every metric that was measured. `metrics` are those to show: the metric of the
    summary, those that are always shown, those with a limit, and others that change
    significantly, by an amount that counts, somewhere.
    """

    metrics: Sequence[Metric]
    limits: Sequence[Limit]
    rows: Sequence[Row]

    def row(self, path: str, replicas: int, configuration: str) -> Row | None:
        where = (path, replicas, configuration)
        return next((r for r in self.rows if (r.path, r.replicas, r.configuration) == where), None)

    def to_json(self) -> dict[str, Any]:
        """The same as data; contrasts as in `comparisons`."""
        return {
            "metrics": [one.name for one in self.metrics],
            "limits": [str(one) for one in self.limits],
            "rows": [
                {
                    "path": row.path,
                    "replicas": row.replicas,
                    "configuration": row.configuration,
                    "standing": row.standing,
                    "levels": {name: asdict(one) for name, one in row.levels.items()},
                    "contrasts": {name: asdict(one) for name, one in row.contrasts.items()},
                    "limits": [one.to_json() for one in row.limits],
                }
                for row in self.rows
            ],
        }


NOTHING = Tradeoff((), (), ())


def tradeoff(
    evidence: Mapping[str, Evidence],
    contrasts: Sequence[Contrast],
    metric: Metric,
    limits: Sequence[Limit],
    keys: Sequence[StateKey],
    baseline: str,
    confidence: float,
) -> Tradeoff:
    """The trade-off of the states in `keys`; `contrasts` are the comparisons in `metric`.

    Those that are shown where they change are one family together: none of them was chosen in
    advance, so one that differs by chance must be as rare as in a single family. Each other metric
    is a family of its own, as `--metric` judges it.
    """
    measured = {name: one for name, one in evidence.items() if one.series}
    asked = {metric.name, *(limit.metric.name for limit in limits)} | {
        name for name, one in measured.items() if one.metric.shown == "always"
    }
    judged = {metric.name: list(contrasts)}
    rest = []
    for name, one in measured.items():
        couples = comparisons.against_couples(one, baseline)
        if name == metric.name:
            continue
        if one.metric.shown == "changed" and name not in asked:
            rest += [(one, couple) for couple in couples]
        else:
            judged[name] = comparisons.family(one, couples, confidence)
    found = comparisons.across_metrics(rest, confidence)
    for (one, _), contrast in zip(rest, found, strict=True):
        judged.setdefault(one.metric.name, []).append(contrast)
    by_state: dict[StateKey, dict[str, Contrast]] = {}
    for name in measured:
        for contrast in judged.get(name, ()):
            state = (contrast.path, contrast.replicas, contrast.b)
            by_state.setdefault(state, {})[name] = contrast
    differs = {
        name
        for own in by_state.values()
        for name, one in own.items()
        if measured[name].metric.shown == "changed" and changed(name, one)
    }
    shown = [one.metric for name, one in measured.items() if name in asked | differs]
    return Tradeoff(
        metrics=sorted(shown, key=lambda one: one.name != metric.name),
        limits=limits,
        rows=[
            Row(
                *key,
                levels={
                    name: level(one.series[key].values, one.metric, confidence)
                    for name, one in measured.items()
                    if key in one.series
                },
                contrasts=by_state.get(key, {}),
                limits=[
                    check(limit, evidence[limit.metric.name], key, baseline, confidence)
                    for limit in limits
                ],
            )
            for key in keys
        ],
    )


def stated(check: LimitCheck) -> str:
    """What was found, on the scale of the limit: 1.58x [1.40, 1.78], and the doubt about it."""
    return "; ".join(filter(None, (_figures(check), check.doubt))) or "not known"


def _figures(check: LimitCheck) -> str:
    found, metric = check.found, check.limit.metric
    if found.estimate is None:
        return ""
    if found.low == found.high:
        found = Interval(found.estimate)
    if check.limit.kind != "value":
        effect = Effect(found.estimate, found.low, found.high, scale=check.limit.kind)
        return verdict.amount(effect, metric)
    measured = [found.estimate, found.low, found.high]
    middle, *bounds = [verdict.digits(one, metric.digits) for one in measured if one is not None]
    return f"{middle} [{', '.join(bounds)}] {metric.unit}" if bounds else f"{middle} {metric.unit}"


def changed(name: str, contrast: Contrast) -> Verdict | None:
    """The verdict where it is significant, and the change more than the metric's least that counts."""
    if contrast.verdict not in ("better", "worse"):
        return None
    cost = METRICS[name].cost
    small = cost and abs(contrast.effect.estimate or 0.0) <= cost.floor
    return None if small else contrast.verdict


def level(values: Floats, metric: Metric, confidence: float) -> Interval:
    """The mean over runs with its t interval; geometric where the metric is compared by ratio."""
    values, logs = statistics.scaled(values, metric.scale)
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(math.exp(mean) if logs else mean)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = error * float(special.stdtrit(len(values) - 1, (1 + confidence) / 2))
    bounds = (mean, mean - half, mean + half)
    return Interval(*map(statistics.exp, bounds)) if logs else Interval(*bounds)


def check(
    limit: Limit,
    evidence: Evidence,
    key: StateKey,
    baseline: str,
    confidence: float,
    *,
    alike: bool = True,
) -> LimitCheck:
    """What the runs of one state show of a limit; `alike` requires equal conditions."""
    reference = (*key[:2], baseline)
    if key not in evidence.series:
        return unmeasured(limit)
    if limit.kind == "value":
        found = level(evidence.series[key].values, limit.metric, confidence)
        return _checked(limit, found, evidence.doubt_alone(key, alike=alike))
    if key == reference:
        equal = 1.0 if limit.kind == "ratio" else 0.0
        return _checked(limit, Interval(equal, equal, equal))
    if reference not in evidence.series:
        return unmeasured(limit, f"{baseline} was not measured")
    first, second, paired = arms(evidence.series[reference], evidence.series[key])
    effect = statistics.effect(
        # where the metric is compared by ratio, a limit may still be a difference
        limit.kind, first, second, paired=paired, confidence=confidence, check=False,
        worth=evidence.worth,
    )  # fmt: skip
    return of_effect(limit, effect, evidence.doubt(reference, key, alike=alike))


def of_effect(limit: Limit, effect: Effect, doubt: str) -> LimitCheck:
    """What an effect shows of a limit."""
    return _checked(limit, Interval(effect.estimate, *effect.interval), doubt)


def unmeasured(limit: Limit, why: str = "it was not measured") -> LimitCheck:
    return _checked(limit, Interval(None), why)


def _checked(limit: Limit, found: Interval, doubt: str = "") -> LimitCheck:
    standing = "inconclusive" if doubt else limit.standing(found.low, found.high)
    return LimitCheck(limit, standing, found, doubt)
