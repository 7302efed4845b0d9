"""This node's part of a rollout: a trial that ends by itself, and a kept plan, also after a reboot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from agent.audit import Audit
from agent.errors import CANNOT, SteerError, explain
from agent.files import read_json
from agent.machine import Machine
from agent.plan import Plan, parse_plan
from agent.restore import restore
from agent.settings import witnesses
from agent.signals import Signals
from agent.store import UNREADABLE, Store
from agent.transaction import apply

OWNER = "rollout"
HOME = "var/lib/steerlab"  # outlives a boot
BEFORE, TRIAL, KEPT = "before", "trial", "kept"
NAP = 5.0  # between two looks at the end of a trial
AGAIN = 60.0  # between two applies of the kept plan, which steer new devices


class Kept(NamedTuple):
    """The plan of a rollout on this node; `until` is the end of a trial (UNIX time)."""

    rollout: str
    plan: dict[str, Any]
    until: float | None = None
    before: tuple[str, dict[str, Any]] | None = None  # the kept plan that a trial replaces


class Part:
    """Steps of rollouts on this node, under their lock."""

    def __init__(self, machine: Machine, home: Store, audit: Audit) -> None:
        self._machine, self._home, self._audit = machine, home, audit
        self._path = home.path(OWNER, ".kept")

    def load(self) -> Kept | None:
        raw = self._home.read(self._path)
        if raw is None:
            return None
        try:
            kept = Kept(**read_json(raw.decode()))
            parse_plan(kept.plan)
            if not isinstance(kept.rollout, str) or not isinstance(kept.until or 0.0, (int, float)):
                raise ValueError("it is not of this agent")
            if kept.before is None:
                return kept
            name, plan = kept.before
            parse_plan(plan)
            return kept._replace(before=(str(name), plan))
        except (*UNREADABLE, SteerError) as error:
            words = f"{self._path} is damaged ({explain(error)}): restore this node"
            raise SteerError(words, CANNOT) from None

    def attempt(self, rollout: str, plan: Plan, seconds: float) -> dict[str, Any]:
        """Apply a plan for a time, after which this node undoes it unless it is kept."""
        kept = self.load()
        if kept and kept.until is not None:
            words = f"a trial of rollout {kept.rollout} is in progress on this node: undo it first"
            raise SteerError(words, CANNOT)
        self._log("try", rollout)
        before = (kept.rollout, kept.plan) if kept else None
        self._save(Kept(rollout, plan.document, time.time() + seconds, before))
        try:
            return apply(self._machine, plan)
        except BaseException:  # it has rolled back
            self._save(kept)
            raise

    def keep(self, rollout: str) -> dict[str, Any]:
        """Keep the plan of a trial, until it is replaced or restored."""
        kept = self.load()
        if not kept or kept.rollout != rollout or self._is_over(kept):
            words = f"there is no trial of rollout {rollout} on this node: it was undone"
            raise SteerError(f"{words}, its time is over, or its agent was replaced", CANNOT)
        if kept.until is not None:
            self._log("keep", rollout)
            self._save(Kept(rollout, kept.plan))
        return {}

    def _is_over(self, kept: Kept) -> bool:
        """Whether the values of a trial are not in force: after its time, a reboot, the end of its agent."""
        if kept.until is None:
            return False
        return time.time() >= kept.until or not self._machine.store.load(OWNER)

    def undo(self) -> dict[str, Any]:
        """End a trial, also one that was refused and not rolled back: this node is as before it."""
        kept = self.load()
        if kept is None and self._machine.store.load(OWNER):
            return self.restore()
        if not kept or kept.until is None:
            return {}
        self._log_if_possible("undo", kept.rollout)
        if kept.before is None:
            return self._put_back()
        try:
            answer = apply(self._machine, parse_plan(kept.before[1]))
        except SteerError as error:  # its devices may have changed
            answer = restore(self._machine, OWNER)
            answer["warnings"].append(f"rollout {kept.before[0]} was not applied again: {error}")
        self._save(Kept(*kept.before))
        return answer

    def restore(self, force: bool = False) -> dict[str, Any]:
        """Restore the values before the first rollout, and keep nothing."""
        self._log_if_possible("restore", "")
        return self._put_back(force)

    def status(self) -> dict[str, Any]:
        kept = self.load()
        phase = BEFORE if kept is None else KEPT if kept.until is None else TRIAL
        return {"phase": phase, "rollout": kept.rollout if kept else ""}

    def turn(self, due: bool) -> None:
        """Look after this node: a trial ends, new devices get the kept plan, values that stayed are restored.

        All but the first only if it is `due`.
        """
        kept = self.load()
        if kept is None:
            if due and self._machine.store.load(OWNER):
                self.restore()
        elif kept.until is not None:
            if time.time() >= kept.until:
                self.undo()
        elif due:
            self._audit.rollout = kept.rollout
            apply(self._machine, parse_plan(kept.plan))

    def _put_back(self, force: bool = False) -> dict[str, Any]:
        answer = restore(self._machine, OWNER, force)
        self._save(None)  # values that failed stay in the snapshot, and are tried again
        return answer

    def _log(self, step: str, rollout: str) -> None:
        self._audit.rollout = rollout
        self._audit.step(step)

    def _log_if_possible(self, step: str, rollout: str) -> None:
        with suppress(OSError):  # a restore is more important than its log
            self._log(step, rollout)

    def _save(self, kept: Kept | None) -> None:
        if kept:
            self._home.write(self._path, json.dumps(kept._asdict()))
        else:
            with suppress(FileNotFoundError):
                self._path.unlink()


@contextmanager
def part(machine: Machine, who: str, node: str) -> Iterator[tuple[Part, Audit]]:
    """This node's part and its log; every write while the block runs is logged."""
    home = Store(machine.root / HOME, machine.boot_id)
    with home.locked(machine.check):
        audit = Audit(home, who, node)
        witnesses.append(audit.write)
        try:
            yield Part(machine, home, audit), audit
        finally:
            witnesses.remove(audit.write)


def stand(
    machine: Machine, node: str, signals: Signals, complain: Callable[[str], None]
) -> dict[str, Any]:
    """Look after this node until a signal arrives; then restore its values, but keep the plan.

    A pod that runs this can be replaced: the next one applies the kept plan again.
    """
    applied = float("-inf")
    while not signals.caught:
        due = time.monotonic() - applied >= AGAIN
        try:
            with machine.afresh() as now, part(now, "agent", node) as (mine, _):
                mine.turn(due)
        except Exception as error:  # an error must not end the watch
            complain(explain(error))
        applied = time.monotonic() if due else applied
        signals.wait(NAP)
    with machine.afresh() as now, part(now, "agent", node):
        return restore(now, OWNER)


def run(machine: Machine, options: Any, plan: Plan | None) -> dict[str, Any]:
    """One step; the answer has the node's phase, and its log after line `--since`."""
    with part(machine, options.who, options.node) as (mine, audit):
        if options.step == "try":
            if plan is None or not options.rollout:
                raise SteerError("rollout try: give a plan and --rollout", 2)
            answer = mine.attempt(options.rollout, plan, options.seconds)
        elif options.step == "keep":
            answer = mine.keep(options.rollout)
        elif options.step == "undo":
            answer = mine.undo()
        else:
            answer = mine.restore(options.force) if options.step == "restore" else {}
        return {"failed": [], **answer, **mine.status(), "audit": audit.since(options.since)}
