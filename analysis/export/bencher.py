"""Bencher Metric Format: a benchmark for each configuration, its metrics as measures (pure)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from analysis.export.contract import Export, figures, slug
from analysis.schema import Record
from analysis.summary import Summary


def text(records: Sequence[Record], summary: Summary) -> str:
    """Means and effects with their intervals, where they have one."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for one in figures(records, summary):
        values = {"value": one.value, "lower_value": one.low, "upper_value": one.high}
        known = {key: v for key, v in values.items() if v is not None and math.isfinite(v)}
        found.setdefault(slug(one.labels), {})[one.name] = known
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


BENCHER = Export("bencher", "bencher run --adapter json", text)
