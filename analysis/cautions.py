"""What a reader must be warned of before believing the figures (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from analysis import machine, verdict
from analysis.schema import Record
from analysis.state import State
from analysis.verdict import ALPHA, Contrast

FEW_RUNS = 6
MOST_SHOWN = 10


def warnings(
    records: Sequence[Record],
    states: Sequence[State],
    contrasts: Sequence[Contrast],
    baseline: str,
) -> list[str]:
    """One sentence each; empty where there is nothing to watch."""
    valid = [record for record in records if record.valid]
    found = _mixed(valid)
    excluded = sum(one.invalid for one in states)
    if excluded:
        found.append(f"{_runs(excluded)} of {len(records)} do not count: see the reasons.")
    compared = {(one.path, one.replicas) for one in contrasts}
    for path, replicas in dict.fromkeys((one.path, one.replicas) for one in states):
        names = {s.configuration for s in states if (s.path, s.replicas) == (path, replicas)}
        if (path, replicas) not in compared and names != {baseline}:
            found.append(
                f"At {verdict.pairs(replicas)} ({path}) nothing is compared: "
                f"no valid run of {baseline}."
            )
    for one in states:
        if one.drift_p_holm is not None and one.drift_p_holm < ALPHA:
            found.append(
                f"{_name(one)} drifts: {one.drift.change:+.0%} over its {one.runs} runs "
                f"(Kendall's p {verdict.p_value(one.drift_p_holm)} after Holm)."
            )
        if one.dependence.strong:
            found.append(
                f"{_name(one)}: runs are not independent, lag-1 autocorrelation "
                f"{one.dependence.lag1:.2f}."
            )
    fewest = min((min(one.effect.n_a, one.effect.n_b) for one in contrasts), default=FEW_RUNS)
    if fewest < FEW_RUNS:
        found.append(
            f"Comparisons over fewer than {FEW_RUNS} runs (here {fewest}) cannot show dependence "
            "between runs and seldom establish anything."
        )
    throttled = sum(
        any((pair.throttled_periods or 0) > 0 for pair in record.pairs) for record in valid
    )
    if throttled:
        found.append(
            f"{_runs(throttled)} hit the CPU quota of a pod: the bitrate may be the quota's."
        )
    without = sum(not record.cores for record in valid)
    if without:
        found.append(f"{_runs(without)} without CPU figures.")
    return found + _of_runs(valid)


def _mixed(valid: Sequence[Record]) -> list[str]:
    """Conditions that changed within a path; a path's own devices are no mixture."""
    paths = dict.fromkeys(record.path for record in valid)
    mixed = [
        difference
        for path in paths
        for difference in machine.mixtures(
            machine.conditions(record for record in valid if record.path == path)
        )
    ]
    return [f"The runs are not alike in {difference}." for difference in dict.fromkeys(mixed)]


def _of_runs(valid: Sequence[Record]) -> list[str]:
    """The runs' own warnings, the most frequent first."""
    counted = Counter(warning for record in valid for warning in dict.fromkeys(record.warnings))
    shown = [f"{warning} ({_runs(count)})" for warning, count in counted.most_common(MOST_SHOWN)]
    more = len(counted) - len(shown)
    return shown + [f"{more} more warnings of single runs are in the records."] * (more > 0)


def _name(state: State) -> str:
    where = "" if state.path == "overlay" else f" ({state.path})"
    return f"{state.configuration} at {verdict.pairs(state.replicas)}{where}"


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
