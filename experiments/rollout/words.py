"""A rollout in words and as a document (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments.host.nodes import aligned
from experiments.rollout.contract import Change
from experiments.rollout.run import Survey
from experiments.rollout.states import Stage, State

MOST_ROWS = 40  # of a table; --json has all


def plan_text(found: Survey, configuration: str, batch: int) -> str:
    """The nodes in the order of the rollout, each value now and then; nodes that are alike share rows."""
    lines = [f"{configuration}: {_nodes(list(found.changes))} to change"]
    if order := list(found.changes):
        lines[0] += f", first {order[0]}, then in batches of {batch}" * (len(order) > 1)
    for alike, changes in _groups(found.changes):
        lines += ["", f"{_named(alike)}: {len(changes)} values"]
        table = [[one.where, one.knob, one.now, "->", one.then, _stranger(one)] for one in changes]
        lines += [f"  {line}" for line in aligned(table[:MOST_ROWS])] if table else []
        if len(table) > MOST_ROWS:
            lines.append(f"  and {len(table) - MOST_ROWS} more (--json)")
    said = {
        "has it already": found.has,
        "in an interrupted trial, which a rollout undoes first": found.trials,
    }
    lines += [f"{_named(names)}: {words}" for words, names in said.items() if names]
    lines += [f"{node}: left out: {why}" for node, why in found.left_out.items()]
    lines += [f"{node}: prevents the rollout: {why}" for node, why in found.refused.items()]
    return "\n".join(lines)


def _stranger(change: Change) -> str:
    return "set by somebody else" if change.stranger else ""


def _groups(
    changes: Mapping[str, Sequence[Change]],
) -> list[tuple[list[str], Sequence[Change]]]:
    """Nodes with the same changes, together."""
    groups: dict[tuple[Change, ...], list[str]] = {}
    for node, of_node in changes.items():
        groups.setdefault(tuple(of_node), []).append(node)
    return [(names, of_all) for of_all, names in groups.items()]


def _nodes(names: Sequence[str]) -> str:
    return f"{len(names)} node{'s' * (len(names) != 1)}"


def _named(names: Sequence[str]) -> str:
    """Names of nodes; of many, the first and the last one."""
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} to {names[-1]} ({_nodes(names)})"


_DOING = {
    Stage.OBSERVE: "reading before",
    Stage.TRY: "trial",
    Stage.JUDGE: "check",
    Stage.KEEP: "keep",
    Stage.UNDO: "undo",
}


def progress(state: State) -> str:
    """The stage that begins."""
    done = len(state.kept)
    what = "canary" if not done and len(state.flight) == 1 else "batch"
    total = done + len(state.flight) + len(state.waiting)
    return f"{what} {_named(state.flight)}: {_DOING[state.stage]} ({done} of {total} nodes done)"


def result_text(state: State, undo: str) -> str:
    """The end of a rollout."""
    lines = [f"{_nodes(state.kept)} changed: {_named(state.kept)}"] if state.kept else []
    lines += [f"failed      {node}: {why}" for node, why in state.failed.items()]
    if state.failed:
        untouched = f"{_nodes(state.waiting)} untouched" if state.waiting else "no node untouched"
        lines.append(f"stopped     the nodes in flight are as before; {untouched}")
    lines += [
        f"NOT UNDONE  {node}: {why}; it restores itself at the end of its trial"
        for node, why in state.stuck.items()
    ]
    if state.kept:
        lines.append(f"undo        {undo}")
    return "\n".join(lines or ["nothing to change"])


def restored_text(answer: Mapping[str, Any]) -> str:
    """The restored nodes, those that failed, and notes about values that stay."""
    rows = [f"restored  {node}" for node in answer["restored"]]
    rows += [f"failed    {node}: {why}" for node, why in answer["failed"].items()]
    return "\n".join([*rows, *answer["notes"]] or ["no node of the selector has a rollout"])


def document(
    found: Survey, state: State | None, rollout: str, configuration: str
) -> dict[str, Any]:
    """The plan, and the result where there is one."""
    plan = {
        "rollout": rollout,
        "configuration": configuration,
        "changes": {
            node: [asdict(one) for one in of_node] for node, of_node in found.changes.items()
        },
        "has": list(found.has),
        "trials": list(found.trials),
        "left_out": dict(found.left_out),
        "refused": dict(found.refused),
    }
    if state is None:
        return plan
    return {
        **plan,
        "kept": list(state.kept),
        "failed": dict(state.failed),
        "not_undone": dict(state.stuck),
        "untouched": list(state.waiting),
    }
