"""Restore: every value as it was, unless somebody else has written it since."""

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
        except Exception as error:  # the other owners' values go back
            answers.append(restored(owner, failed=[explain(error)]))

    def of_all(key: str) -> list[str]:
        return [words for answer in answers for words in answer[key]]

    return {"owners": answers, **{key: of_all(key) for key in ("left", "warnings", "failed")}}


def put_back(machine: Machine, snapshot: Snapshot, force: bool = False) -> dict[str, Any]:
    """Write a snapshot's values, each whatever happens to the others; called under the lock.

    What is certainly gone and what somebody else has written meanwhile leaves the snapshot; what
    failed stays, with its reason.
    """
    unusable = machine.cpus.unusable
    survey = Survey(machine, (), snapshot.entries)
    answer = restored(snapshot.owner)
    snapshot = announce(machine, snapshot, answer["failed"])
    if has_table_fault(machine.release()):
        for entry in snapshot.entries:
            if entry.knob == RFS_TABLE:
                with suppress(Exception):  # told below, where it fails again
                    survey.located(entry, partial(empty, entry, unusable=unusable, force=force))
    kept = []
    for entry in snapshot.entries:
        try:
            done = survey.located(entry, partial(give_back, entry, unusable=unusable, force=force))
        except Gone as error:
            answer["gone"].append(str(error))
            continue
        except Exception as error:  # the others go back
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
        with suppress(OSError):  # it also ends by itself: there is no file any more
            end_watchdog(machine.store, snapshot.owner, snapshot.lease)
    return answer


def announce(machine: Machine, snapshot: Snapshot, failed: list[str]) -> Snapshot:
    """Record what this restore may write besides the old values, before the first write.

    That is what the kernel makes of a mask while some of its CPUs are offline, and an empty table.
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
        except (OSError, SteerError) as error:  # what matters more is that values go back
            failed.append(explain(error))
    return snapshot


class Done(NamedTuple):
    """What became of one value: written or not, left to somebody else, or not restored and why."""

    written: int
    left: str = ""
    reason: str = ""


def give_back(entry: Entry, setting: Setting, unusable: int, force: bool) -> Done:
    """Write what a value was before, unless somebody else has written it meanwhile."""
    found = setting.read()
    if setting.knob.equal(entry.before, found):
        return Done(0)
    if not force and not entry.explains(found, unusable):
        return Done(0, left=left_words(entry, setting, found))
    possible = reduced_by(entry, unusable)
    try:
        setting.put(entry.before, unusable)
    except SteerError:
        if possible != ["0"]:  # a mask of nothing but isolated CPUs is refused
            raise
        setting.put("0", unusable)
    got = setting.read()
    written = int(not setting.knob.equal(found, got))
    if setting.knob.equal(entry.before, got):
        return Done(written)
    return Done(written, reason=reduced_words(setting, entry.before, got))


def empty(entry: Entry, setting: Setting, unusable: int, force: bool) -> None:
    """Remove a flow table that is to get another size: see `without_unequal_tables`."""
    found = setting.read()
    ours = force or entry.explains(found, unusable)
    if ours and int(found) and int(entry.before) and int(found) != int(entry.before):
        setting.put("0", unusable)


def reduced_by(entry: Entry, unusable: int) -> list[str]:
    """What the kernel makes of an old mask while some of its CPUs are unusable; none are, none."""
    if not KNOBS[entry.knob].lost(entry.before, unusable):
        return []
    return [format_mask(parse_mask(entry.before) & ~unusable)]


def reduced_words(setting: Setting, before: str, got: str) -> str:
    lost = as_list(cpus_of(parse_mask(before) & ~parse_mask(got)))
    words = f"{setting} was {before}, of which the kernel made {got}: it takes no CPU {lost} now"
    return f"{words}, offline or isolated; restore again when it does"


def left_words(entry: Entry, setting: Setting, found: str) -> str:
    words = f"{setting} is {found}, which somebody else wrote: left as it is"
    return f"{words}; before it was steered it was {entry.before}"


def overwritten_words(entry: Entry) -> str:
    others = ", ".join(entry.overwritten)
    words = f"{entry} is {entry.before} as at first; somebody else had meanwhile written {others}"
    return f"{words}, which apply replaced"
