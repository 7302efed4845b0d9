"""The stack of an experiment: set up, repaired, and always destroyed at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import signals
from experiments.engines import Engine, EngineError, StackRef, stacks
from experiments.targets.contract import AnyMeasurement, Target
from infra.errors import Refusal
from infra.settings import StackSettings

# Space for the checkpoint: a full disk must not prevent the restore.
RESERVE = ".reserve"
_RESERVE_BYTES = 2**20


@dataclass
class Stage:
    """One stack, whose state is in the results directory."""

    directory: Path
    name: str
    engine: Engine
    target: Target
    fresh: bool = False  # a new lab for each change
    on_repair: Callable[[], None] = lambda: None
    _current: tuple[str, str] | None = field(default=None, init=False)
    _nodes: Any = field(default=None, init=False)
    _pinned: dict[str, str] | None = field(default=None, init=False)

    def ref(self, values: Mapping[str, str]) -> StackRef:
        """The stack without its settings: its configurations file may be lost when it is destroyed."""
        return stacks.ref(self.directory.resolve(), self.name, values)

    def settings(self, values: Mapping[str, str]) -> tuple[StackRef, StackSettings]:
        if self._pinned is None:
            state = stacks.own(self.directory.resolve(), self.name, values)[1]
            self._pinned = self.target.pinned(state, self.directory)
        return stacks.own(self.directory.resolve(), self.name, {**values, **self._pinned})

    def measurement(self, state: StackSettings) -> AnyMeasurement:
        self._nodes = self._nodes or self.target.nodes(state)
        return self.target.measurement(state, self._nodes)

    def converge(self, stack: StackRef, state: StackSettings) -> None:
        if self._current is not None and self.fresh:
            self.engine.destroy(stack)
            self.engine.up(stack)
        elif self._current is None:
            # a killed experiment of this directory may have left a stack that has drifted
            self.repair(stack)
        elif self._current != (state.lab.path, state.configuration):
            self.engine.up(stack)
        self._current = (state.lab.path, state.configuration)

    def repair(self, stack: StackRef) -> None:
        self.on_repair()
        drift = self.target.drifted(self.engine.resources(stack))
        self.target.restore(drift)
        self.engine.up(stack, replace=[found.urn for found in drift])

    @contextlib.contextmanager
    def restoring(self, stack: StackRef, on_cleanup: Callable[[], None]) -> Iterator[None]:
        """Destroy the stack at the end, also after an interrupt."""
        reserve = self.directory / RESERVE
        with reserve.open("wb") as file:
            file.write(bytes(_RESERVE_BYTES))
        before = ""
        try:
            yield
        except Exception as error:
            before = f"{error}\nand then: "
            raise
        finally:
            try:
                with signals.cleaning():
                    on_cleanup()
                    reserve.unlink(missing_ok=True)
                    self.engine.destroy(stack)
                    self.target.finish(stack)
            except Refusal as error:
                words = f"{before}the stack could not be destroyed: {error}"
                raise EngineError(words, error.exit_code) from error
