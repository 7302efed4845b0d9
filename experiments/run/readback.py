"""Steering as read back before and after a run, in the form of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.knobs import KNOBS
from analysis.schema import QueueSteering, Setting, Steering
from experiments.run.verdict import Verdict
from experiments.targets.contract import Backend
from experiments.validity import Cause, Reason

# The agent's answer of each steered node, with its name.
Answers = Sequence[tuple[str, dict[str, Any]]]


def verified(at: Backend, verdict: Verdict, when: str) -> Answers:
    """The agents' answers to `verify`; none where one failed. Renews the lease."""
    return verdict.attempt(Cause.AGENT, f"steering {when}", at.verify, [])


def steering_of(answers: Answers, verdict: Verdict, when: str) -> Steering | None:
    """The steering in the agents' answers; drift makes the run invalid."""
    if not answers:
        return None

    def steering() -> Steering:
        queues: list[QueueSteering] = []
        settings: list[Setting] = []
        table: int | None = None
        for node, answer in answers:
            words = [f"steering {when}: {_words(drift)}" for drift in answer["drift"]]
            verdict.add([Reason(Cause.STEERING, text) for text in words])
            verdict.warnings += answer["warnings"]
            queues += [_queue(node, row) for row in answer["queues"] if "rps_cpus" in row]
            settings += _settings(node, answer)
            table = answer["sock_flow_entries"] if table is None else table
        return Steering(sock_flow_entries=table, queues=queues, settings=settings)

    return verdict.attempt(Cause.AGENT, f"steering {when}", steering, None)


def _words(drift: Any) -> str:
    return drift if isinstance(drift, str) else str(drift.get("message", drift))


# Knobs that a record has fields for.
_OWN_FIELDS = {*QueueSteering.model_fields, "rps_sock_flow_entries"}


def _queue(node: str, queue: dict[str, Any]) -> QueueSteering:
    fields = ("role", "device", "queue", "rps_cpus", "rps_flow_cnt", "pod")
    known = {name: queue.get(name) for name in fields}
    return QueueSteering.model_validate({"node": node, **known})


def _settings(node: str, answer: Mapping[str, Any]) -> list[Setting]:
    """The values of all other knobs, one row each."""
    rows = [
        {**row, "device": row.get("device", ""), "place": row.get("queue", place)}
        for key, place in (("queues", ""), ("devices", "device"), ("namespaces", "namespace"))
        for row in answer.get(key, ())
    ]
    machine = {"role": "machine", "device": "", "place": "machine", **answer.get("machine", {})}
    return [
        Setting(
            node=node,
            role=row["role"],
            device=row["device"],
            place=row["place"],
            knob=name,
            value=str(row[name]),
        )
        for row in (*rows, machine)
        for name in KNOBS
        if name in row and name not in _OWN_FIELDS
    ]
