"""Apply: saves the snapshot, then writes; after a failure every value is rolled back."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.changes import in_order, refuse_exhaustion, refused, without
from agent.devices import other_overlays
from agent.errors import CANNOT, FAILED, Gone, SteerError, Unsteerable, explain
from agent.files import exists
from agent.knobs import KNOBS
from agent.lease import end_watchdog
from agent.machine import Machine, T
from agent.patterns import is_like, is_pattern
from agent.plan import Plan, reductions, wanted_values
from agent.processes import program
from agent.restore import left_words, put_back, reduced_by, reduced_words
from agent.settings import Setting
from agent.snapshot import THE_MACHINE, Entry, Snapshot
from agent.store import utc
from agent.survey import Survey
from agent.targets import Target, find_targets, report
from agent.watchdog import start_lease

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.settings import Change


class Prepared(NamedTuple):
    """A plan compared with the machine and checked; nothing is written yet."""

    mine: Snapshot | None
    targets: list[Target]
    intent: Intent
    changes: list[Change]
    warnings: list[str]

    @property
    def reshapes(self) -> bool:
        """Whether queues come or go."""
        return any(setting.knob.reshapes for setting, *_ in self.changes)


def apply(machine: Machine, plan: Plan) -> dict[str, Any]:
    """Replace the owner's plan, if there is one, with this plan; completely or not at all."""

    def work(left_out: Mapping[str | None, str]) -> dict[str, Any]:
        with machine.store.locked(machine.check):
            prepared = prepare(machine, plan, left_out)
            if prepared.reshapes:
                return _reshape(machine, plan, prepared.mine, left_out)
            return _apply(machine, plan, prepared)

    return leaving_out(plan, work)


def _reshape(
    machine: Machine, plan: Plan, mine: Snapshot | None, left_out: Mapping[str | None, str]
) -> dict[str, Any]:
    """Apply a plan by which queues come or go: first their number alone, then the whole plan.

    The owner's previous plan is restored first, and everything after a failure.
    """

    def restored(what: str) -> None:
        snapshot = machine.store.load(plan.owner)
        answer = put_back(machine, snapshot) if snapshot else {"failed": [], "left": []}
        if answer["failed"]:
            raise SteerError(undone_words("apply", what, answer["failed"], answer["left"]))

    restored(f"the number of queues changes, and the plan of {plan.owner} is not restored")
    numbers = [
        rule._replace(set={name: word for name, word in rule.set.items() if KNOBS[name].reshapes})
        for rule in plan.rules
    ]
    first = plan._replace(rules=numbers, machine={})
    try:
        count = _apply(machine, first, prepare(machine, first, left_out))["changed"]
        answer = _apply(machine, plan, prepare(machine, plan, left_out))
    except BaseException as error:
        restored(explain(error))
        if mine and not isinstance(error, Unsteerable):
            words = f"{explain(error)}; the previous plan of {plan.owner} is not in force either"
            raise SteerError(words, getattr(error, "status", FAILED)) from None
        raise
    return {**answer, "changed": answer["changed"] + count}


def preview(machine: Machine, plan: Plan) -> dict[str, Any]:
    """The changes that an apply of the plan would make; writes nothing."""
    prepared = leaving_out(plan, lambda left_out: prepare(machine, plan, left_out))
    changes = [
        {
            **{"where": setting.where, "knob": setting.knob.name, "found": found, "wanted": wanted},
            "stranger": setting in prepared.intent.strangers,
        }
        for setting, found, wanted in prepared.changes
    ]
    warnings = [*prepared.warnings, *prepared.intent.warnings, *reductions(plan, machine.cpus)]
    if prepared.reshapes:
        warnings.append("the number of queues changes: the values of new queues are not listed")
    return {"owner": plan.owner, "changes": changes, "warnings": list(dict.fromkeys(warnings))}


def leaving_out(plan: Plan, work: Callable[[Mapping[str | None, str]], T]) -> T:
    """Do the work; leave out namespaces in which it fails, by path with the reason.

    Only namespaces that a pattern of an optional rule matches are left out: one that fails must
    not prevent the steering of all others.
    """
    left_out: dict[str | None, str] = {}
    while True:
        try:
            return work(left_out)
        except Unsteerable as error:
            if error.namespace in left_out or not may_lack(plan, error.namespace):
                raise
            left_out[error.namespace] = str(error)


def may_lack(plan: Plan, path: str | None) -> bool:
    """Whether the namespace is matched by a pattern only, not named by the plan."""
    patterns = [r.namespace or "" for r in plan.rules if r.optional and is_pattern(r.namespace)]
    named = any(rule.namespace == path for rule in plan.rules)
    return not named and any(is_like(path or "", pattern) for pattern in patterns)


def prepare(machine: Machine, plan: Plan, left_out: Mapping[str | None, str]) -> Prepared:
    """Compare a plan with the machine, and refuse what cannot be done."""
    mine = machine.store.load(plan.owner)
    others, warnings = machine.store.others(plan.owner)
    survey = Survey(machine, (r.namespace for r in plan.rules), mine.entries if mine else ())
    by_path = {path: ns for path, ns in survey.by_path.items() if path not in left_out}
    after = without(mine, machine.cpus.unusable)
    targets, absent = find_targets(machine, plan, wanted_values(plan, machine.cpus), by_path, after)
    warnings += [f"namespace {path} is left out: {why}" for path, why in left_out.items()]
    warnings += other_overlays(plan, by_path)
    if absent:
        words = [survey.unread_words(namespace) or words for namespace, words in absent]
        raise SteerError("; ".join(dict.fromkeys(words)), CANNOT)
    warnings += survey.all_unread()
    refuse_foreign(targets, others)
    intent = Intent(machine, plan, survey, mine)
    intent.steer(targets, left_out)
    # Wanted masks have no unusable CPU, so a mask that the kernel has reduced is written again.
    changes = [change for change in intent.values if not change[0].knob.equal(change[2], change[1])]
    intent.refuse_impossible(changes)
    return Prepared(mine, targets, intent, changes, warnings)


def _apply(machine: Machine, plan: Plan, prepared: Prepared) -> dict[str, Any]:
    """Called under the lock."""
    mine, targets, intent, changes, warnings = prepared
    steps = in_order(changes, machine.release())
    lease = start_lease(machine, plan)
    since = mine.since if mine else utc()
    empty = Snapshot(plan.owner, machine.boot_id, since, os.getpid(), plan.document, lease, [])
    stands = commit(machine, mine, empty, intent, steps)
    if mine and mine.lease:
        with suppress(OSError):  # it also ends by itself, because the file names another one
            end_watchdog(machine.store, plan.owner, mine.lease)
    machine.store.forget_trace(plan.owner)
    answer = report(machine, plan, [target.holding(stands) for target in targets])
    warnings = [*warnings, *intent.warnings, *answer["warnings"]]
    if mine and mine.lease and plan.lease_seconds is None:
        lost = f"the plan has no lease and replaces the lease of {mine.lease.seconds} s"
        warnings.append(f"{lost}: the steering stays until it is restored")
    return {**answer, "changed": len(changes), "warnings": list(dict.fromkeys(warnings))}


class Intent:
    """The writes of an apply, and the contents that the snapshot needs for them."""

    def __init__(self, machine: Machine, plan: Plan, survey: Survey, mine: Snapshot | None) -> None:
        self._machine = machine
        self._plan = plan
        self._survey = survey
        self._known = {entry.value_key: entry for entry in mine.entries} if mine else {}
        self.values: list[Change] = []
        self.warnings: list[str] = []
        self.strangers: set[Setting] = set()  # with values that somebody else has set
        self._kept: list[tuple[Entry, Setting, str]] = []  # of the plan, with the wanted value
        self._dropped: list[tuple[Entry, Setting]] = []  # of the previous plan only, to restore
        self._stuck: list[Entry] = []  # not found, and not known to be gone

    def steer(self, targets: Iterable[Target], left_out: Mapping[str | None, str]) -> None:
        for target in targets:
            place = target.held.place
            for setting, found, wanted in target.values():
                knob = setting.knob.name
                keys = [(key, knob) for key in place.keys if (key, knob) in self._known]
                old = self._known.pop(keys[0])._replace(place=place) if keys else None
                if not old and setting.knob.set_by_somebody(found):
                    self.strangers.add(setting)
                self._take(old or Entry(place, knob, found), setting, found, wanted)
        for entry in self._known.values():
            namespace = entry.place.namespace
            if namespace in left_out and entry.place != THE_MACHINE:
                self._stuck.append(entry._replace(reason=left_out[namespace]))
            else:
                self._drop(entry)

    def _take(self, entry: Entry, setting: Setting, found: str, wanted: str) -> None:
        if not entry.explains(found, self._machine.cpus.unusable):
            back = f"a restore writes {entry.before}, the value before steering"
            self.warnings.append(
                f"{setting} was {found}, written by somebody else, and is replaced; {back}"
            )
            self.strangers.add(setting)
            entry = entry._replace(overwritten=[*dict.fromkeys([*entry.overwritten, found])])
        self._kept.append((entry._replace(reason=None), setting, wanted))
        self.values.append((setting, found, wanted))

    def _drop(self, entry: Entry) -> None:
        """A value that the previous plan set and this one does not."""
        try:
            setting, found = self._survey.located(entry, lambda setting: (setting, setting.read()))
        except Gone:
            return
        except (OSError, SteerError) as error:
            self.warnings.append(f"not restored, kept in the snapshot: {explain(error)}")
            self._stuck.append(entry._replace(reason=explain(error)))
            return
        if entry.explains(found, self._machine.cpus.unusable):
            self._dropped.append((entry, setting))
            self.values.append((setting, found, entry.before))
        else:
            self.warnings.append(left_words(entry, setting, found))

    def originals(self) -> dict[Setting, str]:
        """Each value before this owner steered it, as far as the kernel accepts it now."""
        places = [(entry, setting) for entry, setting, _ in self._kept] + self._dropped
        unusable = self._machine.cpus.unusable
        return {s: (reduced_by(e, unusable) or [e.before])[0] for e, s in places}

    def refuse_impossible(self, changes: Sequence[Change]) -> None:
        """Refuse values that this machine or a device cannot have."""
        refuse_exhaustion(changes, self._machine.memory_available())
        originals = {setting.path: text for setting, text in self.originals().items()}
        for setting, found, wanted in changes:
            differs = setting.by_ethtool and not setting.knob.equal(wanted, found)
            if not differs or not self.wants(setting):
                continue
            try:
                words = refused(setting, wanted, originals)
            except (OSError, SteerError) as error:
                words = explain(error)
            if words:
                raise Unsteerable(SteerError(words, CANNOT), self.namespace_of(setting))

    def wants(self, setting: Setting) -> bool:
        return any(kept == setting for _, kept, _ in self._kept)

    def refuse_dependent(self) -> None:
        """Fail where a feature of the plan went off with another one that the plan switches off."""
        for _, setting, wanted in self._kept:
            with suppress(Gone):
                if setting.by_ethtool and not setting.knob.equal(wanted, got := setting.read()):
                    words = f"{setting} is {got}, not {wanted}: another setting prevents it"
                    raise SteerError(words, CANNOT)

    def namespace_of(self, setting: Setting) -> str | None:
        return next(entry.place.namespace for entry, kept, _ in self._kept if kept == setting)

    def during(self, steps: Iterable[Change]) -> list[Entry]:
        """The entries of the snapshot until the last write: for the old plan and the new."""
        writes: dict[Setting, list[str]] = {}
        for setting, _, wanted in steps:
            writes.setdefault(setting, []).append(wanted)
        entries = [e.writing(*writes.get(s, ()), wanted) for e, s, wanted in self._kept]
        for entry, setting in self._dropped:
            reduced = reduced_by(entry, self._machine.cpus.unusable)
            entries.append(entry.writing(*writes.get(setting, ()), *reduced))
        return entries + self._stuck

    def final(self, stands: Mapping[Setting, str]) -> list[Entry]:
        """The entries of the snapshot after the last write."""
        entries = [entry._replace(written=[wanted]) for entry, _, wanted in self._kept]
        for entry, setting in self._dropped:
            got = stands.get(setting, entry.before)
            if not setting.knob.as_before(entry.before, got):
                reason = reduced_words(setting, entry.before, got)
                entries.append(entry.writing(got)._replace(reason=reason))
                self.warnings.append(reason)
        return entries + self._stuck

    def failing(self, stuck: Mapping[Setting, str], entries: Iterable[Entry]) -> list[Entry]:
        """The entries with the reasons why their values could not be restored."""
        places = [(entry, setting) for entry, setting, _ in self._kept] + self._dropped
        reasons = {e.value_key: stuck[setting] for e, setting in places if setting in stuck}
        return [e._replace(reason=reasons.get(e.value_key, e.reason)) for e in entries]


def refuse_foreign(targets: Iterable[Target], others: Iterable[Snapshot]) -> None:
    """Refuse values that another owner steers: both could not restore them."""
    holders = {entry.value_key: other for other in others for entry in other.entries}
    for target in targets:
        place = target.held.place
        for knob in target.wanted:
            other = next((holders[(k, knob)] for k in place.keys if (k, knob) in holders), None)
            if other:
                what = knob if place == THE_MACHINE else place
                held = f"{what} is steered by owner {other.owner} (pid {other.pid}, {other.since})"
                undo = ["python3", program(), "restore", "--owner", other.owner]
                raise SteerError(f"{held}: first run {shlex.join(undo)}", CANNOT)


def commit(
    machine: Machine,
    mine: Snapshot | None,
    empty: Snapshot,
    intent: Intent,
    steps: Sequence[Change],
) -> dict[Setting, str]:
    """Save the snapshot, then make the changes; roll back after an error.

    Returns the values that were written, as read back.
    """
    store, unusable = machine.store, machine.cpus.unusable
    during = empty._replace(entries=intent.during(steps))
    started: list[Change] = []
    stands: dict[Setting, str] = {}
    at: Setting | None = None  # the setting at which it fails
    try:
        if mine is None or during._replace(pid=mine.pid) != mine:
            store.save(during)
        for change in steps:
            machine.check()
            at, found, wanted = change
            setting = at
            now = setting.read()
            if not setting.knob.equal(found, now):
                words = (
                    f"{setting} changed from {found} to {now} meanwhile: somebody else writes it"
                )
                raise SteerError(f"{words}: apply again")
            started.append(change)
            setting.put(wanted, unusable, back=setting.by_ethtool and not intent.wants(setting))
            stands[setting] = setting.read()
            at = None
        intent.refuse_dependent()
        final = empty._replace(entries=intent.final(stands))
        if final != during:
            store.save(final)
        return stands
    except BaseException as error:
        status = getattr(error, "status", FAILED)
        failed, left = undo(machine, mine, during, intent, started)
        undone = SteerError(undone_words("apply", explain(error), failed, left), status)
        if failed:
            raise undone from None
        if at and intent.wants(at):
            raise Unsteerable(undone, intent.namespace_of(at)) from None
        raise undone from None


def undo(
    machine: Machine,
    mine: Snapshot | None,
    during: Snapshot,
    intent: Intent,
    started: Sequence[Change],
) -> tuple[list[str], list[str]]:
    """Roll back the changes, and restore the previous snapshot.

    Returns the failures, after which the snapshot stays, and the values that others have written.
    """
    store = machine.store
    stuck, left = roll_back(started, machine.cpus.unusable)
    failed = list(stuck.values())
    if stuck:
        try:
            store.save(during._replace(entries=intent.failing(stuck, during.entries)))
        except (OSError, SteerError) as failure:
            failed.append(explain(failure))
    else:
        # If this fails, the file for both plans stays: a restore needs nothing more.
        with suppress(OSError, SteerError):
            store.save(mine) if mine else store.discard(during.owner)
    return failed, left


def undone_words(verb: str, why: str, failed: Sequence[str], left: Sequence[str]) -> str:
    kept = f"not rolled back, so the snapshot stays: {'; '.join(failed)}"
    return "; ".join([why, kept if failed else f"steering is as before {verb}", *left])


def roll_back(started: Sequence[Change], unusable: int) -> tuple[dict[Setting, str], list[str]]:
    """Undo changes in reverse order; returns the failures, and the values that others have written."""
    written: dict[Setting, list[str]] = {}
    for setting, _, wanted in started:
        written.setdefault(setting, []).append(wanted)
    stuck: dict[Setting, str] = {}
    left: dict[Setting, str] = {}
    backwards = started[::-1]
    for setting, found, _ in sorted(backwards, key=lambda one: one[0].knob.turn(one[1])):
        for words in (stuck, left):
            words.pop(setting, None)  # of the step after this one; this value counts
        knob = setting.knob
        try:
            now = setting.read()
            if knob.as_before(found, now):
                continue
            if not any(knob.comes_from(wanted, now, unusable) for wanted in written[setting]):
                left[setting] = f"{setting} is {now}, written by somebody else: not changed"
                continue
            setting.put(found, unusable, back=True)
            got = setting.read()
            if not knob.as_before(found, got):
                stuck[setting] = reduced_words(setting, found, got)
        except Exception as error:  # the others are rolled back in any case
            with suppress(OSError):
                if isinstance(error, Gone) and not exists(setting.path):
                    continue
            stuck[setting] = explain(error)
    return stuck, list(left.values())
