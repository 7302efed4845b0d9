"""The engine that is the Pulumi CLI, driven by the Automation API over a local file backend."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote as quote_url

import yaml
from pulumi import automation
from pulumi.automation import _cmd, errors, events

from analysis import files
from experiments import signals
from experiments.engines import (
    EngineError,
    OnStep,
    Operation,
    Outcome,
    StackLocked,
    StackRef,
    Step,
    locks,
    refusals_told,
    silent,
)
from infra import checkpoint
from infra.kubernetes import made_by

# The CLI's operations in the contract's words; a replacement is told by its own event alone.
_OPERATIONS: dict[str, Operation] = {
    "create": "create",
    "update": "update",
    "replace": "replace",
    "delete": "delete",
    "same": "same",
}
_STACK_TYPE = "pulumi:pulumi:Stack"
_PROVIDER = "pulumi:providers:"


def available() -> bool:
    """Whether the Pulumi CLI is on PATH."""
    return shutil.which("pulumi") is not None


class Program(automation.PulumiCommand):
    """`pulumi` in a session of its own: Ctrl-C reaches it by `stop` alone, once for each call.

    The first ends it in order; the SDK's own would be killed by the terminal's second.
    """

    _running: subprocess.Popen[str] | None = None

    def __init__(self, environment: Mapping[str, str]) -> None:
        """As the SDK's, which would leave its call for the version to the terminal's Ctrl-C."""
        self.command = "pulumi"
        told = self.run(["version"], "/", environment).stdout
        self.version = _cmd._parse_and_validate_pulumi_version(
            min_version=_cmd._MINIMUM_VERSION,  # type: ignore[attr-defined] # imported there
            current_version=told.strip().removeprefix("v"),
            opt_out=_cmd._SKIP_VERSION_CHECK_VAR in os.environ,  # type: ignore[attr-defined] # likewise
        )

    def stop(self) -> None:
        if self._running is not None:
            self._running.send_signal(signal.SIGINT)

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], object] | None = None,
        on_error: Callable[[str], object] | None = None,
    ) -> automation.CommandResult:
        """As the SDK runs it (`pulumi.automation._cmd`)."""
        with subprocess.Popen(
            [self.command, "--non-interactive", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"},
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        ) as process:
            self._running = process
            try:
                with ThreadPoolExecutor(2) as readers:
                    heard = readers.submit(_lines, process.stdout, on_output)
                    said = readers.submit(_lines, process.stderr, on_error)
                out, err, code = heard.result(), said.result(), process.wait()
            finally:
                self._running = None
        result = automation.CommandResult(stdout=out, stderr=err, code=code)
        if code != 0:
            raise errors.create_command_error(result)
        return result


def _lines(stream: Iterable[str] | None, listener: Callable[[str], object] | None) -> str:
    lines = []
    for line in stream or ():
        lines.append(line.rstrip())
        if listener:
            listener(lines[-1])
    return "\n".join(lines)


class PulumiCli:
    """Engine contract over `pulumi` on PATH (see `experiments.engines.Engine`)."""

    name = "pulumi"

    def up(
        self, stack: StackRef, *, replace: Sequence[str] = (), on_step: OnStep = silent
    ) -> Outcome:
        with _Events(on_step) as seen:
            self._run(
                stack,
                lambda it, config: it.up(
                    on_event=seen.hear,
                    replace=list(replace),
                    config_file=config,
                    suppress_progress=True,
                ),
                seen,
            )
        return seen.outcome(self.outputs(stack))

    def preview(
        self, stack: StackRef, *, replace: Sequence[str] = (), on_step: OnStep = silent
    ) -> Outcome:
        with _Events(on_step) as seen:
            self._run(
                stack,
                lambda it, config: it.preview(
                    on_event=seen.plan,
                    replace=list(replace),
                    config_file=config,
                    suppress_progress=True,
                ),
                seen,
            )
        return seen.outcome({})

    def destroy(self, stack: StackRef, *, on_step: OnStep = silent) -> Outcome:
        with _Events(on_step) as seen:
            self._run(
                stack,
                lambda it, config: it.destroy(
                    on_event=seen.hear, config_file=config, suppress_progress=True
                ),
                seen,
            )
        return seen.outcome({})

    def outputs(self, stack: StackRef) -> dict[str, Any]:
        for resource in self.resources(stack):
            if resource["type"] == _STACK_TYPE:
                return dict(resource.get("outputs", {}))
        return {}

    def resources(self, stack: StackRef) -> list[dict[str, Any]]:
        try:
            return checkpoint.resources(checkpoint.path_of(stack.home, stack.project, stack.name))
        except checkpoint.Damaged as error:
            raise EngineError(str(error)) from None

    def _run(
        self, stack: StackRef, do: Callable[[automation.Stack, str], object], seen: _Events
    ) -> None:
        """Select or create the stack and do one thing with it; the CLI's errors become ours."""
        made_by.refuse_other(stack.name, self.resources(stack), self.name)
        locks.refuse_if_held(stack)
        with TemporaryDirectory(prefix="steerlab-") as temporary, refusals_told():
            config = Path(temporary) / f"Pulumi.{stack.name}.yaml"
            # The user's file is not handed over: the CLI would write a salt into it.
            config.write_text(yaml.safe_dump({"config": stack.config}))
            try:
                given = environment(stack.home)
                program = Program(given)
                selected = automation.create_or_select_stack(
                    stack.name,
                    work_dir=str(stack.root),
                    opts=automation.LocalWorkspaceOptions(env_vars=given, pulumi_command=program),
                )
                with signals.stopping(program.stop):
                    do(selected, str(config))
            except errors.ConcurrentUpdateError as error:
                raise StackLocked(
                    f"{_last_words(str(error))}\nwait for that process, or, if it is gone, remove its "
                    f"lock: rm -- {quote(str(locks.folder_of(stack)))}/*.json"
                ) from None
            except errors.CommandError as error:
                raise EngineError(seen.failure or _last_words(str(error))) from None
            except (
                Exception
            ) as error:  # the library raises what its parsing or the CLI's start does
                raise EngineError(
                    f"the Pulumi CLI ({shutil.which('pulumi')}) cannot be used: "
                    f"{' '.join(str(error).split())}: update it, or use --engine embedded"
                ) from error
            finally:
                files.hand_over(stack.home / ".pulumi")


def environment(home: Path) -> dict[str, str]:
    """What the CLI gets besides ours: where the state is, and the project's own empty passphrase.

    The caller's would lock the stack to it, for every later command. The CLI ends in a panic where
    its user has no name or no home, as an arbitrary uid of a container.
    """
    given = {} if os.environ.get("USER") else {"USER": locks.user()}
    at_home = os.environ.get("HOME", "")
    if not os.environ.get("PULUMI_HOME") and not os.access(at_home, os.W_OK):
        given["PULUMI_HOME"] = str(home / ".pulumi/cli")
    return given | {
        "PULUMI_BACKEND_URL": f"file://{quote_url(str(home))}",
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_CONFIG_PASSPHRASE_FILE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PYTHONDONTWRITEBYTECODE": "1",  # caches of root's in a user's checkout
    }


def _last_words(text: str) -> str:
    """The lines that say `error:`, else the last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if "error:" in line]
    return "\n".join((wrong or lines)[-5:])


class _Events:
    """Turns the CLI's engine events into steps and an outcome."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._changes: list[Step] = []
        self._same = 0
        self._errors: list[str] = []

    def __enter__(self) -> _Events:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def failure(self) -> str:
        return "\n".join(dict.fromkeys(self._errors))

    def hear(self, event: events.EngineEvent) -> None:
        """An event of an update or a destroy."""
        if event.resource_pre_event:
            self._step(event.resource_pre_event.metadata, "start")
        elif event.res_outputs_event:
            self._step(event.res_outputs_event.metadata, "done")
        elif event.res_op_failed_event:
            self._step(event.res_op_failed_event.metadata, "failed")
        elif event.diagnostic_event:
            self._diagnose(event.diagnostic_event)

    def plan(self, event: events.EngineEvent) -> None:
        """An event of a preview, which tells each step once, beforehand."""
        if event.resource_pre_event:
            self._step(event.resource_pre_event.metadata, "done")
        elif event.diagnostic_event:
            self._diagnose(event.diagnostic_event)

    def _step(self, metadata: events.StepEventMetadata, phase: Any) -> None:
        operation = _OPERATIONS.get(str(getattr(metadata.op, "value", metadata.op)))
        if operation is None or metadata.type == _STACK_TYPE or metadata.type.startswith(_PROVIDER):
            return
        if operation == "same":
            self._same += phase == "done"
            return
        step = Step(operation, metadata.urn, phase, ", ".join(metadata.diffs or ()))
        if phase == "done":
            self._changes.append(step)
        self._on_step(step)

    def _diagnose(self, event: events.DiagnosticEvent) -> None:
        if event.severity == "error":
            self._errors.append(event.message.strip())

    def outcome(self, outputs: dict[str, Any]) -> Outcome:
        return Outcome(tuple(self._changes), self._same, outputs)
