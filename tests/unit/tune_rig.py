"""A node without a lab whose settings multiply the bitrate, and tunings on it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_sweep import Engine

from analysis.schema import Pair, Record
from experiments.run import switchback, tune_plan, tune_state
from experiments.run.episodes import Timing
from experiments.run.measure import Place
from experiments.run.tune import Progress, Tune
from experiments.targets.lab.backend import LabBackend
from infra.errors import PrerequisiteMissing
from infra.lab.measurement import Measurement

LEVEL = 1000.0


class Rig:
    """A node whose settings multiply the bitrate, with a clock that episodes advance."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine = Engine()
        self.now = 0.0
        self.draw = random.Random(1)  # noqa: S311 noise
        self.factors: dict[str, float] = {"gro": 1.5, "rps_flow_cnt": 1.2}
        self.refused = {"xps_cpus"}
        self.same = {"veth"}
        self.episodes: list[list[str]] = []
        self.timings: list[Timing] = []
        self.bad: Callable[[int, str], bool] = lambda *_: False
        self.before: Callable[[], None] = lambda: None
        self.latency: Callable[[str], float] = lambda _: 100.0
        self.told: list[Progress] = []

    def ratio(self, what: Measurement) -> float:
        """Of what the plan sets: each knob once."""
        rules = what.plans[0]["rules"]
        knobs = set()
        for rule in rules:
            words = rule.get("set") or {"rps_cpus": rule["cpus"], "rps_flow_cnt": rule["flows"]}
            knobs |= {knob for knob, word in words.items() if word not in ("none", 0, "off")}
        return math.prod(self.factors.get(knob, 1.0) for knob in knobs)

    def run(self, whats: Sequence[Measurement], key: str, **given: Any) -> list[Record]:
        self.before()
        names = [one.configuration for one in whats]
        self.episodes.append(names)
        timing, places = given["timing"], given["places"]
        self.now += 1.2 + timing.end(len(names)) - timing.warm_up
        self.timings.append(timing)
        level = self.draw.gauss(0, 0.05)
        made = []
        for one, place in zip(whats, places, strict=True):
            made.append(self.record(one, place, given["replicas"], level))
        bad = {one.configuration for one in made if not one.valid}
        if key in bad:
            made = [self.failed(one) for one in made]
        return made

    def record(self, what: Measurement, place: Place, replicas: int, level: float) -> Record:
        rate = LEVEL * self.ratio(what) * math.exp(level + self.draw.gauss(0, 0.02))
        p99 = self.latency(what.configuration) * math.exp(self.draw.gauss(0, 0.05))
        pairs = [
            Pair(index=index, values={"bitrate_mbps": rate}, kind="stream")
            for index in range(1, replicas + 1)
        ]
        pairs.append(Pair(index=replicas + 1, kind="rr", values={"p99_us": p99}))
        record = Record(
            target="lab", method="switchback", stack=what.stack, definition=what.definition,
            configuration=what.configuration, replicas=replicas, pairs=pairs, duration=1,
            traffic=what.traffic, block=place.block, order=place.order, seed=place.seed,
            plan=place.plan, attempt=place.attempt, valid=True,
        )  # fmt: skip
        assert place.block is not None
        return self.failed(record) if self.bad(place.block, what.configuration) else record

    @staticmethod
    def failed(record: Record) -> Record:
        return record.model_copy(update={"valid": False, "reasons": ["late"], "causes": ["window"]})

    def preview(self, _: Any, what: Measurement) -> list[dict[str, Any]]:
        changes = []
        for rule in what.plans[0]["rules"]:
            words = rule.get("set") or {"rps_cpus": rule["cpus"], "rps_flow_cnt": rule["flows"]}
            if self.refused & words.keys():
                raise PrerequisiteMissing("XPS needs more than one transmit queue")
            changes += [
                {"where": rule["role"], "knob": knob, "found": "", "wanted": word}
                for knob, word in words.items()
                if word not in ("none", 0, "off") and rule["role"] not in self.same
            ]
        return changes

    def tune(self, state: tune_state.TuneState, *, resume: bool = False) -> Tune:
        job = Tune(self.directory, state, self.engine, clock=lambda: self.now)
        job.on_progress = self.told.append
        job.prepare(resume=resume)
        return job


class Interrupt:
    """Raises at the n-th episode."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig(folder / "out")
    monkeypatch.setattr(switchback, "run", rig.run)
    monkeypatch.setattr(LabBackend, "preview", lambda self, what: rig.preview(self, what))
    return rig


def plan(names: str = "", **changes: Any) -> tune_state.TuneState:
    minutes, by = changes.pop("minutes", 3.0), changes.pop("by", "bitrate_mbps")
    chosen = tune_plan.chosen(names) if names else ()
    return tune_plan.plan({"seed": 7, **changes}, minutes=minutes, by=by, chosen=chosen)
