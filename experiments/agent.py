"""Calls of the node agent on this machine: the only way to read or write steering."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.refusals import BadInput, Cannot

AGENT = Path(__file__).resolve().parent.parent / "docker" / "steering" / "steer.py"


class AgentFailed(RuntimeError):
    """The agent did not do what it was asked; the message is its own."""


def call(verb: str, *options: str, plan: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one verb of the agent and return its JSON.

    Raises `BadInput` or `Cannot` where the agent refuses, `AgentFailed` where it failed.
    `verify` that finds drift is no failure: its answer lists what drifted.
    """
    done = subprocess.run(
        [sys.executable, str(AGENT), verb, *options],
        input=json.dumps(plan) if plan is not None else "",
        capture_output=True,
        text=True,
        check=False,
    )
    words = done.stderr.strip().removeprefix("steer: ") or f"exit {done.returncode}"
    if done.returncode in (2, 3):
        raise (BadInput if done.returncode == 2 else Cannot)(words)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AgentFailed(words) from None
    if done.returncode != 0 and not (verb == "verify" and answer.get("drift")):
        raise AgentFailed(words)
    return answer
