"""The Pulumi CLI as an engine, driven by the Automation API, with a local file backend or the team's."""

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
from typing import Any, get_args
from urllib.parse import quote as quote_url

import yaml
from pulumi import automation
from pulumi.automation import _cmd, errors, events

from analysis import files
from experiments import signals
from experiments.engines import (
    STACK_TYPE,
    EngineError,
    OnStep,
    Operation,
    Outcome,
    Phase,
    StackLocked,
    StackRef,
    Step,
    backend,
    locks,
    outputs_of,
    refusals_told,
    silent,
    trust,
)
from infra import checkpoint
from infra.kubernetes import made_by

_PROVIDER = "pulumi:providers:"


class Program(automation.PulumiCommand):
    """`pulumi` in a session of its own: it gets one SIGINT, from `stop`, and none from the terminal.

    The first SIGINT ends the CLI in order, a second one kills it.
    """

    _running: subprocess.Popen[str] | None = None

    def __init__(self, environment: Mapping[str, str]) -> None:
        """As the SDK does, but `pulumi version` also runs in a session of its own."""
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
        with signals.apart(
            lambda: subprocess.Popen(
                [self.command, "--non-interactive", *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env={**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"},
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
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
        return self._run("up", stack, _Events(on_step), self.outputs, replace=list(replace))

    def preview(
        self, stack: StackRef, *, replace: Sequence[str] = (), on_step: OnStep = silent
    ) -> Outcome:
        events = _Events(on_step, planned=True)
        return self._run("preview", stack, events, replace=list(replace))

    def destroy(self, stack: StackRef, *, on_step: OnStep = silent) -> Outcome:
        return self._run("destroy", stack, _Events(on_step))

    def outputs(self, stack: StackRef) -> dict[str, Any]:
        return outputs_of(self.resources(stack))

    def resources(self, stack: StackRef) -> list[dict[str, Any]]:
        if not (url := backend.shared(stack)):
            return checkpoint.resources(stack.checkpoint)
        given = environment(stack.home, url)
        try:
            workspace = automation.LocalWorkspace(
                work_dir=str(stack.root), env_vars=given, pulumi_command=Program(given)
            )
            document = workspace.export_stack(stack.name).deployment
        except errors.StackNotFoundError:
            return []
        except errors.CommandError as error:
            raise EngineError(_last_words(str(error))) from None
        return list((document or {}).get("resources") or [])

    def _run(
        self,
        verb: str,
        stack: StackRef,
        seen: _Events,
        outputs: Callable[[StackRef], dict[str, Any]] = lambda _: {},
        **options: Any,
    ) -> Outcome:
        """Select or create the stack and run one verb; errors of the CLI become `EngineError`."""
        made_by.refuse_other(stack.name, self.resources(stack), self.name)
        locks.refuse_if_held(stack)
        with TemporaryDirectory(prefix="steerlab-") as temporary, refusals_told():
            config = Path(temporary) / f"Pulumi.{stack.name}.yaml"
            # not the user's file: the CLI would write a salt into it
            config.write_text(yaml.safe_dump({"config": stack.config}))
            try:
                given = environment(stack.home, backend.shared(stack))
                program = Program(given)
                selected = automation.create_or_select_stack(
                    stack.name,
                    work_dir=str(stack.root),
                    opts=automation.LocalWorkspaceOptions(env_vars=given, pulumi_command=program),
                )
                with signals.stopping(program.stop):
                    getattr(selected, verb)(
                        on_event=seen.hear,
                        config_file=str(config),
                        suppress_progress=True,
                        **options,
                    )
            except errors.ConcurrentUpdateError as error:
                raise StackLocked(
                    f"{_last_words(str(error))}\nwait for that process; if it has ended, remove its "
                    f"lock: rm -- {quote(str(locks.folder_of(stack)))}/*.json"
                ) from None
            except errors.CommandError as error:
                raise EngineError(seen.failure or _last_words(str(error))) from None
            # the SDK's parser and the start of the CLI can raise anything
            except Exception as error:
                raise EngineError(
                    f"the Pulumi CLI ({shutil.which('pulumi')}) cannot be used: "
                    f"{' '.join(str(error).split())}: update it, or use --engine embedded"
                ) from error
            finally:
                files.hand_over(stack.home / ".pulumi")
        return Outcome(tuple(seen.changes), seen.same, outputs(stack))


def environment(home: Path, shared: str = "") -> dict[str, str]:
    """Variables for the CLI: the place of the state, and the project's empty passphrase.

    The caller's passphrase would be needed for every later command; it is that of a shared backend. The CLI panics where its user has
    no name or no home directory, such as an arbitrary uid of a container.
    """
    given = {} if os.environ.get("USER") else {"USER": trust.user(os.geteuid())}
    at_home = os.environ.get("HOME", "")
    if not os.environ.get("PULUMI_HOME") and not os.access(at_home, os.W_OK):
        given["PULUMI_HOME"] = str(home / ".pulumi/cli")
    passphrase = {"PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_CONFIG_PASSPHRASE_FILE": ""}
    if shared and any(os.environ.get(name) for name in passphrase):
        passphrase = {}
    return given | {
        "PULUMI_BACKEND_URL": shared or f"file://{quote_url(str(home))}",
        **passphrase,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PYTHONDONTWRITEBYTECODE": "1",  # no caches of root in a user's checkout
    }


def _last_words(text: str) -> str:
    """The lines with `error:`, else the last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if "error:" in line]
    return "\n".join((wrong or lines)[-5:])


class _Events:
    """The steps and errors in the CLI's engine events; a preview reports a step once, beforehand."""

    def __init__(self, on_step: OnStep, *, planned: bool = False) -> None:
        self._on_step = on_step
        self._planned = planned
        self._errors: list[str] = []
        self.changes: list[Step] = []
        self.same = 0

    @property
    def failure(self) -> str:
        return "\n".join(dict.fromkeys(self._errors))

    def hear(self, event: events.EngineEvent) -> None:
        if event.resource_pre_event:
            phase: Phase = "done" if self._planned else "start"
            self._step(event.resource_pre_event.metadata, phase)
        elif event.res_outputs_event and not self._planned:
            self._step(event.res_outputs_event.metadata, "done")
        elif event.res_op_failed_event:
            self._step(event.res_op_failed_event.metadata, "failed")
        elif event.diagnostic_event and event.diagnostic_event.severity == "error":
            self._errors.append(event.diagnostic_event.message.strip())

    def _step(self, metadata: events.StepEventMetadata, phase: Phase) -> None:
        name = str(getattr(metadata.op, "value", metadata.op))
        # a replacement has an event of its own beside those of its parts
        operation = next((one for one in get_args(Operation) if one == name), None)
        if operation is None or metadata.type == STACK_TYPE or metadata.type.startswith(_PROVIDER):
            return
        if operation == "same":
            self.same += phase == "done"
            return
        step = Step(operation, metadata.urn, phase, ", ".join(metadata.diffs or ()))
        if phase == "done":
            self.changes.append(step)
        self._on_step(step)
