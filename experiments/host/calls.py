"""Calls of the node agent on this machine: the only way to read or write steering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, create_model, model_validator

from agent.codecs import Count
from agent.knobs import DEVICE, MACHINE, NAMESPACE, RX_QUEUE, TX_QUEUE, of_scope
from experiments import signals
from infra import untrusted
from infra.commands import how_ended
from infra.errors import VARIABLE, InvalidInput, PrerequisiteMissing, Refusal

AGENT = Path(__file__).resolve().parents[2] / "agent"
# Without `site`: the agent has the standard library alone, and an advice may take 100 ms of CPU time.
COMMAND = [sys.executable, "-I", "-S", str(AGENT)]


class AgentFailed(Refusal):
    """A verb of the agent failed; the message is the agent's."""


def call(verb: str, *options: str, plan: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one verb of the agent and return its JSON.

    Raises `InvalidInput` or `PrerequisiteMissing` where the agent refuses, `AgentFailed` where it failed.
    `verify` that finds drift is no failure: its answer lists what drifted.
    """
    text = "" if plan is None else json.dumps(plan)
    return read(verb, *_run(verb, *options, words=text))


def _knobs(*scopes: str) -> dict[str, Any]:
    """A field for each knob that a row may have."""
    kinds = {k.name: int if isinstance(k.codec, Count) else str for k in of_scope(*scopes)}
    return {name: (kind | None, None) for name, kind in kinds.items()}


class _Row(BaseModel):
    role: str | None = None


class _QueueRow(_Row):
    device: str
    queue: Annotated[str, Field(pattern="^(rx|tx)-[0-9]{1,5}$")]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        rows = of_scope(self.queue.partition("-")[0])
        if self.queue.startswith(RX_QUEUE) and any(getattr(self, k.name) is None for k in rows):
            raise ValueError(f"a receive queue lacks one of {', '.join(k.name for k in rows)}")
        return self


class _Change(BaseModel):
    where: str
    knob: str
    found: str
    wanted: str


class _Drift(BaseModel):
    kind: str | None = None
    message: str


class _Holder(BaseModel):
    owner: str


_Queue = create_model("_Queue", __base__=_QueueRow, **_knobs(RX_QUEUE, TX_QUEUE))
_Device = create_model("_Device", __base__=_Row, device=(str, ...), **_knobs(DEVICE))
_Namespace = create_model("_Namespace", __base__=_Row, **_knobs(NAMESPACE))
_Machine = create_model("_Machine", **_knobs(MACHINE))


class _Edge(BaseModel):
    at: float
    own_cpu: float
    stat: str
    softirqs: str
    softnet: str


class _Received(BaseModel):
    bytes: Annotated[float, Field(ge=0)]
    seconds: Annotated[float, Field(gt=0)]


class _Reading(BaseModel):
    at: float
    bytes: list[int | None]


class _Spoiled(BaseModel):
    kind: str
    message: str
    receiver: Annotated[int, Field(ge=0)] | None = None


class _Window(BaseModel):
    plan: str
    edges: tuple[_Edge, _Edge]
    received: list[_Received | None]
    trace: list[_Reading]
    spoiled: list[_Spoiled]


class _Traffic(BaseModel):
    role: str
    namespace: str | None
    device: str
    rx_bytes: int
    rx_packets: int
    rx_dropped: int


class _Counts(_Traffic):
    pod: str | None
    steered: bool


class _Flows(BaseModel):
    namespace: str | None
    received: list[Annotated[int, Field(gt=0)]]


class _Answer(BaseModel):
    """The used parts of the agent's answers; other versions may have more keys."""

    sock_flow_entries: int | None = None
    machine: _Machine = _Machine()  # type: ignore[valid-type]
    queues: list[_Queue] = []  # type: ignore[valid-type]
    devices: list[_Device] = []  # type: ignore[valid-type]
    namespaces: list[_Namespace] = []  # type: ignore[valid-type]
    changes: list[_Change] = []
    drift: list[_Drift] = []
    warnings: list[str] = []
    snapshots: list[_Holder] = []
    cpus: dict[str, list[int]] = {}
    uppers: list[dict[str, Any]] = []
    restored: int = 0
    gone: list[str] = []
    failed: list[str] = []
    start: float = 0
    windows: list[_Window] = []
    device_counts: list[_Counts] = []
    device_edges: tuple[list[_Counts], list[_Counts]] = ([], [])
    plans: dict[str, _Answer] = {}
    edges: list[_Edge] = []
    plan: dict[str, Any] = {}
    traffic: list[_Traffic] = []
    flows: list[_Flows] = []
    cpu_seconds: float = 0


_REPORT = ("sock_flow_entries", "queues", "drift", "warnings")
_ALWAYS = {
    "apply": _REPORT,
    "verify": _REPORT,
    "preview": ("changes", "warnings"),
    "observe": ("queues", "devices", "cpus", "edges", "plan", "traffic", "flows", "cpu_seconds"),
    "switchback": ("start", "plans", "windows"),
    "show": ("sock_flow_entries", "queues", "snapshots"),
    "rollout": ("phase", "rollout", "audit"),
}


def read(verb: str, status: int, said: str, complaint: str, where: str = "") -> dict[str, Any]:
    """The agent's JSON, or its refusal as the exception that its exit status means (pure)."""
    words = where + (complaint.strip().removeprefix("steer: ") or how_ended(status))
    if status in (2, 3):
        raise (InvalidInput if status == 2 else PrerequisiteMissing)(words)
    try:
        answer: dict[str, Any] = untrusted.parsed(said)
        _Answer.model_validate(answer)
        if absent := [key for key in _ALWAYS.get(verb, ()) if key not in answer]:
            raise ValueError(f"it has no {', '.join(absent)}")
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        unread = f"{words}: its answer to {verb} cannot be read: {reason}"
        raise AgentFailed(words if status else unread) from None
    if status != 0 and not (verb == "verify" and answer.get("drift")):
        raise AgentFailed(words)
    return answer


@contextmanager
def episode(schedule: dict[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """The agent's `switchback`, ready; the call that is yielded starts it and returns its JSON.

    Raises as `call` does. An agent that is interrupted restores before it ends.
    """
    with _started("switchback") as process:
        try:
            assert process.stdin and process.stdout  # noqa: S101 both are pipes
            with suppress(BrokenPipeError):  # it refuses: its words say why
                process.stdin.write(json.dumps(schedule) + "\n")
                process.stdin.flush()
            if process.stdout.readline() != "ready\n":
                read("switchback", *_ended(process, None))
                raise AgentFailed("the agent's switchback was not ready")
            yield lambda: read("switchback", *_run_through(process))
        except BaseException:
            process.terminate()
            raise


def _run_through(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Start an episode and await its end, with stdin open: its end would be the episode's."""
    stdin, process.stdin = process.stdin, None
    assert stdin  # noqa: S101 a pipe
    try:
        with suppress(BrokenPipeError):  # it has ended: its words say why
            stdin.write("start\n")
            stdin.flush()
        return _ended(process, None)
    finally:
        with suppress(BrokenPipeError):
            stdin.close()


def _run(verb: str, *options: str, words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    with _started(verb, *options) as process:
        return _ended(process, words)


def _started(verb: str, *options: str) -> subprocess.Popen[str]:
    # the caller handles its refusal; it is not a command of the stack
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return signals.apart(
        lambda: subprocess.Popen(
            [*COMMAND, verb, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    )


def _ended(process: subprocess.Popen[str], words: str | None) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; an interrupted agent can still roll back its changes."""
    try:
        said, complaint = process.communicate(words)
    except KeyboardInterrupt:
        process.terminate()
        process.communicate()
        raise
    return process.returncode, said, complaint
