"""Calls of the node agent on this machine: the only way to read or write steering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from agent.knobs import RX_QUEUE
from infra import untrusted
from infra.errors import VARIABLE, InvalidInput, PrerequisiteMissing, Refusal

AGENT = Path(__file__).resolve().parents[2] / "agent"
COMMAND = [sys.executable, "-I", str(AGENT)]


class AgentFailed(Refusal):
    """The agent did not do what it was asked; the message is its own."""


def call(verb: str, *options: str, plan: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one verb of the agent and return its JSON.

    Raises `InvalidInput` or `PrerequisiteMissing` where the agent refuses, `AgentFailed` where it failed.
    `verify` that finds drift is no failure: its answer lists what drifted.
    """
    text = "" if plan is None else json.dumps(plan)
    return read(verb, *_run(verb, *options, words=text))


class _Queue(BaseModel):
    role: str | None = None
    device: str
    queue: Annotated[str, Field(pattern="^(rx|tx)-[0-9]{1,5}$")]
    rps_cpus: str | None = None
    rps_flow_cnt: int | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.queue.startswith(RX_QUEUE) and None in (self.rps_cpus, self.rps_flow_cnt):
            raise ValueError("a receive queue lacks rps_cpus or rps_flow_cnt")
        return self


class _Drift(BaseModel):
    kind: str | None = None
    message: str


class _Holder(BaseModel):
    owner: str


class _Answer(BaseModel):
    """What is used of the agent's answers; one of another version may have more keys."""

    sock_flow_entries: int | None = None
    queues: list[_Queue] = []
    drift: list[_Drift] = []
    warnings: list[str] = []
    snapshots: list[_Holder] = []
    cpus: dict[str, list[int]] = {}
    uppers: list[dict[str, Any]] = []
    restored: int = 0
    gone: list[str] = []
    failed: list[str] = []


_REPORT = ("sock_flow_entries", "queues", "drift", "warnings")
_ALWAYS = {
    "apply": _REPORT,
    "verify": _REPORT,
    "show": ("sock_flow_entries", "queues", "snapshots"),
}


def read(verb: str, status: int, said: str, complaint: str, where: str = "") -> dict[str, Any]:
    """The agent's JSON, or its refusal as the exception that its exit status means (pure)."""
    words = where + (complaint.strip().removeprefix("steer: ") or f"exit {status}")
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


def _run(verb: str, *options: str, words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; an interrupted agent is let put back what it had begun."""
    # its refusal is the caller's to judge, not one of the stack's commands
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    with subprocess.Popen(
        [*COMMAND, verb, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        try:
            said, complaint = process.communicate(words)
        except KeyboardInterrupt:
            process.terminate()
            process.communicate()
            raise
    return process.returncode, said, complaint
