"""An engine without the Pulumi CLI: the same program, state and semantics, in process.

It supports `command:local:Command` and five Kubernetes kinds, and refuses everything else by name. It
does not replace Pulumi.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments import signals
from experiments.engines import (
    EngineError,
    OnStep,
    Outcome,
    StackRef,
    backend,
    locks,
    outputs_of,
    refusals_told,
    silent,
)
from experiments.engines.embedded import state
from experiments.engines.embedded.checkpoint_writer import CheckpointWriter
from experiments.engines.embedded.command import Commands
from experiments.engines.embedded.deployment import Deployment
from infra.kubernetes import made_by


class Embedded:
    """Implements Engine; `parallel` bounds the commands that run at once."""

    name = "embedded"

    def __init__(self, parallel: int = 8) -> None:
        self._parallel = parallel

    def up(
        self, stack: StackRef, *, replace: Sequence[str] = (), on_step: OnStep = silent
    ) -> Outcome:
        backend.refuse_shared(stack)
        with locks.hold(stack):
            return self._converge(stack, replace, on_step, preview=False)

    def preview(
        self, stack: StackRef, *, replace: Sequence[str] = (), on_step: OnStep = silent
    ) -> Outcome:
        return self._converge(stack, replace, on_step, preview=True)

    def destroy(self, stack: StackRef, *, on_step: OnStep = silent) -> Outcome:
        backend.refuse_shared(stack)
        if state.load(stack) == state.Checkpoint():
            return Outcome((), 0, {})
        with locks.hold(stack):
            deployment = self._deployment(stack, (), on_step, preview=False)
            with signals.stopping(deployment.stop), refusals_told(), deployment.recorded():
                deployment.delete_rest()
            return deployment.outcome()

    def outputs(self, stack: StackRef) -> dict[str, Any]:
        return outputs_of(state.load(stack).resources)

    def resources(self, stack: StackRef) -> list[dict[str, Any]]:
        return state.load(stack).resources

    def _converge(
        self, stack: StackRef, replace: Sequence[str], on_step: OnStep, *, preview: bool
    ) -> Outcome:
        from experiments.engines.embedded import program  # imports the SDK, which is slow

        deployment = self._deployment(stack, replace, on_step, preview=preview)
        with signals.stopping(deployment.stop), refusals_told(), deployment.recorded():
            program.run(stack, deployment, preview=preview, parallel=self._parallel)
        return deployment.outcome()

    def _deployment(
        self, stack: StackRef, replace: Sequence[str], on_step: OnStep, *, preview: bool
    ) -> Deployment:
        checkpoint = state.load(stack)
        state.refuse_unsupported(stack, checkpoint)
        made_by.refuse_other(stack.name, checkpoint.resources, self.name)
        for urn in set(replace) - {resource["urn"] for resource in checkpoint.resources}:
            raise EngineError(f"cannot replace {urn}: stack {stack.name} has no such resource")
        return Deployment(
            stack,
            CheckpointWriter(stack, checkpoint, preview=preview),
            Commands(stack.root, stack.home, preview=preview),
            on_step,
            replace=replace,
            parallel=self._parallel,
        )
