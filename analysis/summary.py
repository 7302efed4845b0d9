"""All conclusions from records: states, comparisons, warnings, sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import carryover, caveats, comparisons, machine, statistics, verdict
from analysis.carryover import SwitchbackChecks
from analysis.cell_summary import CellSummary
from analysis.choice import WORTHWHILE, changed_values
from analysis.dependence import Check
from analysis.episodes import Episode, episodes
from analysis.evidence import Evidence, gather
from analysis.explanation import explain
from analysis.limits import Limit
from analysis.metrics import BITRATE, METRICS, Metric
from analysis.nodes import NodeCell, by_node
from analysis.pairing import Series, StateKey
from analysis.principal import principal
from analysis.recommend import Recommendation, recommend
from analysis.schema import Record
from analysis.tables import configuration_order, core_table, latency_table, run_table
from analysis.tradeoff import Tradeoff, tradeoff
from analysis.verdict import Contrast, PathRatio

# The configuration that steers nothing; a baseline by another name may steer.
UNSTEERED = "baseline"


@dataclass(frozen=True)
class Invalid:
    """An attempt that does not count, with the reason."""

    path: str
    replicas: int
    configuration: str
    block: int | None
    attempt: int
    reasons: str


@dataclass(frozen=True)
class Summary:
    """All conclusions in one metric. `runs`, `cores` and `latency` are tables of `analysis.tables`.

    `method` names the methods of the runs, joined by "and", `form` that of the lab, empty elsewhere. `contrasts` are the family against
    the baseline; `pairwise` the steered configurations against each other, a family at each replica
    count and path. `nodes` are the results of each server node, where there are several. `tradeoff` has the comparisons in every metric, and the limits. `check` is the
    test for dependence of the whole table. `switchback` are the checks of that method, None without
    its `episodes`. `verdict` starts with the recommendation, where there is one. `explanation` is
    about the cores of the baseline and of what is recommended.
    """

    metric: Metric
    method: str
    form: str
    baseline: str
    confidence: float
    runs: pd.DataFrame
    cores: pd.DataFrame
    latency: pd.DataFrame
    states: list[CellSummary]
    contrasts: list[Contrast]
    pairwise: list[Contrast]
    tradeoff: Tradeoff
    paths: list[PathRatio]
    nodes: list[NodeCell]
    check: Check
    episodes: list[Episode]
    switchback: SwitchbackChecks | None
    invalid: list[Invalid]
    recommendation: Recommendation | None
    verdict: list[str]
    explanation: list[str]
    caveats: list[str]
    warnings: list[str]
    machine: list[str]

    def contrast(self, state: CellSummary) -> Contrast | None:
        """The comparison of a state with the baseline; None for the baseline itself."""
        where = (state.path, state.replicas, state.configuration)
        return next((c for c in self.contrasts if (c.path, c.replicas, c.b) == where), None)

    @property
    def keep(self) -> str | None:
        """The configuration to keep on a node; None where that sets nothing, or is not known."""
        chosen = self.recommendation.configuration if self.recommendation else None
        return None if self.sets_nothing(chosen) else chosen

    def sets_nothing(self, name: str | None) -> bool:
        """Whether this is the baseline, without steering: another baseline is to be set too."""
        return name == self.baseline == UNSTEERED

    def to_json(self) -> dict[str, Any]:
        """Everything but the tables of runs, for JSON; unknown values are None."""
        return {
            "metric": self.metric.name,
            "method": self.method,
            "form": self.form,
            "baseline": self.baseline,
            "confidence": self.confidence,
            "verdict": self.verdict,
            "recommendation": self.recommendation and self.recommendation.to_json(),
            "keep": self.keep,
            "explanation": self.explanation,
            "caveats": self.caveats,
            "states": [asdict(one) for one in self.states],
            "comparisons": [asdict(one) for one in self.contrasts],
            "pairwise": [asdict(one) for one in self.pairwise],
            "tradeoff": self.tradeoff.to_json(),
            "overlay_over_host": [asdict(one) for one in self.paths],
            "nodes": [asdict(one) for one in self.nodes],
            "dependence": {**asdict(self.check), "found": self.check.found},
            "switchback": self.switchback and self.switchback.to_json(),
            "invalid": [asdict(one) for one in self.invalid],
            "warnings": self.warnings,
            "machine": self.machine,
        }


def summarise(
    records: Sequence[Record],
    *,
    baseline: str = "baseline",
    confidence: float = 0.95,
    metric: Metric | None = None,
    limits: Sequence[Limit] = (),
) -> Summary:
    """Everything that these records support.

    `baseline` names the configuration the others are compared with and `confidence` the level of
    the intervals; verdicts are at its complement. `metric` is compared, by default that of
    `analysis.principal`. `limits` are judged in the trade-off. Raises ValueError for a confidence
    outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence:g} is not between 0 and 1")
    records = list(records)
    runs, cores = run_table(records), core_table(records)
    of_each = gather(records, baseline, METRICS.values(), runs)
    decided = metric or principal([(of_each, baseline)], confidence)
    same = not metric and decided != BITRATE and bool(of_each[BITRATE.name].series)
    metric = decided
    evidence = of_each[metric.name]
    names = configuration_order(runs["configuration"], baseline)
    rank = {name: position for position, name in enumerate(names)}
    keys = sorted(
        set(runs[["path", "replicas", "configuration"]].itertuples(index=False, name=None)),
        key=lambda key: (key[0] != "overlay", key[1], rank[key[2]]),
    )
    contrasts = comparisons.family(
        evidence, comparisons.against_couples(evidence, baseline), confidence, check=True
    )
    pairwise = [
        one
        for couples in comparisons.pairwise_couples(evidence, baseline)
        for one in comparisons.family(evidence, couples, confidence)
    ]
    paths = comparisons.overlay_over_host(evidence, confidence)
    states = _states(runs, cores, keys, evidence, confidence)
    of_switchback = episodes(records)
    checks = carryover.check(of_switchback, baseline, confidence)
    balance = tradeoff(of_each, contrasts, metric, limits, keys, baseline, confidence)
    recommendation = _recommendation(records, contrasts, pairwise, baseline, metric, balance)
    return Summary(
        metric=metric,
        method=" and ".join(sorted({record.method for record in records})),
        form=machine.form(records),
        baseline=baseline,
        confidence=confidence,
        runs=runs,
        cores=cores,
        latency=latency_table(records),
        states=states,
        contrasts=contrasts,
        pairwise=pairwise,
        tradeoff=balance,
        paths=paths,
        nodes=by_node(records, baseline, confidence, metric),
        check=evidence.check,
        episodes=of_switchback,
        switchback=checks,
        invalid=_invalid(runs),
        recommendation=recommendation,
        verdict=_verdict(
            states, contrasts, pairwise, paths, baseline, recommendation, metric, same
        ),
        explanation=explain(records, contrasts, recommendation, baseline, metric),
        caveats=caveats.caveats(states, contrasts, recommendation, baseline, balance),
        warnings=[
            *(checks.warnings() if checks else []),
            *caveats.warnings(records, runs, states, contrasts, evidence, baseline),
        ],
        machine=machine.describe(records),
    )


def _recommendation(
    records: Sequence[Record],
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    baseline: str,
    metric: Metric,
    balance: Tradeoff,
) -> Recommendation | None:
    """The recommendation over every path and replica count that was measured or attempted."""
    complexity = {}
    valid = [record for record in records if record.valid]
    reference = [record for record in valid if record.configuration == baseline]
    for name in dict.fromkeys(one.b for one in contrasts):
        some = [record for record in valid if record.configuration == name]
        changed = changed_values(some, reference)
        if changed is not None:
            complexity[name] = changed
    places = {(record.path, record.replicas) for record in records}
    return recommend(contrasts, pairwise, complexity, baseline, places, metric, balance)


def _states(
    runs: pd.DataFrame,
    cores: pd.DataFrame,
    keys: Sequence[StateKey],
    evidence: Evidence,
    confidence: float,
) -> list[CellSummary]:
    by = ["path", "replicas", "configuration"]
    valid = runs[runs["valid"]].groupby(by)
    means = valid[list(METRICS)].mean().to_dict("index")
    spread = statistics.spread(valid[evidence.metric.name], confidence).to_dict("index")
    invalid = runs[~runs["valid"]].groupby(by).size().to_dict()
    receiving = cores[cores["server"]].groupby([*by, "node", "core"])["soft"]
    busiest = receiving.mean().groupby(by).max().to_dict()
    none = Series(np.array([]), ())
    series = [evidence.series.get(key, none).values for key in keys]
    drifts = [statistics.drift(values) for values in series]
    adjusted = statistics.holm([drift.p for drift in drifts])
    states = []
    for key, values, drift, drift_p in zip(keys, series, drifts, adjusted, strict=True):
        own, row = means.get(key, {}), spread.get(key, {})
        states.append(
            CellSummary(
                path=key[0],
                replicas=key[1],
                configuration=key[2],
                runs=len(values),
                invalid=int(invalid.get(key, 0)),
                value=_known(row.get("mean")),
                half=_known(row.get("half")),
                soft_busiest=_known(busiest.get(key)),
                lag1=statistics.lag1(values),
                means={name: _known(own.get(name)) for name in METRICS},
                drift=drift,
                drift_p_holm=drift_p,
            )
        )
    return states


def _invalid(runs: pd.DataFrame) -> list[Invalid]:
    columns = ["path", "replicas", "configuration", "block", "attempt", "reasons"]
    return [
        Invalid(path, replicas, name, None if pd.isna(block) else int(block), attempt, reasons)
        for path, replicas, name, block, attempt, reasons in runs.loc[
            ~runs["valid"], columns
        ].itertuples(index=False, name=None)
    ]


def _verdict(
    states: Sequence[CellSummary],
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    paths: Sequence[PathRatio],
    baseline: str,
    recommendation: Recommendation | None,
    metric: Metric,
    same: bool,
) -> list[str]:
    if not any(state.runs for state in states):
        valid = any(value is not None for state in states for value in state.means.values())
        return [f"No valid run has {metric.title}." if valid else "There is no valid run."]
    plain = [one for one in paths if one.configuration == baseline]
    words = [recommendation.sentence] if recommendation else []
    if same:
        words.append(
            f"The bitrate of all configurations is the same within {WORTHWHILE * 100:.0f} %, so "
            f"{metric.title} decides (--metric)."
        )
    words += verdict.sentences(contrasts, pairwise, plain or paths, metric)
    if not contrasts:
        known = ", ".join(dict.fromkeys(state.configuration for state in states))
        remedy = "choose another with --baseline" if "," in known else "measure another one too"
        words.insert(
            0,
            f"Nothing is compared: no replica count has both {baseline} and another of {known}: "
            f"{remedy}.",
        )
    return words


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
