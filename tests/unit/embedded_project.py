"""A throw-away Pulumi project whose commands keep a diary, for the tests of the embedded engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

from experiments.engines import Outcome, StackRef, Step
from experiments.engines.embedded import Embedded
from infra.errors import Refusal

PRELUDE = """
import pulumi
from pulumi import ResourceOptions as Options
from pulumi_command.local import Command

def note(words):
    return f"echo '{{words}}' >> {diary}"

def thing(name, opts=None, **inputs):
    for verb in ("create", "delete"):
        inputs.setdefault(verb, note(verb + " " + name))
    return Command(name, opts=opts, **inputs)

"""


class Project:
    """`up`, `preview` and `destroy` as the engine has them, and what they left."""

    def __init__(self, folder: Path, stack: str = "dev", parallel: int = 8) -> None:
        self.root = folder / "project"
        self.root.mkdir(exist_ok=True)
        self._diary = folder / "diary"
        self.stack = StackRef(self.root, folder, stack, {}, "tried")
        self.engine = Embedded(parallel)
        self.steps: list[Step] = []

    def write(self, program: str) -> None:
        text = PRELUDE.format(diary=self._diary) + dedent(program)
        (self.root / "__main__.py").write_text(text)

    def up(self, program: str | None = None, replace: Sequence[str] = ()) -> Outcome:
        """Converge; a program given here is written first, and the diary begins anew."""
        return self._do("up", program, replace=replace)

    def preview(self, program: str | None = None, replace: Sequence[str] = ()) -> Outcome:
        return self._do("preview", program, replace=replace)

    def destroy(self) -> Outcome:
        return self._do("destroy", None)

    def fails(self, program: str | None = None, verb: str = "up") -> str:
        """The message of a run that must fail."""
        try:
            self._do(verb, program)
        except Refusal as error:
            return str(error)
        raise AssertionError(f"{verb} did not fail")

    def _do(self, verb: str, program: str | None, **options: Any) -> Outcome:
        if program is not None:
            self.write(program)
        self._diary.write_text("")
        self.steps = []
        outcome: Outcome = getattr(self.engine, verb)(
            self.stack, on_step=self.steps.append, **options
        )
        return outcome

    @property
    def diary(self) -> list[str]:
        return self._diary.read_text().splitlines()

    @property
    def checkpoint(self) -> Path:
        return self.stack.home / f".pulumi/stacks/tried/{self.stack.name}.json"

    @property
    def latest(self) -> dict[str, Any]:
        latest: dict[str, Any] = json.loads(self.checkpoint.read_text())["checkpoint"]["latest"]
        return latest

    def edit(self, **fields: Any) -> None:
        """Change the checkpoint by hand."""
        document = json.loads(self.checkpoint.read_text())
        document["checkpoint"]["latest"].update(fields)
        self.checkpoint.write_text(json.dumps(document))

    @property
    def names(self) -> list[str]:
        """The commands in the checkpoint."""
        return [r["urn"].rsplit("::", 1)[-1] for r in self.commands]

    @property
    def commands(self) -> list[dict[str, Any]]:
        resources = self.engine.resources(self.stack)
        return [r for r in resources if r["type"] == "command:local:Command"]

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The one recorded resource of a name."""
        resources = self.engine.resources(self.stack)
        [resource] = [r for r in resources if r["urn"].endswith(f"::{name}")]
        return resource

    def urn(self, name: str) -> str:
        urn: str = self[name]["urn"]
        return urn


def done(outcome: Outcome) -> dict[str, str]:
    """What happened to each command and component, by name; the stack and `same` left out."""
    return {s.name: s.operation for s in outcome.changes if s.type != "pulumi:pulumi:Stack"}
