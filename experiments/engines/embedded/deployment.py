"""Converges one stack: each declared resource, then deletes the others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.engines import (
    STACK_TYPE,
    EngineError,
    OnStep,
    Operation,
    Outcome,
    Phase,
    StackRef,
    Step,
    outputs_of,
)
from experiments.engines.embedded import command, kubernetes, planning
from experiments.engines.embedded.checkpoint_writer import CheckpointWriter
from experiments.engines.embedded.command import Commands
from experiments.engines.embedded.kubernetes import Objects
from experiments.engines.embedded.planning import Decision, Resource
from experiments.engines.embedded.provider import (
    OperationFailed,
    OperationInterrupted,
    Provider,
    Records,
)
from experiments.engines.embedded.state import Doing, now

logger = logging.getLogger(__name__)

_POSITIONS = ("sourcePosition", "stackTrace")  # recorded by the CLI only


@dataclass(frozen=True)
class Plan:
    """The decision for one resource; `first` are the resources to delete before it is created."""

    wanted: Resource
    old: Resource | None
    decision: Decision
    first: Sequence[Resource] = ()


class Deployment:
    """One run over one stack; `register` may be called from many threads at once.

    When a resource fails, its dependents are skipped; independent resources still finish;
    nothing is deleted after a failure. A preview is the same run without effects.
    """

    def __init__(
        self,
        stack: StackRef,
        writer: CheckpointWriter,
        commands: Commands,
        on_step: OnStep,
        *,
        replace: Collection[str] = (),
        parallel: int = 8,
    ) -> None:
        self._stack = stack
        self._writer = writer
        self._commands = commands
        self._on_step = on_step
        self._replace = frozenset(replace)
        self._parallel = parallel
        self._olds = {r["urn"]: r for r in writer.left if not r.get("delete")}
        self._interrupted = {urn: doing for urn, (doing, _) in writer.interrupted.items()}
        for urn, doing in self._interrupted.items():
            logger.warning("an earlier run was interrupted while %s %s", doing, urn)

        self._turn = threading.Condition()  # guards what follows
        self._registered: set[str] = set()
        self._decided: set[str] = set()
        self._replaced: set[str] = set()
        self._deleting: set[str] = set()
        self._unfinished: set[str] = set()
        self._failures: list[str] = []
        self._changes: dict[str, Step] = {}
        self._same = 0
        self._stack_outputs: dict[str, dict[str, Any]] = {}
        self._records = Records()
        self._clusters: dict[str, Objects] = {}
        self._reporting = threading.Lock()

    def provider(self, package: str, version: str) -> str:
        """The reference of a default provider, recorded as Pulumi does."""
        name = f"default_{version}".translate(str.maketrans(".-+", "___"))
        kind = f"{planning.PROVIDER}{package}"
        urn = f"urn:pulumi:{self._stack.name}::{self._stack.project}::{kind}::{name}"
        with self._turn:
            old = self._olds.get(urn)
            if urn not in self._decided:
                wanted = {"urn": urn, "custom": True, "type": kind, "inputs": {"version": version}}
                new = _created(wanted, self._records.new_id(name, {}), {"version": version})
                self._olds[urn] = provider = old or new
                self._writer.settle(provider, old=old)
                self._decided.add(urn)
            return f"{urn}::{self._olds[urn]['id']}"

    def register(self, wanted: Resource, *, delete_first: bool = False) -> Resource | None:
        """Converge one resource after its dependencies; None where it failed or was skipped."""
        urn = wanted["urn"]
        with self._turn:
            if urn in self._registered:
                raise EngineError(f"{urn} is declared twice")
            self._registered.add(urn)
            self._turn.wait_for(lambda: urn not in self._deleting)
            plan = self._plan(wanted, delete_first)
        if plan is None:
            self._report("update" if urn in self._olds else "create", urn, "skipped")
            return None
        operation = plan.decision.operation
        detail = planning.in_words(plan.decision.changed, plan.old, plan.wanted)
        self._report(operation, urn, "start", detail)
        try:
            self._delete_first(plan)
            resource = self._converge(plan)
        except OperationFailed as error:
            self._fail(operation, urn, str(error))
            return None
        self._report(operation, urn, "done", detail)
        return resource

    def _plan(self, wanted: Resource, delete_first: bool) -> Plan | None:
        """Decide on a resource, None where it must be skipped; lock held."""
        urn = wanted["urn"]
        lacks = planning.references(wanted) & self._unfinished
        if not self._commands.preview and planning.unknown(wanted.get("inputs")):
            lacks.add("inputs")
        if lacks or self._commands.stopped:
            self._unfinished.add(urn)
            return None
        old, interrupted = self._olds.get(urn), self._interrupted.get(urn, "")
        reason = "replace" if urn in self._replace else ""
        immutable = kubernetes.immutable(wanted["type"]) or ("triggers",)
        decision = planning.decide(old, wanted, reason, interrupted, immutable)
        self._decided.add(urn)
        if decision.operation != "replace" or old is None:
            return Plan(wanted, old, decision)
        self._replaced.add(urn)
        delete_first = delete_first or planning.in_the_way(old, wanted)
        if not delete_first and interrupted != "deleting":
            return Plan(wanted, old, decision)

        def in_its_way() -> list[Resource]:
            left = self._writer.left
            dependents = planning.dependent_replacements(old, left, self._decided)
            return [r for r in (old, *dependents) if not r.get("pendingReplacement")]

        # wait until no other replacement deletes one of these resources
        self._turn.wait_for(lambda: self._deleting.isdisjoint(r["urn"] for r in in_its_way()))
        first = in_its_way()
        self._deleting.update(r["urn"] for r in first)
        return Plan(wanted, old, decision, first)

    def _delete_first(self, plan: Plan) -> None:
        """Delete the old resource and its dependents, dependents first."""
        try:
            if plan.decision.operation == "replace" and plan.old:
                if plan.wanted.get("protect") and _is_protected(plan.old):
                    raise OperationFailed("it is protected: it cannot be replaced")
                for resource in plan.first:
                    if resource is not plan.old and _is_protected(resource):
                        raise OperationFailed(
                            f"{resource['urn']} would be deleted with it and is protected"
                        )
            for resource in reversed(plan.first):
                self._delete_for(plan, resource)
        finally:
            with self._turn:
                self._deleting.difference_update(r["urn"] for r in plan.first)
                self._turn.notify_all()

    def _delete_for(self, plan: Plan, resource: Resource) -> None:
        urn, is_dependent = resource["urn"], resource is not plan.old
        try:
            self._delete(resource, awaits_replacement=not resource.get("delete"))
        except OperationFailed as error:
            if is_dependent:
                raise type(error)(f"{urn} must be deleted first: {error}") from error
            raise
        if is_dependent:
            self._report("delete", urn, "done", "for a replacement", change=False)

    def _converge(self, plan: Plan) -> Resource:
        """Carry out the decision and record the result."""
        wanted, old, operation = plan.wanted, plan.old, plan.decision.operation
        if old is None or operation == "replace":
            outputs = {}
            if wanted["custom"]:
                with self._pending("creating", wanted):
                    outputs = self._provider_of(wanted).create(wanted["type"], _inputs(wanted))
            new = _created(wanted, self._new_id(wanted, outputs), outputs)
            keep_old = old is not None and not old.get("pendingReplacement")
            self._writer.settle(new, old=old, keep_old=keep_old, ends=wanted)
            return new
        outputs = old.get("outputs", {})
        new = _continued(wanted, old, outputs)
        if operation == "update":
            if wanted["custom"]:
                with self._pending("updating", new):
                    provider = self._provider_of(wanted)
                    outputs = provider.update(wanted["type"], _inputs(wanted), outputs)
            changed = _continued(wanted, old, outputs) | {"modified": now()}
            self._writer.settle(changed, old=old, ends=new)
            return changed
        self._writer.settle(old if new == old else new, old=old)
        return new

    def _provider_of(self, resource: Resource) -> Provider:
        if resource["type"] == command.TYPE:
            return self._commands
        if resource["type"].startswith(planning.PROVIDER):
            return self._records
        urn = resource["provider"].rpartition("::")[0]
        with self._turn:
            if urn not in self._clusters:
                providers = {r["urn"]: r for r in self._writer.resources} | self._olds
                self._clusters[urn] = Objects(
                    _inputs(providers[urn]), self._commands.stopping, preview=self._commands.preview
                )
            return self._clusters[urn]

    def _new_id(self, wanted: Resource, outputs: dict[str, Any]) -> str:
        name = wanted["urn"].rpartition("::")[2]
        return self._provider_of(wanted).new_id(name, outputs) if wanted["custom"] else ""

    @contextmanager
    def _pending(self, doing: Doing, resource: Resource) -> Iterator[None]:
        """Record the operation as pending while it runs, and if it is cut off."""
        self._writer.begin(doing, resource)
        try:
            yield
        except OperationFailed as error:
            if not isinstance(error, OperationInterrupted):
                self._writer.give_up(resource)
            raise

    def _delete(self, resource: Resource, *, awaits_replacement: bool = False) -> None:
        """Delete a resource, and remove or mark its record."""
        if resource["custom"] and not resource.get("pendingReplacement"):
            with self._pending("deleting", resource):
                # only inputs are recorded where a run was killed during the creation
                recorded = resource.get("outputs") or _inputs(resource)
                self._provider_of(resource).delete(resource["type"], recorded)
        self._writer.remove(resource, awaits_replacement=awaits_replacement)

    def set_outputs(self, urn: str, outputs: dict[str, Any]) -> None:
        """Record the outputs of a component; those of the stack are recorded at the end."""
        if urn.split("::")[2] == STACK_TYPE:
            self._stack_outputs[urn] = outputs
        else:
            self._writer.set_outputs(urn, self._known(outputs))

    def _known(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Without unknown values, which outside a preview come from failed resources."""
        if self._commands.preview:
            return outputs
        return {name: value for name, value in outputs.items() if not planning.unknown(value)}

    def delete_rest(self) -> None:
        """Delete resources that the program did not register, dependents first; none after a failure."""
        if self._failures or self._unfinished:
            return
        rest = self._writer.left
        recorded = {resource["urn"] for resource in rest}
        rest += [r for urn, (_, r) in self._writer.interrupted.items() if urn not in recorded]
        first = planning.deleted_first(rest)
        left = dict(enumerate(rest))
        kept: set[str] = set()  # dependencies of resources that could not be deleted
        running: dict[Future[bool], int] = {}
        with ThreadPoolExecutor(self._parallel) as pool:
            while left or running:
                for number in [number for number in left if not first[number]]:
                    resource = left.pop(number)
                    keep = resource["urn"] in kept
                    task = (lambda: False) if keep else partial(self._delete_last, resource)
                    running[pool.submit(task)] = number
                # wakes up for signals that another thread received
                done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    number = running.pop(future)
                    if not future.result():
                        kept |= planning.references(rest[number])
                    for others in first:
                        others.discard(number)

    def _delete_last(self, resource: Resource) -> bool:
        """Delete one resource; False where its dependencies must stay."""
        urn = resource["urn"]
        if self._commands.stopped:
            return False
        visible = not resource["type"].startswith(planning.PROVIDER)
        change = visible and urn not in self._replaced
        try:
            if _is_protected(resource):
                raise OperationFailed("it is protected: it cannot be deleted")
            if visible:
                self._report("delete", urn, "start", change=change)
            self._delete(resource)
        except OperationFailed as error:
            self._fail("delete", urn, str(error))
            return False
        if visible:
            self._report("delete", urn, "done", change=change)
        return True

    def stop(self) -> None:
        """End running commands and start no others; `register` and `delete_rest` then return."""
        self._commands.stop()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Save the results of the block, also after an error; then raise all failures."""
        try:
            yield
        except BaseException as error:
            self._close(failed=True)
            if self._failures and isinstance(error, Exception):
                raise EngineError("\n".join([*self._failures, str(error)])) from error
            raise
        self._close(failed=bool(self._failures))
        if self._failures:
            raise EngineError("\n".join(self._failures))

    def _close(self, *, failed: bool) -> None:
        """Record the stack's outputs; after a failure, missing ones keep their last values."""
        for urn, outputs in self._stack_outputs.items():
            before = self._olds.get(urn, {}).get("outputs", {}) if failed else {}
            self._writer.set_outputs(urn, before | self._known(outputs))
        self._writer.close()

    def outcome(self) -> Outcome:
        """The changes made (in a preview: planned)."""
        outputs = _shown(outputs_of(self._writer.resources))
        return Outcome(tuple(self._changes.values()), self._same, outputs)

    def _fail(self, operation: Operation, urn: str, why: str) -> None:
        step = Step(operation, urn, "failed", why)
        with self._turn:
            self._unfinished.add(urn)
            self._failures.append(f"{step.type} {step.name}: {operation} failed: {why}")
        self._report(operation, urn, "failed", why)

    def _report(
        self, operation: Operation, urn: str, phase: Phase, detail: str = "", *, change: bool = True
    ) -> None:
        """Pass a step to the listener, one at a time, and count it."""
        step = Step(operation, urn, phase, detail)
        with self._reporting:
            if operation == "same":
                self._same += phase == "done"
                return
            if phase == "done" and change:
                self._changes.pop(urn, None)
                self._changes[urn] = step
            if phase != "start" or not self._commands.preview:
                self._on_step(step)


def _shown(value: Any) -> Any:
    """Outputs with unknown values, of a preview, in Pulumi's form."""
    if isinstance(value, dict):
        return {k: _shown(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_shown(v) for v in value]
    return "[unknown]" if value == planning.UNKNOWN else value


def _inputs(resource: Resource) -> dict[str, Any]:
    inputs: dict[str, Any] = resource.get("inputs", {})
    return inputs


def _is_protected(resource: Resource) -> bool:
    return resource.get("protect", False) and not resource.get("delete")


def _created(wanted: Resource, id_: str, outputs: dict[str, Any]) -> Resource:
    time = now()
    return planning.compact(
        {**wanted, "id": id_, "outputs": outputs, "created": time, "modified": time}
    )


def _continued(wanted: Resource, old: Resource, outputs: dict[str, Any]) -> Resource:
    """The record of an existing resource; fields that this engine does not set are kept."""
    kept = {k: old[k] for k in ("id", "created", "modified", *_POSITIONS) if k in old}
    return planning.compact({**wanted, **kept, "outputs": outputs})
