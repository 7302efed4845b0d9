"""Where a sweep's time goes: the share in which measured traffic flows, and --until-ci's saving.

    .venv/bin/python -m benchmarks.sweep > benchmarks/sweep.json        (root, about 30 minutes)

With names of figures after it (shares, study, isolation, until_ci, quick) it measures these alone.
All but `quick` measure isolated runs.

`share` is omit + duration of all runs over the wall time from the first word of the plan to the
end of the clean-up, also of attempts that were repeated; `command` that of the whole command with
its set-up, report and plots. The
share at 30 s is extrapolated: each measured transition, set-up and clean-up with longer traffic.
Beside it the published study's timing re-enacted: all made anew for a run of 30 s, taken away
after it, and waits up to the 55 s of wall time that its runs took.

`quick` is `sweep --quick`, several times: wall time of the whole command, and the half-width of each
ratio's 95 % interval as a fraction of the ratio.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import ROOT, machine, show

ISOLATED = ("--method", "isolated")
DURATION, OMIT, BLOCKS = 5, 1, 4
CONFIGURATIONS = "baseline,rps,rfs,pipeline"
STUDY_WALL_S, STUDY_TRAFFIC_S = 55.0, 30
FIXED_BLOCKS, FIXED_DURATION = 20, 2
QUICK = 3


def main(asked: list[str]) -> None:
    """Measure and print the figures."""
    figures: dict[str, Callable[[Path], Any]] = {
        "shares": lambda folder: [_share(pairs, folder / str(pairs)) for pairs in (1, 16)],
        "study": _study,
        "isolation": _isolation,
        "until_ci": _until_ci,
        "quick": _quick,
    }
    found: dict[str, Any] = {"machine": machine()}
    for name in asked or figures:
        with TemporaryDirectory(prefix="steerlab-") as folder:
            found[name] = figures[name](Path(folder))
    show(found)


def _share(pairs: int, out: Path) -> dict[str, Any]:
    wall, events = run(
        out, *ISOLATED, "--configurations", CONFIGURATIONS, "--replicas", str(pairs),
        "--runs", str(BLOCKS), "--duration", str(DURATION), "--omit", str(OMIT),
    )  # fmt: skip
    started = [_at(event) for event in events if event["event"] == "started"]
    recorded = [_at(event) for event in events if event["event"] == "recorded"]
    first, last = _at(events[0]), _at(events[-1])
    traffic = (DURATION + OMIT) * len(recorded)
    between = [b - a - DURATION - OMIT for a, b in zip(started, [*started[1:], recorded[-1]])]  # noqa: B905
    around = (started[0] - first) + (last - recorded[-1])
    longer = (30 + OMIT) * len(recorded)
    return {
        "pairs": pairs,
        "runs": len(recorded),
        "repeated_attempts": len(list((out / "records").glob("*-attempt*.json"))),
        "share": round(traffic / (last - first), 3),
        "share_at_30_s": round(longer / (longer + sum(between) + around), 3),
        "command": round(traffic / wall, 3),
        "transition_s": _spread(between[1:]),
        "set_up_and_clean_up_s": round(around, 2),
    }


def _study(out: Path) -> dict[str, Any]:
    """Two runs in the study's manner; the waits stand for its fixed sleeps."""
    walls = []
    for number in range(2):
        since = time.monotonic()
        run(
            out / str(number), *ISOLATED, "--configurations", "baseline", "--replicas", "4",
            "--runs", "1", "--duration", str(STUDY_TRAFFIC_S), "--omit", "0", "--isolation", "fresh",
        )  # fmt: skip
        time.sleep(max(0.0, STUDY_WALL_S - (time.monotonic() - since)))
        walls.append(time.monotonic() - since)
    return {"wall_s": _spread(walls), "share": round(STUDY_TRAFFIC_S / statistics.mean(walls), 3)}


def _isolation(folder: Path) -> dict[str, Any]:
    """The same question asked of pods that stay and of pods made for each run."""
    from analysis.load import load
    from analysis.summary import summarise

    found = {}
    for how in ("incremental", "fresh"):
        run(
            folder / how, *ISOLATED, "--configurations", "baseline,rfs", "--replicas", "4",
            "--runs", "12", "--duration", "2", "--omit", "1", "--isolation", how,
        )  # fmt: skip
        (contrast,) = summarise(load(folder / how).records).contrasts
        effect = contrast.effect
        found[how] = {
            "ratio": round(effect.estimate or 0, 3),
            "interval_95": [round(effect.low or 0, 3), round(effect.high or 0, 3)],
            "verdict": contrast.verdict,
        }
    return found


def _until_ci(folder: Path) -> dict[str, Any]:
    """A fixed plan, then one that stops at the half-width which that has reached."""
    from analysis.load import load
    from analysis.sequential import relative_half_width
    from analysis.summary import summarise

    words = (
        *ISOLATED, "--configurations", "baseline,rfs", "--replicas", "4",
        "--duration", str(FIXED_DURATION), "--omit", "1",
    )  # fmt: skip
    run(folder / "fixed", *words, "--runs", str(FIXED_BLOCKS))
    fixed = load(folder / "fixed").records
    contrasts = summarise(fixed).contrasts
    widths = [relative_half_width(one.effect) for one in contrasts]
    widest = max(width for width in widths if width is not None)
    run(folder / "until", *words, "--until-ci", f"{widest:.4f}", "--runs", "40")
    until = load(folder / "until").records
    verdicts = {one.b: [one.verdict] for one in contrasts}
    for one in summarise(until).contrasts:
        verdicts[one.b].append(one.verdict)
    return {
        "half_width": round(widest, 4),
        "runs_fixed": len(fixed),
        "runs_until": len(until),
        "verdicts": verdicts,
        "agree": all(len(set(pair)) == 1 for pair in verdicts.values()),
    }


def _quick(folder: Path) -> dict[str, Any]:
    from analysis.load import load
    from analysis.sequential import relative_half_width
    from analysis.summary import summarise

    walls, invalid, attempts = [], 0, 0
    widths: dict[str, dict[str, list[float | None]]] = {}
    for number in range(QUICK):
        out = folder / str(number)
        walls.append(round(run(out, "--quick")[0], 1))
        summary = summarise(load(out).records)
        invalid, attempts = invalid + len(summary.invalid), attempts + len(summary.runs)
        for one in summary.contrasts:
            at = widths.setdefault(f"{one.replicas} pairs", {}).setdefault(one.b, [])
            width = relative_half_width(one.effect)
            at.append(None if width is None else round(width, 3))
    return {"wall_s": walls, "half_width": widths, "invalid": invalid, "runs": attempts}


def run(out: Path, *words: str) -> tuple[float, list[dict[str, Any]]]:
    """Wall seconds of the command and its events."""
    out.parent.mkdir(parents=True, exist_ok=True)
    told = out.with_suffix(".events")
    since = time.monotonic()
    subprocess.run(
        [ROOT / "steerlab", "sweep", "--engine=embedded", "--out", out, "--events", told, *words],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall = time.monotonic() - since
    return wall, [json.loads(line) for line in told.read_text().splitlines()]


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def _spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 2) for name, value in found.items()} | {"count": len(values)}


if __name__ == "__main__":
    main(sys.argv[1:])
