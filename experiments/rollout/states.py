"""The state machine of a rollout (pure): the canary, then batches, each observed, tried, judged and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Stage(StrEnum):
    """What is done next with the nodes in flight."""

    OBSERVE = "observe"  # their baseline
    TRY = "try"
    JUDGE = "judge"
    KEEP = "keep"
    UNDO = "undo"
    END = "end"


# Stages in which nodes in flight may have the plan as a trial.
TOUCHED = (Stage.TRY, Stage.JUDGE, Stage.KEEP, Stage.UNDO)


@dataclass(frozen=True)
class State:
    """The progress of a rollout: at most `batch` nodes are in flight, at first one, the canary."""

    waiting: tuple[str, ...]
    batch: int
    flight: tuple[str, ...] = ()
    stage: Stage = Stage.OBSERVE
    kept: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)  # reasons by node
    stuck: Mapping[str, str] = field(default_factory=dict)  # nodes whose trial could not be undone


def begin(nodes: Sequence[str], batch: int) -> State:
    """A rollout to some nodes, in their order."""
    if not nodes:
        return State((), batch, stage=Stage.END)
    return State(tuple(nodes[1:]), batch, (nodes[0],))


def after(state: State, failed: Mapping[str, str]) -> State:
    """The state after a stage in which some nodes in flight failed, each with its reason."""
    if state.stage is Stage.UNDO:
        return replace(state, stage=Stage.END, flight=(), stuck={**state.stuck, **failed})
    if not failed:
        return _passed(state)
    reasons = {**state.failed, **failed}
    if state.stage is Stage.OBSERVE:
        return replace(state, stage=Stage.END, flight=(), failed=reasons)
    if state.stage is Stage.KEEP:
        kept = tuple(node for node in state.flight if node not in failed)
        state = replace(state, flight=tuple(failed), kept=(*state.kept, *kept))
    return replace(state, stage=Stage.UNDO, failed=reasons)


_NEXT = {Stage.OBSERVE: Stage.TRY, Stage.TRY: Stage.JUDGE, Stage.JUDGE: Stage.KEEP}


def _passed(state: State) -> State:
    if state.stage is not Stage.KEEP:
        return replace(state, stage=_NEXT[state.stage])
    flight, waiting = state.waiting[: state.batch], state.waiting[state.batch :]
    stage = Stage.OBSERVE if flight else Stage.END
    kept = (*state.kept, *state.flight)
    return replace(state, waiting=waiting, flight=flight, stage=stage, kept=kept)
