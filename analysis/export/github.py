"""Entries for the custom tools of github-action-benchmark (pure)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from analysis.export.contract import Export, Figure, exported, figures, number, slug
from analysis.schema import Record
from analysis.summary import Summary


def text(records: Sequence[Record], summary: Summary) -> str:
    """Means and ratios of the metrics with the direction of the summary's metric.

    A file of that tool has one direction. It divides new values by old ones, so differences,
    which may be 0 or negative, are left out.
    """
    entries = [
        {
            "name": f"{one.name} {slug(one.labels)}",
            "unit": one.unit,
            "value": one.value,
            **_range(one),
            "extra": "\n".join([f"{one.runs} runs", *(f"{k}: {v}" for k, v in one.labels.items())]),
        }
        for one in figures(records, summary)
        if one.metric.better == summary.metric.better and not one.name.endswith("_difference")
    ]
    return json.dumps(entries, indent=1, allow_nan=False) + "\n"


def _range(one: Figure) -> dict[str, str]:
    if one.low is None or one.high is None:
        return {}
    return {"range": f"± {number((one.high - one.low) / 2)}"}


def note(summary: Summary) -> str:
    better = summary.metric.better
    tool = "customBiggerIsBetter" if better == "higher" else "customSmallerIsBetter"
    others = [metric.name for metric in exported(summary) if metric.better != better]
    rest = f"; left out: {', '.join(others)} (--metric {others[0]})" if others else ""
    return f"tool: {tool}{rest}"


GITHUB = Export("github", "github-action-benchmark", text, note)
