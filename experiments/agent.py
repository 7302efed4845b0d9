"""Calls of the node agent on this machine: the only way to read or write steering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from infra.refusals import VARIABLE, BadInput, Cannot, Refusal

AGENT = Path(__file__).resolve().parent.parent / "docker" / "steering" / "steer.py"


@cache
def source() -> Any:
    """The agent's own module, for its pure functions."""
    module = ModuleType("steer")
    SourceFileLoader("steer", str(AGENT)).exec_module(module)
    return module


class AgentFailed(Refusal):
    """The agent did not do what it was asked; the message is its own."""


def call(verb: str, *options: str, plan: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one verb of the agent and return its JSON.

    Raises `BadInput` or `Cannot` where the agent refuses, `AgentFailed` where it failed.
    `verify` that finds drift is no failure: its answer lists what drifted.
    """
    status, said, complaint = _run(verb, *options, words="" if plan is None else json.dumps(plan))
    words = complaint.strip().removeprefix("steer: ") or f"exit {status}"
    if status in (2, 3):
        raise (BadInput if status == 2 else Cannot)(words)
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        raise AgentFailed(words) from None
    if status != 0 and not (verb == "verify" and answer.get("drift")):
        raise AgentFailed(words)
    return answer


def _run(verb: str, *options: str, words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; an interrupted agent is let put back what it had begun."""
    # its refusal is the caller's to judge, not one of the stack's commands
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    with subprocess.Popen(
        [sys.executable, "-I", str(AGENT), verb, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            said, complaint = process.communicate(words)
        except KeyboardInterrupt:
            process.terminate()
            process.communicate()
            raise
    return process.returncode, said, complaint
