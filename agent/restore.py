"""Restore: writes the old values, except where somebody else has written a value since."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from agent.errors import Gone, SteerError, explain
from agent.kernel_faults import RFS_TABLE, has_table_fault
from agent.knobs import KNOBS
from agent.lease import end_watchdog
from agent.machine import Machine
from agent.settings import Setting
from agent.snapshot import THE_MACHINE, Entry, Snapshot
from agent.survey import Survey
from agent.values import as_list, cpus_of, format_mask, parse_mask


def restore(machine: Machine, owner: str, force: bool = False) -> dict[str, Any]:
    with machine.store.locked(machine.check):
        snapshot = machine.store.load(owner)
        if snapshot:
            return put_back(machine, snapshot, force)
        machine.store.discard(owner)
    return restored(owner)


def restored(owner: str, **more: Any) -> dict[str, Any]:
    """The answer of a restore."""
    none: dict[str, Any] = {"restored": 0, "sock_flow_entries": None, "machine": {}}
    lists: dict[str, list[str]] = {"gone": [], "left": [], "warnings": [], "failed": []}
    return {"owner": owner, **none, **lists, **more}


def restore_all(machine: Machine, force: bool = False) -> dict[str, Any]:
    answers = []
    for owner in machine.store.owners():
        try:
            answers.append(restore(machine, owner, force))
        except Exception as error:  # the other owners' values are restored
            answers.append(restored(owner, failed=[explain(error)]))

    def of_all(key: str) -> list[str]:
        return [words for answer in answers for words in answer[key]]

    return {"owners": answers, **{key: of_all(key) for key in ("left", "warnings", "failed")}}


def put_back(machine: Machine, snapshot: Snapshot, force: bool = False) -> dict[str, Any]:
    """Write a snapshot's values, each independent of the others; called under the lock.

    Values that no longer exist, or that somebody else has written since, are removed from the
    snapshot. Values that could not be restored stay, with the reason.
    """
    unusable = machine.cpus.unusable
    survey = Survey(machine, (), snapshot.entries)
    answer = restored(snapshot.owner)
    snapshot = announce(machine, snapshot, answer["failed"])
    if has_table_fault(machine.release()):
        for entry in snapshot.entries:
            if entry.knob == RFS_TABLE:
                with suppress(Exception):  # it fails again below, with a message
                    survey.located(entry, partial(empty, entry, unusable=unusable, force=force))
    kept = []
    for entry in sorted(snapshot.entries, key=lambda one: KNOBS[one.knob].turn(one.before)):
        try:
            done = survey.located(entry, partial(give_back, entry, unusable=unusable, force=force))
        except Gone as error:
            answer["gone"].append(str(error))
            continue
        except Exception as error:  # the others are restored
            done = Done(0, reason=explain(error))
        answer["restored"] += done.written
        answer["left"] += [done.left] if done.left else []
        if done.reason:
            answer["failed"].append(done.reason)
            kept.append(entry._replace(reason=done.reason))
        elif not done.left:
            if entry.overwritten:
                answer["warnings"].append(overwritten_words(entry))
            if entry.place == THE_MACHINE:
                answer["machine"][entry.knob] = KNOBS[entry.knob].codec.as_json(entry.before)
    answer["sock_flow_entries"] = answer["machine"].get("rps_sock_flow_entries")
    answer["gone"] = list(dict.fromkeys(answer["gone"]))
    try:
        if kept:
            machine.store.save(snapshot._replace(entries=kept, old=False))
        else:
            machine.store.discard(snapshot.owner)
    except (OSError, SteerError) as error:
        answer["failed"].append(explain(error))
    if not answer["failed"] and snapshot.lease:
        with suppress(OSError):  # it also ends by itself, because its file no longer exists
            end_watchdog(machine.store, snapshot.owner, snapshot.lease)
    return answer


def announce(machine: Machine, snapshot: Snapshot, failed: list[str]) -> Snapshot:
    """Before the first write, record the values that this restore may write besides the old ones.

    These are masks that the kernel reduces while some CPUs are offline, and empty tables.
    """
    fault = has_table_fault(machine.release())
    entries = [
        entry.writing(
            *reduced_by(entry, machine.cpus.unusable),
            *(["0"] if fault and entry.knob == RFS_TABLE else []),
        )
        for entry in snapshot.entries
    ]
    if entries != snapshot.entries:
        snapshot = snapshot._replace(entries=entries)
        try:
            machine.store.save(snapshot._replace(old=False))
        except (OSError, SteerError) as error:  # the restore is more important
            failed.append(explain(error))
    return snapshot


class Done(NamedTuple):
    """The result for one value: written or not, left as it is, or not restored with the reason."""

    written: int
    left: str = ""
    reason: str = ""


def give_back(entry: Entry, setting: Setting, unusable: int, force: bool) -> Done:
    """Write the old value, unless somebody else has written this setting since."""
    found = setting.read()
    if setting.knob.as_before(entry.before, found):
        return Done(0)
    if not force and not entry.explains(found, unusable):
        return Done(0, left=left_words(entry, setting, found))
    possible = reduced_by(entry, unusable)
    try:
        setting.put(entry.before, unusable, back=True)
    except SteerError:
        if possible != ["0"]:  # the kernel refuses a mask with isolated CPUs only
            raise
        setting.put("0", unusable)
    got = setting.read()
    written = int(not setting.knob.equal(found, got))
    if setting.knob.as_before(entry.before, got):
        return Done(written)
    return Done(written, reason=reduced_words(setting, entry.before, got))


def empty(entry: Entry, setting: Setting, unusable: int, force: bool) -> None:
    """Remove a flow table that is to get another size: see `without_unequal_tables`."""
    found = setting.read()
    ours = force or entry.explains(found, unusable)
    if ours and int(found) and int(entry.before) and int(found) != int(entry.before):
        setting.put("0", unusable)


def reduced_by(entry: Entry, unusable: int) -> list[str]:
    """The old mask without its unusable CPUs; empty if all are usable."""
    if not KNOBS[entry.knob].lost(entry.before, unusable):
        return []
    return [format_mask(parse_mask(entry.before) & ~unusable)]


def reduced_words(setting: Setting, before: str, got: str) -> str:
    if not setting.knob.codec.is_mask:
        return f"{setting} was {before} and is {got}: somebody else writes it; restore again"
    lost = as_list(cpus_of(parse_mask(before) & ~parse_mask(got)))
    words = f"{setting} was {before} and is {got}: the kernel refuses CPU {lost}"
    return f"{words}, which is offline or isolated; restore again when it is online"


def left_words(entry: Entry, setting: Setting, found: str) -> str:
    words = f"{setting} is {found}, written by somebody else: not changed"
    return f"{words}; the value before steering was {entry.before}"


def overwritten_words(entry: Entry) -> str:
    others = ", ".join(entry.overwritten)
    words = f"{entry} is {entry.before} as before steering; somebody else had written {others}"
    return f"{words}, which an apply replaced"
