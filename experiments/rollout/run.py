"""A rollout: looks at the nodes, then takes them from stage to stage; never more than a batch at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, TypeVar

from experiments.rollout import gate, states
from experiments.rollout.contract import Change, Fleet, Phase, Reading, Status
from experiments.rollout.states import Stage, State
from infra.errors import InvalidInput, PrerequisiteMissing, Refusal

T = TypeVar("T")
AT_ONCE = 32  # calls of nodes
SLACK_S = 120.0  # of a trial beside the readings of the gate: for the calls of so many nodes


def identity(plan: Mapping[str, Any]) -> str:
    """The name of a plan's rollout: a plan that a node has already needs no other one (pure)."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]


def trial_seconds(batch: int, seconds: float) -> float:
    """The length of a trial in a batch with readings of `seconds` (pure); of more nodes than AT_ONCE some wait."""
    return ceil(batch / AT_ONCE) * (SLACK_S + 2 * seconds)


@dataclass(frozen=True)
class Survey:
    """The nodes of a selector, and what a rollout would change on each."""

    changes: Mapping[str, Sequence[Change]]  # of the nodes that do not have the plan
    has: Sequence[str]  # nodes that keep it already
    trials: Sequence[str] = ()  # nodes in an interrupted trial
    left_out: Mapping[str, str] = field(default_factory=dict)  # nodes that are not Ready
    refused: Mapping[str, str] = field(default_factory=dict)  # nodes that cannot have the plan

    def order(self, most: int) -> list[str]:
        """The nodes to change. Raises `InvalidInput` above `most`, `PrerequisiteMissing` where one cannot."""
        if self.refused:
            node, why = next(iter(self.refused.items()))
            others = f" (and {len(self.refused) - 1} more nodes)" if len(self.refused) > 1 else ""
            raise PrerequisiteMissing(
                f"node {node}: {why}{others}; the rollout has not begun: exclude it by the selector, or choose "
                "another configuration"
            )
        if len(self.changes) > most:
            raise InvalidInput(
                f"max-nodes: the selector has {len(self.changes)} nodes to change, more than {most}: "
                f"narrow it, or give --max-nodes {len(self.changes)}"
            )
        return list(self.changes)


def survey(fleet: Fleet, rollout: str, *, end_trials: bool) -> Survey:
    """Look at every node; with `end_trials` interrupted trials are undone first."""
    members = fleet.members()
    ready = [one.name for one in members if one.ready]
    left_out = {one.name: "it is not Ready" for one in members if not one.ready}
    statuses, refused = each(fleet.status, ready)
    trials = [node for node, one in statuses.items() if one.phase is Phase.TRIAL]
    if end_trials and trials:
        _, stuck = each(fleet.undo, trials)
        again, lost = each(fleet.status, [node for node in trials if node not in stuck])
        statuses, refused = {**statuses, **again}, {**refused, **stuck, **lost}
    has = [node for node, one in statuses.items() if one == Status(Phase.KEPT, rollout)]
    wanted = [node for node in statuses if node not in {*has, *refused}]
    same: dict[tuple[Change, ...], tuple[Change, ...]] = {}  # nodes are mostly alike

    def preview(node: str) -> tuple[Change, ...]:
        changes = tuple(fleet.preview(node))
        return same.setdefault(changes, changes)

    changes, unfit = each(preview, wanted)
    return Survey(changes, has, [] if end_trials else trials, left_out, {**refused, **unfit})


def steered(found: Survey, state: State) -> set[str]:
    """The nodes that need their agent after a rollout: they have a plan, or may have one (pure)."""
    return {*found.has, *state.kept, *state.stuck}


def roll(
    fleet: Fleet,
    state: State,
    *,
    seconds: float,
    report: Callable[[State], None] = lambda _: None,
) -> State:
    """Take a rollout to its end; readings of the gate take `seconds`, none if it is 0.

    When a stage fails the trials in flight are undone, and the rollout ends. An interrupt does the same.
    """
    baseline: dict[str, Reading] = {}
    try:
        while state.stage is not Stage.END:
            report(state)
            failed = _perform(fleet, state, seconds, baseline)
            state = states.after(state, failed)
    except BaseException:
        if state.stage in states.TOUCHED:
            each(fleet.undo, state.flight)
        raise
    return state


def _perform(
    fleet: Fleet, state: State, seconds: float, baseline: dict[str, Reading]
) -> Mapping[str, str]:
    """Do a stage with the nodes in flight; returns the failures."""
    steps: Mapping[Stage, Callable[[str], None]] = {
        Stage.TRY: fleet.attempt,
        Stage.KEEP: fleet.keep,
        Stage.UNDO: fleet.undo,
    }
    if step := steps.get(state.stage):
        return each(step, state.flight)[1]
    readings, failed = each(partial(fleet.observe, seconds=seconds), state.flight)
    if state.stage is Stage.OBSERVE:
        baseline.clear()
        baseline.update(readings)
        unready = {node: "it is not Ready" for node, one in readings.items() if not one.ready}
        return {**failed, **unready}
    worse = {node: "; ".join(gate.faults(baseline[node], one)) for node, one in readings.items()}
    return {**failed, **{node: why for node, why in worse.items() if why}}


def each(work: Callable[[str], T], nodes: Iterable[str]) -> tuple[dict[str, T], dict[str, str]]:
    """Do the same on several nodes at once: the results, and the reasons of the failures."""
    names = list(nodes)
    done: dict[str, T] = {}
    failed: dict[str, str] = {}
    if not names:
        return done, failed
    pool = ThreadPoolExecutor(min(AT_ONCE, len(names)))
    try:
        for node, outcome in zip(names, pool.map(partial(_tried, work), names), strict=True):
            if isinstance(outcome, Refusal):
                failed[node] = str(outcome)
            else:
                done[node] = outcome
    finally:
        pool.shutdown(cancel_futures=True)
    return done, failed


def _tried(work: Callable[[str], Any], node: str) -> Any:
    try:
        return work(node)
    except Refusal as refusal:
        return refusal
