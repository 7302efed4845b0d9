"""OpenMetrics text: gauges for Prometheus, for example through node_exporter's textfile collector (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from analysis.export.contract import Export, figures, labels_of, number, state_of
from analysis.plaintext import one_line
from analysis.schema import Record
from analysis.summary import Summary

Sample = tuple[Mapping[str, str], float]


def text(records: Sequence[Record], summary: Summary) -> str:
    """A gauge for each mean and effect, with the bounds of its interval as `_low` and `_high`.

    `steerlab_verdict` is 1 for the verdict that holds; `steerlab_last_run_timestamp_seconds` tells
    how old the results are.
    """
    families: dict[str, tuple[str, list[Sample]]] = {}
    for name, about, labels, value in _samples(records, summary):
        families.setdefault(f"steerlab_{name}", (about, []))[1].append((labels, value))
    lines = []
    for name, (about, samples) in families.items():
        lines += [f"# TYPE {name} gauge", f"# HELP {name} {_escaped(about)}"]
        lines += [f"{name}{{{_labels(labels)}}} {number(value)}" for labels, value in samples]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _samples(
    records: Sequence[Record], summary: Summary
) -> Iterator[tuple[str, str, Mapping[str, str], float]]:
    """Name, description, labels and value of every sample."""
    for one in figures(records, summary):
        about = f"{one.metric.about} Unit: {one.unit}."
        for suffix, value in (("", one.value), ("_low", one.low), ("_high", one.high)):
            if value is not None:
                yield f"{one.name}{suffix}", about, one.labels, value
    labels = labels_of(records)
    for state in summary.states:
        yield "runs", "Valid runs.", labels[state_of(state)], state.runs
    for found in summary.contrasts:
        against = {
            **labels[found.path, found.replicas, found.b],
            "baseline": one_line(found.a),
            "metric": summary.metric.name,
            "verdict": found.verdict,
        }
        yield "verdict", "1 for the verdict of the comparison with the baseline.", against, 1
    if starts := [record.start.timestamp() for record in records if record.start]:
        yield "last_run_timestamp_seconds", "When the last run began.", {}, max(starts)


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(words: str) -> str:
    return words.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


OPENMETRICS = Export("openmetrics", "Prometheus and its node_exporter", text)
