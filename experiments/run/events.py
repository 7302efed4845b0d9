"""The events of a sweep as JSON lines, for scripts: in order, each flushed at once.

{"event": "planned", "at": "2026-11-23T10:00:00Z", "plan": "...", "method": "isolated", "runs": 72, ...}
{"event": "started", ..., "order": 0, "block": 0, "configuration": "rfs", "replicas": 4, ...}
{"event": "recorded", ..., "order": 0, "valid": true, "bitrate_mbps": 1520.4, "left_s": 288.0}
{"event": "putting back", ...}
{"event": "ended", ..., "why": "complete", "left": 0}
"""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from analysis.metrics import BITRATE
from experiments.run.plan import Run, SweepPlan
from experiments.run.sweep import Done
from experiments.run.tune import Progress
from experiments.run.tune_state import TuneState

Why = Literal["complete", "time", "interrupted", "failed"]


class _Lines:
    """Writes events to a stream, where there is one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def restoring(self) -> None:
        self._write("putting back")

    def _write(self, event: str, **fields: Any) -> None:
        if self._stream is None:
            return
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._stream.write(json.dumps({"event": event, "at": at, **fields}) + "\n")
        self._stream.flush()


class Events(_Lines):
    """The events of one sweep."""

    def __init__(self, stream: TextIO | None, plan: SweepPlan) -> None:
        super().__init__(stream)
        self._plan = plan

    def planned(self, left: int) -> None:
        plan = self._plan
        self._write(
            "planned", plan=plan.digest, method=plan.method, seed=plan.seed, runs=len(plan.runs),
            left=left, left_s=plan.seconds_of(left),
        )  # fmt: skip

    def started(self, run: Run) -> None:
        self._write("started", **dataclasses.asdict(run))

    def recorded(self, done: Done) -> None:
        self._write(
            "recorded", **dataclasses.asdict(done.run), valid=done.record.valid,
            reasons=done.record.reasons, bitrate_mbps=BITRATE.value(done.record),
            finished=done.finished, runs=done.total,
            left_s=self._plan.seconds_of(done.total - done.finished),
        )  # fmt: skip

    def ended(self, why: Why, left: int) -> None:
        self._write("ended", why=why, left=left)


class TuneEvents(_Lines):
    """The events of one tuning: how the field narrows."""

    def planned(self, state: TuneState) -> None:
        self._write(
            "planned", plan=state.digest, arms=state.names, minutes=state.minutes, by=state.by,
            used_s=state.used,
        )  # fmt: skip

    def episode(self, done: Progress) -> None:
        standing = done.standing
        names = done.names
        self._write(
            "episode", phase=done.phase, episode=standing.episodes, valid=not done.problem,
            problem=done.problem, open=[names[arm] for arm in standing.open],
            leader=names[standing.leader],
            ratio=None if done.gain is None else round(math.exp(done.gain), 4),
            recommended=names[standing.recommended], resolved=standing.resolved,
            used_s=round(done.used, 1), budget_s=done.budget,
        )  # fmt: skip

    def ended(self, why: Why) -> None:
        self._write("ended", why=why)
