"""Records -> everything that is concluded from them: states, comparisons, warnings, words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from analysis import cautions, families, machine, statistics, verdict
from analysis.pairing import Series, StateKey, series
from analysis.schema import Record
from analysis.state import State
from analysis.statistics import Drift
from analysis.tables import configuration_order, core_table, run_table
from analysis.verdict import Contrast, PathRatio


@dataclass(frozen=True)
class Invalid:
    """A run that does not count, and why."""

    path: str
    replicas: int
    configuration: str
    block: int | None
    reasons: str


@dataclass(frozen=True)
class Summary:
    """All conclusions. `runs` and `cores` are the tables of `analysis.tables`.

    `contrasts` are the family against the baseline; `pairwise` the steered configurations
    against each other, a family at each replica count and path; `verdict` starts with the
    headline.
    """

    baseline: str
    confidence: float
    runs: pd.DataFrame
    cores: pd.DataFrame
    states: list[State]
    contrasts: list[Contrast]
    pairwise: list[Contrast]
    paths: list[PathRatio]
    invalid: list[Invalid]
    warnings: list[str]
    verdict: list[str]
    machine: list[str]

    def contrast(self, state: State) -> Contrast | None:
        """The comparison of a state with the baseline; None for the baseline itself."""
        where = (state.path, state.replicas, state.configuration)
        return next((c for c in self.contrasts if (c.path, c.replicas, c.b) == where), None)

    @property
    def winner(self) -> str | None:
        """What is shown to carry most over the overlay, at the largest replica count compared.

        None where nothing there is shown to carry more than the baseline.
        """
        overlay = [one for one in self.contrasts if one.path == "overlay"]
        most = max((one.replicas for one in overlay), default=0)
        better = [one for one in overlay if one.replicas == most and one.verdict == "better"]
        return max(better, key=lambda one: one.effect.estimate or 0).b if better else None

    def to_json(self) -> dict[str, Any]:
        """Everything but the tables of runs, as JSON carries it (None for what is not known)."""
        return {
            "baseline": self.baseline,
            "confidence": self.confidence,
            "verdict": self.verdict,
            "winner": self.winner,
            "states": [asdict(one) for one in self.states],
            "comparisons": [asdict(one) for one in self.contrasts],
            "pairwise": [asdict(one) for one in self.pairwise],
            "overlay_over_host": [asdict(one) for one in self.paths],
            "invalid": [asdict(one) for one in self.invalid],
            "warnings": self.warnings,
            "machine": self.machine,
        }


def summarise(
    records: Sequence[Record], *, baseline: str = "baseline", confidence: float = 0.95
) -> Summary:
    """Everything that these records support.

    `baseline` names the configuration the others are compared with and `confidence` the level of
    the intervals; verdicts are at its complement. Raises ValueError for a confidence outside
    (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence:g} is not between 0 and 1")
    runs, cores = run_table(records), core_table(records)
    bitrates = series(runs)
    names = configuration_order(runs["configuration"], baseline)
    rank = {name: position for position, name in enumerate(names)}
    keys = sorted(
        set(runs[["path", "replicas", "configuration"]].itertuples(index=False, name=None)),
        key=lambda key: (key[0] != "overlay", key[1], rank[key[2]]),
    )
    measured = [key for key in keys if key in bitrates]
    contrasts = families.against(bitrates, measured, baseline, confidence)
    pairwise = families.pairwise(bitrates, measured, baseline, confidence)
    paths = families.overlay_over_host(bitrates, measured, confidence)
    states = _states(runs, cores, keys, bitrates, confidence)
    invalid = _invalid(runs)
    return Summary(
        baseline=baseline,
        confidence=confidence,
        runs=runs,
        cores=cores,
        states=states,
        contrasts=contrasts,
        pairwise=pairwise,
        paths=paths,
        invalid=invalid,
        warnings=cautions.warnings(records, states, contrasts, baseline),
        verdict=_verdict(states, contrasts, pairwise, paths, baseline),
        machine=machine.describe(records),
    )


def _states(
    runs: pd.DataFrame,
    cores: pd.DataFrame,
    keys: Sequence[StateKey],
    bitrates: dict[StateKey, Series],
    confidence: float,
) -> list[State]:
    by = ["path", "replicas", "configuration"]
    valid = runs[runs["valid"]].groupby(by)
    means = valid[["total_mbps", "soft_total", "idle_mean"]].mean().to_dict("index")
    spread = statistics.spread(valid["bitrate_mbps"], confidence).to_dict("index")
    invalid = runs[~runs["valid"]].groupby(by).size().to_dict()
    receiving = cores[cores["server"]].groupby([*by, "node", "core"])["soft"]
    busiest = receiving.mean().groupby(by).max().to_dict()
    drifts = [
        statistics.drift(bitrates[key].values) if key in bitrates else Drift(None, None)
        for key in keys
    ]
    adjusted = statistics.holm([drift.p for drift in drifts])
    states = []
    for key, drift, drift_p in zip(keys, drifts, adjusted, strict=True):
        values = bitrates[key].values if key in bitrates else pd.Series(dtype=float).to_numpy()
        row = {**means.get(key, {}), **spread.get(key, {})}
        states.append(
            State(
                path=key[0],
                replicas=key[1],
                configuration=key[2],
                runs=len(values),
                invalid=int(invalid.get(key, 0)),
                bitrate=_known(row.get("mean")),
                half=_known(row.get("half")),
                total=_known(row.get("total_mbps")),
                soft_busiest=_known(busiest.get(key)),
                soft_total=_known(row.get("soft_total")),
                idle=_known(row.get("idle_mean")),
                dependence=statistics.lag1(values),
                drift=drift,
                drift_p_holm=drift_p,
            )
        )
    return states


def _invalid(runs: pd.DataFrame) -> list[Invalid]:
    columns = ["path", "replicas", "configuration", "block", "reasons"]
    return [
        Invalid(path, replicas, name, None if pd.isna(block) else int(block), reasons)
        for path, replicas, name, block, reasons in runs.loc[~runs["valid"], columns].itertuples(
            index=False, name=None
        )
    ]


def _verdict(
    states: Sequence[State],
    contrasts: Sequence[Contrast],
    pairwise: Sequence[Contrast],
    paths: Sequence[PathRatio],
    baseline: str,
) -> list[str]:
    if not any(state.runs for state in states):
        return ["There is no valid run to conclude from."]
    plain = [one for one in paths if one.configuration == baseline]
    words = verdict.sentences(contrasts, pairwise, plain or paths)
    if not contrasts:
        known = ", ".join(dict.fromkeys(state.configuration for state in states))
        words.insert(
            0, f"Nothing is compared: no replica count has {baseline} and another ({known})."
        )
    return words


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def text_table(summary: Summary) -> str:
    """The states as a plain text table for a terminal, a row each; what is not known is a dash."""
    from analysis import cells

    return cells.aligned(cells.states(summary))
