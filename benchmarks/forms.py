"""What steering adds on a stock node and on the study's: the same sweep on both forms of the lab.

    .venv/bin/python -m benchmarks.forms > benchmarks/forms.json        (root, about 5 minutes)

A number after it is that of the episodes. Ratios are to the baseline of the same form, by switchback, with their 95 %
intervals and the verdicts of a report. `benchmarks.queues` is the same with a queue for each server core. `docs`
instead of a number writes the kept figures of both into docs/lab.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, get_args

from analysis.load import load
from analysis.metrics import BITRATE
from analysis.schema import Record
from analysis.summary import summarise
from benchmarks import ROOT, machine, show, tables
from benchmarks.sweep import run
from infra import cores
from infra.settings import Form

PAGE = ROOT / "docs/lab.md"
PAIRS, EPISODES, SEED = 4, 24, 20261128
CONFIGURATIONS = "baseline,rps,rfs,rps-plus,rfs-plus,pipeline"


def main(asked: Sequence[str], *, all_queues: bool = False) -> None:
    """Measure and print the figures, or write those that were kept into the docs."""
    if [*asked] == ["docs"]:
        PAGE.write_text(page(PAGE.read_text(), kept()))
        return
    queues = len(cores.share(cores.usable()).server) if all_queues else 1
    episodes = int(asked[0]) if asked else EPISODES
    forms: dict[str, Any] = {}
    for form in get_args(Form):
        with TemporaryDirectory(prefix="steerlab-") as folder:
            out = Path(folder) / "sweep"
            wall, _ = run(
                out, "--method", "switchback", "--configurations", CONFIGURATIONS,
                "--replicas", str(PAIRS), "--runs", str(episodes), "--seed", str(SEED),
                "-c", f"lab.form={form}", "-c", f"lab.queues={queues}",
            )  # fmt: skip
            forms[form] = {"wall_s": round(wall, 1), **figures(load(out).records)}
    show({"machine": machine(), "pairs": PAIRS, "queues": queues, "forms": forms})


def figures(records: Sequence[Record]) -> dict[str, Any]:
    """The baseline's bitrate (Mbit/s a pair) and share of packets on each core, and each ratio."""
    summary = summarise(records)
    base = [one for one in records if one.valid and one.configuration == summary.baseline]
    return {
        "lab": summary.form,
        "invalid": len(summary.invalid),
        "runs": len(base),
        "baseline_mbps": round(median(BITRATE.value(one) or 0.0 for one in base)),
        "baseline_packets_percent": _packets(base),
        "ratios": {
            one.b: {
                "ratio": _rounded(one.effect.estimate),
                "interval_95": [_rounded(one.effect.low), _rounded(one.effect.high)],
                "verdict": one.verdict,
            }
            for one in summary.contrasts
        },
    }


def _packets(records: Sequence[Record]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for record in records:
        for row in record.softnet:
            counts[row.core] = counts.get(row.core, 0) + row.processed
    return {core: round(100 * n / sum(counts.values())) for core, n in sorted(counts.items())}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def kept() -> dict[str, Any]:
    """The figures that were measured, by the name of their table."""
    paths = {name: ROOT / f"benchmarks/{name}.json" for name in ("forms", "queues")}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def page(text: str, figures: Mapping[str, Any]) -> str:
    """A page of the docs with these figures between its marks."""
    for name, found in figures.items():
        text = tables.marked(text, f"benchmarks/{name}.py", _table(found))
    return text


def _table(found: Mapping[str, Any]) -> list[str]:
    forms: Mapping[str, Any] = found["forms"]
    names = dict.fromkeys(name for one in forms.values() for name in one["ratios"])
    rows = {name: [_cell(one["ratios"][name]) for one in forms.values()] for name in names}
    return [
        f"| {found['pairs']} pairs, {found['queues']} queue(s) | {' | '.join(forms)} |",
        "|---" * (len(forms) + 1) + "|",
        f"| baseline, Mbit/s per pair | {' | '.join(str(one['baseline_mbps']) for one in forms.values())} |",
        *(f"| `{name}` | {' | '.join(cells)} |" for name, cells in rows.items()),
    ]


def _cell(found: Mapping[str, Any]) -> str:
    low, high = found["interval_95"]
    if low is None:
        return str(found["verdict"])
    return f"{found['ratio']:.2f} [{low:.2f}, {high:.2f}], {found['verdict']}"


if __name__ == "__main__":
    main(sys.argv[1:])
