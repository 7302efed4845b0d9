"""The contract of an engine: converge, preview and destroy one stack of this project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from infra import errors

Operation = Literal["create", "update", "replace", "delete", "same"]
Phase = Literal["start", "done", "failed", "skipped"]
STACK_TYPE = "pulumi:pulumi:Stack"


@dataclass(frozen=True)
class StackRef:
    """A stack of the project in `root`, whose state is under `home` (`.pulumi` inside it).

    `config` holds the stack's configuration with full keys (`steerlab:replicas`), as text.
    """

    root: Path
    home: Path
    name: str
    config: dict[str, str] = field(default_factory=dict)
    project: str = "steerlab"

    @property
    def checkpoint(self) -> Path:
        """The file of its state."""
        from infra import checkpoint  # imports pydantic, which `--help` does not need

        return checkpoint.path_of(self.home, self.project, self.name)


@dataclass(frozen=True)
class Step:
    """One operation on one resource; `detail` has the changed inputs or the error."""

    operation: Operation
    urn: str
    phase: Phase
    detail: str = ""

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]

    @property
    def type(self) -> str:
        return self.urn.split("::")[2].rsplit("$", 1)[-1]


@dataclass(frozen=True)
class Outcome:
    """Changes that an engine made (in a preview: would make), and the stack's outputs.

    `changes` has one entry for each changed resource, in the order of completion.
    """

    changes: tuple[Step, ...]
    same: int
    outputs: dict[str, Any]


class EngineError(errors.Refusal):
    """The engine could not converge the stack; the message names the resource and the cause.

    `exit_code` is 2 or 3 where a refusal of the program or of a node was the cause.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StackLocked(EngineError):
    """Another process uses this stack; the message names it."""


@contextmanager
def refusals_told() -> Iterator[None]:
    """Give an `EngineError` that is raised inside the exit code of the refusal behind it."""
    with errors.collected() as code:
        try:
            yield
        except EngineError as error:
            if error.exit_code == errors.FAILED:
                error.exit_code = code()
            raise


def outputs_of(resources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The outputs of the stack in a checkpoint's resources; empty where it has none (pure)."""
    outputs = (one.get("outputs", {}) for one in resources if one["type"] == STACK_TYPE)
    return dict(next(outputs, {}))


OnStep = Callable[[Step], None]


def silent(_: Step) -> None:
    """A listener that ignores all steps."""


class Engine(Protocol):
    """The interface of `embedded` and `pulumi_cli`."""

    name: str

    def up(
        self, stack: StackRef, *, replace: Sequence[str] = (), on_step: OnStep = silent
    ) -> Outcome: ...

    def preview(
        self, stack: StackRef, *, replace: Sequence[str] = (), on_step: OnStep = silent
    ) -> Outcome: ...

    def destroy(self, stack: StackRef, *, on_step: OnStep = silent) -> Outcome: ...

    def outputs(self, stack: StackRef) -> dict[str, Any]: ...

    def resources(self, stack: StackRef) -> list[dict[str, Any]]:
        """The resources of the last checkpoint (Pulumi's own form); empty where none exists."""
        ...
