"""The checkpoint during a run: settled resources, those left from the last run, pending operations."""

from __future__ import annotations

import threading
from typing import Any

from experiments.engines import StackRef
from experiments.engines.embedded import state
from experiments.engines.embedded.planning import Resource
from experiments.engines.embedded.state import Checkpoint, Doing


class CheckpointWriter:
    """Keeps the stack's file up to date; all methods are thread-safe.

    Where a method is documented as durable, it returns after the file is on disk: concurrent calls
    share one write. A preview writes nothing.
    """

    def __init__(self, stack: StackRef, checkpoint: Checkpoint, *, preview: bool = False) -> None:
        self._stack = stack
        self._closed = preview
        self._secrets_providers = checkpoint.secrets_providers
        self._settled: dict[int, Resource] = {}
        self._left = {id(resource): resource for resource in checkpoint.resources}
        self._pending: dict[int, tuple[Doing, Resource]] = {}
        # not of replaced resources, which are still in the list, marked for deletion
        self._interrupted = {
            resource["urn"]: (doing, resource)
            for doing, resource in checkpoint.pending
            if not resource.get("delete")
        }
        self._texts: dict[int, tuple[Resource, str]] = {}
        self._turn = threading.Condition()
        self._version = self._durable = 0
        self._writing = False

    @property
    def left(self) -> list[Resource]:
        """Resources of the last run that this one has not settled, in order of creation."""
        with self._turn:
            return list(self._left.values())

    @property
    def resources(self) -> list[Resource]:
        """All resources that are recorded now, in order of creation."""
        with self._turn:
            return [*self._settled.values(), *self._left.values()]

    @property
    def interrupted(self) -> dict[str, tuple[Doing, Resource]]:
        """Pending operations of a killed run, by URN, that this one has not settled."""
        with self._turn:
            return dict(self._interrupted)

    def begin(self, doing: Doing, resource: Resource) -> None:
        """Record an operation as pending; durable on return."""
        with self._turn:
            self._pending[id(resource)] = doing, resource
            self._commit()

    def give_up(self, resource: Resource) -> None:
        """The pending operation on a resource failed: nothing is recorded; durable on return."""
        with self._turn:
            del self._pending[id(resource)]
            self._commit()

    def settle(
        self,
        resource: Resource,
        *,
        old: Resource | None = None,
        keep_old: bool = False,
        ends: Resource | None = None,
    ) -> None:
        """Record a resource in place of `old`, or beside it until that is deleted.

        Durable on return where it `ends` an operation that is pending.
        """
        with self._turn:
            self._settled[id(resource)] = resource
            if old is not None and keep_old:
                self._amend(old, delete=True)
            elif old is not None:
                del self._left[id(old)]
            interrupted = self._interrupted.pop(resource["urn"], None)
            if id(ends) in self._pending:
                del self._pending[id(ends)]
                self._commit()
            elif interrupted or resource != old:
                self._version += 1

    def remove(self, resource: Resource, *, awaits_replacement: bool = False) -> None:
        """A resource was deleted; durable on return where that was a pending operation."""
        with self._turn:
            pending = self._pending.pop(id(resource), None)
            if not resource.get("delete"):
                self._interrupted.pop(resource["urn"], None)
            if awaits_replacement:
                self._amend(resource, pendingReplacement=True)
            else:
                self._left.pop(id(resource), None)
            if pending:
                self._commit()
            else:
                self._version += 1

    def set_outputs(self, urn: str, outputs: dict[str, Any]) -> None:
        """Replace the outputs of a settled component."""
        with self._turn:
            for resource in self._settled.values():
                if resource["urn"] == urn and resource.get("outputs", {}) != outputs:
                    self._amend(resource, outputs=outputs)
                    self._version += 1

    def close(self) -> None:
        """Write what is not written yet, durable on return; later changes are not written."""
        with self._turn:
            if self._version > self._durable:
                self._commit()
            self._closed = True

    def _amend(self, resource: Resource, **fields: Any) -> None:
        resource.update(fields)
        self._texts.pop(id(resource), None)

    def _commit(self) -> None:
        """Wait, with the lock held, until all changes so far are durable; write where no thread does."""
        self._version += 1
        version = self._version
        while self._durable < version and not self._closed:
            if self._writing:
                self._turn.wait()
                continue
            target, text = self._version, self._render()
            self._writing = True
            self._turn.release()
            try:
                state.save(self._stack, text)
            finally:
                self._turn.acquire()
                self._writing = False
                self._turn.notify_all()
            self._durable = target

    def _render(self) -> str:
        pending = [*self._interrupted.values(), *self._pending.values()]
        return state.render(
            self._stack,
            [self._text(r) for r in (*self._settled.values(), *self._left.values())],
            [(doing, self._text(resource)) for doing, resource in pending],
            self._secrets_providers,
        )

    def _text(self, resource: Resource) -> str:
        """A resource's JSON, cached: a write encodes only new and changed resources."""
        entry = self._texts.get(id(resource))
        if entry is None:
            entry = self._texts[id(resource)] = resource, state.to_json(resource)
        return entry[1]
