"""Verify: compares the machine with the plan."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from agent.device_counts import device_counts
from agent.errors import Gone, SteerError, explain
from agent.lease import end_watchdog
from agent.machine import Machine
from agent.plan import Plan, parse_plan, wanted_values
from agent.processes import boot_time
from agent.snapshot import THE_MACHINE, Place, Snapshot
from agent.store import Damaged
from agent.survey import Survey
from agent.targets import find_targets, report
from agent.watchdog import start_watchdog

NAMES = ("namespace", "device", "queue")  # of a place, in the rows of drift


def verify(machine: Machine, owner: str, plan: Plan | None, renew: bool) -> dict[str, Any]:
    """Compare the machine with a plan, by default the one applied last; writes no steering."""
    if not renew:
        return inspect(machine, owner, plan, machine.store.load(owner))
    with machine.store.locked(machine.check):
        snapshot = machine.store.load(owner)
        answer = inspect(machine, owner, plan, snapshot)
        if snapshot and snapshot.lease and not answer["drift"]:
            lease = snapshot.lease
            watched = lease.watched()
            # a watchdog of an earlier agent cannot read the file that this one writes
            if not watched or snapshot.old:
                pid, start = start_watchdog(machine, owner)
                lease = lease._replace(pid=pid, start=start)
            lease = lease._replace(expires=round(boot_time() + lease.seconds, 3))
            machine.store.save(snapshot._replace(lease=lease, old=False))
            if watched and snapshot.old:
                with suppress(OSError):
                    end_watchdog(machine.store, owner, snapshot.lease)
        return answer


def saved_plan(machine: Machine, snapshot: Snapshot) -> Plan:
    try:
        return parse_plan(snapshot.plan)
    except SteerError as error:
        path = machine.store.path(snapshot.owner)
        words = f"snapshot {path} is damaged ({error}): give the plan, or restore"
        raise Damaged(words) from None


def inspect(
    machine: Machine, owner: str, plan: Plan | None, snapshot: Snapshot | None
) -> dict[str, Any]:
    drift: list[dict[str, Any]] = []

    def note(kind: str, message: str, place: Place = THE_MACHINE) -> None:
        where = {name: value or None for name, value in zip(NAMES, place.names)}
        drift.append({"kind": kind, **where, "message": message})

    trace = machine.store.traced(owner)
    traced = [f"the watchdog of {owner}: {trace}"] if trace else []
    if snapshot is None:
        note(
            "snapshot",
            f"owner {owner} steers nothing here: it was restored, or its lease has expired",
        )
    entries = snapshot.entries if snapshot else []
    plan = plan or (saved_plan(machine, snapshot) if snapshot else None)
    if plan is None:
        nothing = Plan(owner, None, None, None, {}, None, [], {})
        return {**report(machine, nothing, ()), "drift": drift, "warnings": traced}

    survey = Survey(machine, (r.namespace for r in plan.rules), entries)
    wanted = wanted_values(plan, machine.cpus)
    targets, absent = find_targets(machine, plan, wanted, survey.by_path)
    for namespace, words in absent:
        where = THE_MACHINE._replace(namespace=namespace)
        note("missing", survey.unread_words(namespace) or words, where)
    known = {entry.place.key for entry in entries}
    names = {
        entry.place.names for entry in entries
    }  # where a recreated device looks like the old one
    for target in targets:
        place = target.held.place
        if snapshot and place != THE_MACHINE and not known.intersection(place.keys):
            recreated = place.names in names
            words = "was recreated since the last apply" if recreated else "is new and not steered"
            kind = "recreated" if recreated else "unsteered"
            note(kind, f"{place} {words}: apply again", place)
            continue
        for setting, got, text in target.values():
            if not setting.knob.equal(text, got, machine.cpus.unusable):
                note("value", f"{setting} is {got}, not {text}", place)

    met = {key for target in targets for key in target.held.place.keys} | {THE_MACHINE.key}
    seen = {target.held.place.names for target in targets}
    # A match of a pattern may disappear with its pod; a rule without a match is reported above.
    rules = [rule for rule in plan.rules if rule.namespace in survey.by_path]
    named = {(rule.namespace, device) for rule in rules for device in rule.devices}
    for place in {entry.place.key: entry.place for entry in entries}.values():
        if place.key in met:
            continue
        try:
            survey.find(place)
        except Gone:
            if place.names not in seen and (place.namespace, place.device) in named:
                note("missing", f"{place} no longer exists", place)
        except (OSError, SteerError) as error:
            note("unread", explain(error), place)
        else:
            note("unplanned", f"{place} is steered but not in this plan", place)
    answer = report(machine, plan, targets)
    if snapshot and snapshot.lease and not snapshot.lease.watched():
        answer["warnings"].append(
            "the watchdog of the lease does not run: verify --renew starts another"
        )
    answer["warnings"] += [*survey.all_unread(), *traced]
    return {
        **answer,
        "device_counts": device_counts(targets, survey.by_path),
        "drift": sorted(drift, key=lambda item: json.dumps(item)),
    }
