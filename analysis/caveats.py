"""Warnings about the figures, and the costs of a gain (pure)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

import pandas as pd

from analysis import comparisons, machine, verdict
from analysis.cell_summary import CellSummary
from analysis.evidence import FEWEST_RUNS, Evidence
from analysis.metrics import METRICS, Metric
from analysis.recommend import Recommendation
from analysis.schema import Record
from analysis.tables import reasons
from analysis.tradeoff import NOTHING, Tradeoff
from analysis.verdict import ALPHA, Contrast

MOST_SHOWN = 10
# Configurations that one figure can show and a reader tell apart.
MOST_DRAWN = 48
LONGEST = 200
# Requests of a configuration, relative to the baseline's, whose CPU time is no longer the same.
_MORE_REQUESTS = 1.1
_FIGURE = re.compile(r"\d+(?:\.\d+)?")


def caveats(
    states: Sequence[CellSummary],
    contrasts: Sequence[Contrast],
    recommendation: Recommendation | None,
    baseline: str,
    tradeoff: Tradeoff = NOTHING,
) -> list[str]:
    """The costs of each "better" and of the recommended configuration, against the baseline.

    Those that are significant are in the trade-off and not repeated. Those of what is, or would be,
    recommended are first.
    """
    known = {(one.path, one.replicas, one.configuration): one for one in states}
    named = [
        one for one in contrasts if recommendation and one.b == recommendation.named(one.replicas)
    ]
    better = [one for one in contrasts if one.verdict == "better" and one not in named]
    found = []
    for one in (*named, *better):
        state, reference = (known[one.path, one.replicas, name] for name in (one.b, baseline))
        row = tradeoff.row(one.path, one.replicas, one.b)
        costs = _costs(state, reference, row.costs if row else ()) + [
            f"{_invalid(side)}, so the valid runs may be a biased selection"
            for side in (state, reference)
            if side.invalid
        ]
        if costs:
            found.append(f"{_name(state)}: {'; '.join(costs)}.")
    return found


def _invalid(side: CellSummary) -> str:
    several = "attempt of {} is" if side.invalid == 1 else "attempts of {} are"
    return f"{side.invalid} {several.format(side.configuration)} invalid"


def _costs(state: CellSummary, reference: CellSummary, known: Collection[str]) -> list[str]:
    """Other metrics that are much worse than the baseline's, as their entries define it."""
    found = []
    for metric in METRICS.values():
        mine, other = state.means[metric.name], reference.means[metric.name]
        if metric.cost is None or mine is None or other is None or metric.name in known:
            continue
        worse = metric.sign * (other - mine)
        if worse > metric.cost.floor and mine >= metric.cost.times * other:
            found.append(
                f"{metric.title} {verdict.digits(mine, metric.digits)} "
                f"({reference.configuration} {verdict.digits(other, metric.digits)}) {metric.unit}"
            )
    return found


def warnings(
    records: Sequence[Record],
    runs: pd.DataFrame,
    states: Sequence[CellSummary],
    contrasts: Sequence[Contrast],
    evidence: Evidence,
    baseline: str,
) -> list[str]:
    """One sentence each; empty where there is nothing to watch."""
    valid = [record for record, why in zip(records, reasons(records), strict=True) if not why]
    found = _unlike_nodes(valid) + _mixed(valid)
    excluded = int((~runs["valid"]).sum())
    if excluded:
        found.append(
            f"{excluded} of {len(records)} attempts {'is' if excluded == 1 else 'are'} invalid and not counted; the "
            "report lists the reasons."
        )
    found += _not_compared(states, valid, evidence.metric, baseline) + _too_many(states)
    for one in states:
        if one.drift_p_holm is not None and one.drift_p_holm < ALPHA:
            found.append(
                f"{_name(one)} drifts: {one.drift.change:+.0%} over its {one.runs} runs "
                f"(Kendall's p {verdict.p_value(one.drift_p_holm)} after Holm)."
            )
    if evidence.check.found:
        found.append(
            f"The blocks of the sweep are not independent (lag-1 {evidence.check.lag1:.2f}, p "
            f"{verdict.p_value(evidence.check.p)}): effects drift from block to block. "
            f"{evidence.check.blocks} blocks are worth {evidence.check.worth * evidence.check.blocks:.1f} "
            "independent ones, and the intervals are those of so many (or of 6). They describe the ratios "
            "on this occasion."
        )
    fewest = min((min(one.effect.n_a, one.effect.n_b) for one in contrasts), default=FEWEST_RUNS)
    if fewest < FEWEST_RUNS:
        found.append(
            f"Comparisons with fewer than {FEWEST_RUNS} runs (here {fewest}) are inconclusive."
        )
    throttled = sum(
        any((pair.throttled_periods or 0) > 0 for pair in record.pairs) for record in valid
    )
    if throttled:
        found.append(f"{_runs(throttled)} hit the CPU quota of a pod, which may limit the bitrate.")
    without = sum(not record.cores for record in valid)
    if without:
        found.append(f"{_runs(without)} without CPU data.")
    return found + _requests(states, baseline) + _of_runs(valid)


def _requests(states: Sequence[CellSummary], baseline: str) -> list[str]:
    """Whether CPU time per Gbit is that of unequal numbers of requests beside the streams."""
    served = {
        (one.path, one.replicas, one.configuration): one.means["requests_per_second"]
        for one in states
        if one.means["cpu_s_per_gbit"] is not None
    }
    ratios = [
        count / reference
        for (path, replicas, _), count in served.items()
        if count and (reference := served.get((path, replicas, baseline)))
    ]
    least, most = min(ratios, default=1), max(ratios, default=1)
    if most <= _MORE_REQUESTS and least >= 1 / _MORE_REQUESTS:
        return []
    return [
        "CPU time per Gbit includes the requests, and each follows the answer to the one before: the "
        f"configurations answered {least:.2f} to {most:.2f} times as many as {baseline}."
    ]


def _not_compared(
    states: Sequence[CellSummary], valid: Sequence[Record], metric: Metric, baseline: str
) -> list[str]:
    """The attempted configurations without a comparison: no valid run, or none with the metric."""
    found = []
    counted = {(one.path, one.replicas, one.configuration) for one in valid}
    for path, replicas in dict.fromkeys((one.path, one.replicas) for one in states):
        own = {s.configuration: s.runs for s in states if (s.path, s.replicas) == (path, replicas)}
        without = [name for name, runs in own.items() if not runs and name != baseline]
        where = f"At {verdict.pairs(replicas)} ({path})"

        def none(names: Sequence[str], path: str = path, replicas: int = replicas) -> str:
            some = any((path, replicas, name) in counted for name in names)
            title = f" with {metric.title}" if some else ""
            return f"no valid run of {verdict.joined(names)}{title}"

        if not own.get(baseline) and set(own) != {baseline}:
            found.append(f"{where} nothing is compared: {none([baseline])}.")
        elif without:
            found.append(f"{where} there is {none(without)}.")
    return found


def _too_many(states: Sequence[CellSummary]) -> list[str]:
    """The tables and figures that are left out because there are too many configurations."""
    most = max(Counter((one.path, one.replicas) for one in states).values(), default=0) - 1
    found = []
    if most > comparisons.MOST_AGAINST_EACH_OTHER:
        found.append(
            f"More than {comparisons.MOST_AGAINST_EACH_OTHER} configurations are compared with the "
            "baseline alone, not with each other."
        )
    if most >= MOST_DRAWN:
        found.append(f"More than {MOST_DRAWN} configurations are not drawn; the tables have them.")
    return found


def _unlike_nodes(valid: Sequence[Record]) -> list[str]:
    words = list(dict.fromkeys(one for record in valid for one in machine.unlike_nodes(record)))
    if not words:
        return []
    return [
        f"The nodes are not alike ({'; '.join(words)}), so there is no verdict on several together: see the "
        "results of each node, or measure like nodes alone (kubernetes.serverSelector, "
        "kubernetes.clientSelector)."
    ]


def _mixed(valid: Sequence[Record]) -> list[str]:
    """Conditions that changed within a path; two paths have different devices by nature."""
    paths = dict.fromkeys(record.path for record in valid)
    several = len({record.replicas for record in valid}) > 1
    mixed = [
        difference
        for path in paths
        for difference in machine.mixtures(
            machine.conditions(record for record in valid if record.path == path)
        )
        if not (several and difference.startswith("idle pairs:"))
    ]
    return [f"The runs differ in {difference}." for difference in dict.fromkeys(mixed)]


def _of_runs(valid: Sequence[Record]) -> list[str]:
    """The warnings of single runs, the most frequent first.

    Warnings that differ only in figures are counted together; the largest is shown.
    """
    examples: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for record in valid:
        for kind, text in {_kind(text): text for text in reversed(record.warnings)}.items():
            examples[kind] = max(examples.get(kind, text), text, key=_figures)
            counted[kind] += 1
    shown = [
        f"{_short(examples[kind])} ({_runs(count)})"
        for kind, count in counted.most_common(MOST_SHOWN)
    ]
    more = len(counted) - len(shown)
    return shown + [f"The records have {more} more warnings of single runs."] * (more > 0)


def _kind(text: str) -> str:
    """A warning without its figures and without its parentheses."""
    return _FIGURE.sub("#", re.sub(r"\([^()]*\)", "", text))


def _figures(text: str) -> list[float]:
    """The figures of a warning, to find the largest."""
    return [float(figure) for figure in _FIGURE.findall(text)]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _name(state: CellSummary) -> str:
    where = "" if state.path == "overlay" else f" ({state.path})"
    return f"{state.configuration} at {verdict.pairs(state.replicas)}{where}"


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
