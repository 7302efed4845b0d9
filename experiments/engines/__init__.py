"""The contract of an engine: converge, preview and destroy one stack of this project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Operation = Literal["create", "update", "replace", "delete", "same"]
Phase = Literal["start", "done", "failed", "skipped"]


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


@dataclass(frozen=True)
class Step:
    """One thing that happens to one resource; `detail` is the changed inputs or the error."""

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
    """What an engine did (or, for a preview, would do) and the stack's outputs.

    `changes` has one entry per resource that was not left alone, in the order of completion.
    """

    changes: tuple[Step, ...]
    same: int
    outputs: dict[str, Any]


class EngineError(Exception):
    """The engine could not converge the stack; the message says which resource and why."""


class StackLocked(EngineError):
    """Another process works on this stack; the message names it."""


OnStep = Callable[[Step], None]


def silent(_: Step) -> None:
    """The listener of a caller that wants no progress."""


class Engine(Protocol):
    """What `embedded` and `pulumi_cli` have in common."""

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
