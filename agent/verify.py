"""Verify: the machine held against the plan."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from agent.errors import Gone, SteerError, explain
from agent.knobs import agrees
from agent.lease import end_watchdog
from agent.machine import Machine
from agent.plan import TABLE, Plan, parse_plan, wanted_values
from agent.processes import boot_time
from agent.snapshot import Snapshot
from agent.store import Damaged
from agent.survey import Survey
from agent.targets import find_targets, report
from agent.values import rounded_flows
from agent.watchdog import start_watchdog


def verify(machine: Machine, owner: str, plan: Plan | None, renew: bool) -> dict[str, Any]:
    """Hold the machine against a plan, by default the one applied last; writes no steering."""
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

    def note(
        kind: str,
        message: str,
        namespace: str | None = None,
        device: str | None = None,
        queue: str | None = None,
    ) -> None:
        where = {"namespace": namespace, "device": device, "queue": queue}
        drift.append({"kind": kind, **where, "message": message})

    trace = machine.store.traced(owner)
    traced = [f"the watchdog of {owner}: {trace}"] if trace else []
    if snapshot is None:
        note("snapshot", f"owner {owner} steers nothing here: restored, or its lease has lapsed")
    entries = [entry for entry in snapshot.entries if entry.knob != TABLE] if snapshot else []
    plan = plan or (saved_plan(machine, snapshot) if snapshot else None)
    if plan is None:
        nothing = Plan(owner, None, None, None, None, [], {})
        return {**report(machine, nothing, (), None), "drift": drift, "warnings": traced}

    survey = Survey(machine, (r.namespace for r in plan.rules), entries)
    targets, absent = find_targets(plan, wanted_values(plan, machine.cpus), survey.by_path)
    for rule, words in absent:
        note("missing", survey.unread_words(rule.namespace) or words, rule.namespace)
    known = {entry.key for entry in entries}
    places = {entry.place for entry in entries}  # where a recreated device looks like the old one
    for target in targets:
        queue = target.entry
        if snapshot and not known.intersection(queue.keys):
            recreated = queue.place in places
            words = "is not the device that apply steered" if recreated else "is new"
            kind = "recreated" if recreated else "unsteered"
            note(kind, f"{queue} {words}: apply again", *queue.place)
            continue
        for setting, got, text in target.values():
            if not agrees(setting.path.name, text, got, machine.cpus.unusable):
                note("value", f"{setting} is {got}, not {text}", *queue.place)

    met = {key for target in targets for key in target.entry.keys}
    seen = {target.entry.place for target in targets}
    # What a pattern finds may go, with its pod; a rule that then finds nothing has said so above.
    rules = [rule for rule in plan.rules if rule.namespace in survey.by_path]
    named = {(rule.namespace, device) for rule in rules for device in rule.devices}
    for entry in {entry.key: entry for entry in entries}.values():
        if entry.key in met:
            continue
        try:
            survey.find(entry)
        except Gone:
            if entry.place not in seen and (entry.namespace, entry.device) in named:
                note("missing", f"{entry.where} is gone", *entry.place)
        except (OSError, SteerError) as error:
            note("unread", explain(error), *entry.place)
        else:
            note("unplanned", f"{entry.where} is steered but not in this plan", *entry.place)
    table = machine.sock_flow_entries() if plan.sock_flow_entries is not None else None
    answer = report(machine, plan, targets, table)
    wanted_table = plan.sock_flow_entries
    if wanted_table is not None and int(table or 0) != rounded_flows(wanted_table):
        note("value", f"{machine.table} is {table or 0}, not {wanted_table}")
    if snapshot and snapshot.lease and not snapshot.lease.watched():
        answer["warnings"].append("the lease has lost its watchdog: verify --renew starts another")
    answer["warnings"] += [*survey.all_unread(), *traced]
    return {**answer, "drift": sorted(drift, key=lambda item: json.dumps(item))}
