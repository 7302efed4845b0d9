"""Runs the scripts of `command:local:Command` resources with the semantics of pulumi-command 1.2.1."""

from __future__ import annotations

import math
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments import signals
from experiments.engines.embedded.planning import UNKNOWN, differences, unknown
from experiments.engines.embedded.provider import (
    OperationFailed,
    OperationInterrupted,
    Properties,
)
from infra.commands import how_ended

TYPE = "command:local:Command"
LOGGING = ("stdout", "stderr", "stdoutAndStderr", "none")

# Seconds that a process group has between SIGTERM and SIGKILL.
GRACE = 5.0
_TICK = 0.1
_TAIL = 20  # lines of output in an error message
_INPUTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("create", "update", "delete", "stdin", "dir"),
        ("a string", lambda value: isinstance(value, str)),
    ),
    "logging": (f"one of {', '.join(LOGGING)}", lambda value: value in LOGGING),
    "interpreter": ("a list of strings", lambda value: _strings(value, list)),
    "environment": ("a map of strings", lambda value: _strings(value, dict)),
    "addPreviousOutputInEnv": ("a boolean", lambda value: isinstance(value, bool)),
    "triggers": ("a list", lambda value: isinstance(value, list)),
}


def problems(inputs: Properties) -> list[str]:
    """Invalid and unsupported inputs of a command."""
    found = [f"input {name} is not supported" for name in inputs if name not in _INPUTS]
    for name, (kind, fits) in _INPUTS.items():
        if inputs.get(name, UNKNOWN) != UNKNOWN and not fits(inputs[name]):
            found.append(f"input {name} must be {kind}")
    return found


def _strings(value: Any, kind: type) -> bool:
    values = value.values() if isinstance(value, dict) else value
    return isinstance(value, kind) and all(isinstance(v, str) for v in values)


class Commands:
    """Runs scripts in the project's folder, each in a process group of its own.

    In a preview it runs nothing and predicts the outputs.
    """

    def __init__(self, root: Path, home: Path, *, preview: bool = False) -> None:
        self.preview = preview
        self._root = root
        # the place of the state, as the CLI has it
        self._backend = {"PULUMI_BACKEND_URL": home.resolve().as_uri()}
        self.stopping = threading.Event()

    @property
    def stopped(self) -> bool:
        return self.stopping.is_set()

    def stop(self) -> None:
        """End running scripts (their threads send the signals) and start no others."""
        self.stopping.set()

    def create(self, _: str, inputs: Properties) -> Properties:
        """The outputs of a new resource."""
        if self.preview:
            return {**inputs, "stdout": UNKNOWN, "stderr": UNKNOWN}
        return self._outputs(inputs.get("create"), inputs, {})

    def update(self, type_: str, inputs: Properties, recorded: Properties) -> Properties:
        """The outputs of a changed resource."""
        if self.preview:
            # As in the provider, an added input leaves the outputs known.
            changed = {path[0] for path in differences(recorded, {**recorded, **inputs})}
            changed |= _INPUTS.keys() - inputs.keys()
            certain = not unknown(inputs) and changed.isdisjoint(recorded)
            return {**recorded, **inputs} if certain else self.create(type_, inputs)
        script = inputs.get("update", inputs.get("create"))
        return self._outputs(script, inputs, recorded)

    def delete(self, _: str, recorded: Properties) -> None:
        if not self.preview:
            self._outputs(recorded.get("delete"), recorded, recorded)

    def new_id(self, name: str, _: Properties) -> str:
        return "" if self.preview else f"{name}{secrets.token_hex(4)}"

    def _outputs(
        self, script: str | None, properties: Properties, before: Properties
    ) -> Properties:
        """Run the script, if there is one, and return the outputs of the resource."""
        outputs = {"stdout": before.get("stdout", ""), "stderr": before.get("stderr", "")}
        if script is not None:
            outputs = self._run(script, properties, outputs)
        return {**properties, **outputs}

    def _run(self, script: str, properties: Properties, before: dict[str, str]) -> dict[str, str]:
        if self.stopped:
            raise OperationFailed("interrupted before it started")
        environment = {**os.environ, **self._backend, **properties.get("environment", {})}
        if properties.get("addPreviousOutputInEnv", True):
            previous = {f"PULUMI_COMMAND_{name.upper()}": text for name, text in before.items()}
            environment |= {name: text for name, text in previous.items() if text}
        stdin = properties.get("stdin") or None
        try:
            process = signals.apart(
                lambda: subprocess.Popen(
                    [*(properties.get("interpreter") or ["/bin/sh", "-c"]), script],
                    cwd=self._root / properties.get("dir", ""),
                    env=environment,
                    stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            )
        except (OSError, ValueError) as error:
            raise OperationFailed(f"cannot start: {error}: running {_shown(script)}") from error
        with process:
            ended, stdout, stderr = self._attend(process, stdin and stdin.encode())
        if ended or process.returncode:
            kind = OperationInterrupted if ended else OperationFailed
            why = "interrupted" if ended else how_ended(process.returncode)
            raise kind(f"{why}: running {_shown(script)}{_tail(stderr or stdout)}")
        return {"stdout": _text(stdout), "stderr": _text(stderr)}

    def _attend(
        self, process: subprocess.Popen[bytes], stdin: bytes | None
    ) -> tuple[bool, bytes, bytes]:
        """Wait for the end of a process; after `stop`, end its process group.

        Returns whether the group was ended, stdout and stderr.
        """
        ended, due = False, math.inf
        signals = iter((signal.SIGTERM, signal.SIGKILL))
        while True:
            try:
                stdout, stderr = process.communicate(stdin, timeout=_TICK)
                break
            except subprocess.TimeoutExpired as waiting:
                stdin, stdout, stderr = None, waiting.stdout or b"", waiting.stderr or b""
            now = time.monotonic()
            if not ended and self.stopped:
                ended, due = True, now
            if ended and now >= due:
                number = next(signals, None)
                if number is None:  # a process that left the group keeps the output open
                    break
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                due = now + GRACE
        if ended:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return ended, stdout, stderr


def _text(output: bytes) -> str:
    return output.decode(errors="replace").removesuffix("\n")


def _shown(script: str) -> str:
    first, *more = script.strip().splitlines() or [""]
    return repr(first[:200] + (" ..." if more or len(first) > 200 else ""))


def _tail(output: bytes) -> str:
    lines = _text(output).splitlines()[-_TAIL:]
    return "".join(f"\n  {line[:500]}" for line in lines)
