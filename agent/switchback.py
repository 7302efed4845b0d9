"""Switchback: measure several plans of one owner in turn, under the same connections."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.changes import in_order
from agent.device_counts import device_counts
from agent.episode import Episode
from agent.errors import CANNOT, FAILED, SteerError, explain
from agent.goodput import receiver
from agent.machine import Machine
from agent.plan import Plan, wanted_values
from agent.processes import boot_time
from agent.procstat import Counters, punctual
from agent.schedule import Schedule, of_plan
from agent.settings import Setting
from agent.signals import Signals
from agent.snapshot import Lease, Snapshot
from agent.starting import Driver, await_connections
from agent.store import utc
from agent.survey import Survey
from agent.targets import ROWS, Target, find_targets, report
from agent.transaction import Intent, refuse_foreign, undo, undone_words
from agent.watchdog import start_lease
from agent.windows import read_back, row

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.namespaces import Namespace
    from agent.settings import Change
    from agent.snapshot import Key


class Switches(NamedTuple):
    """The writes of an episode, and the contents that the snapshot needs for them."""

    plan: Plan  # of the snapshot: the first, with the lease
    mine: Snapshot | None
    intent: Intent
    targets: dict[str, list[Target]]  # by plan
    wanted: dict[str, dict[Setting, str]]  # by plan: each value that any plan sets
    steps: list[list[Change]]  # for each window
    warnings: list[str]
    devices: list[Target]  # of all plans
    by_path: Mapping[str | None, Namespace]

    @property
    def settings(self) -> list[Setting]:
        return [setting for setting, *_ in self.intent.values]

    def changes(self) -> list[Change]:
        return [change for steps in self.steps for change in steps]

    def from_found(self) -> list[Change]:
        """The changes as if each had been made from the values at the start."""
        found = {setting: text for setting, text, _ in self.intent.values}
        return list(dict.fromkeys((s, found[s], text) for s, _, text in self.changes()))


def switchback(
    machine: Machine, schedule: Schedule, signals: Signals, driver: Driver
) -> dict[str, Any]:
    """Run an episode, then restore every value and the owner's snapshot.

    A value that another plan sets, but not the plan of the window, has its original value in that
    window, as after an apply of the plan.
    """
    with machine.store.locked(machine.check), ExitStack() as stack:
        switches = prepare_switches(machine, schedule)
        receivers = [receiver(machine, name, stack) for name in schedule.receivers]
        counters = Counters(machine.root / "proc", stack)
        held = {setting: stack.enter_context(setting.held()) for setting in switches.settings}
        writes = [
            [(setting, held[setting], f"{text}\n".encode()) for setting, _, text in steps]
            for steps in switches.steps
        ]
        episode = Episode(machine, signals, driver, list(held.values()), counters, receivers)
        during = snapshot(machine, switches)
        counts = [device_counts(switches.devices, switches.by_path)]

        def put_back() -> tuple[list[str], list[str]]:
            changes = in_order(switches.from_found(), machine.release())
            return undo(machine, switches.mine, during, switches.intent, changes)

        try:
            machine.store.save(during)
            with signals.at_once():
                driver.await_start()
                await_connections(machine, receivers, schedule.connections, driver)
            with punctual() as fifo:
                start = time.monotonic()
                refuse_changed(switches.intent.values, episode.values())
                taken = episode.run(start, schedule.windows, writes, schedule.every)
        except BaseException as error:
            status = getattr(error, "status", FAILED)
            raise SteerError(
                undone_words("switchback", explain(error), *put_back()), status
            ) from None
        counts.append(device_counts(switches.devices, switches.by_path))
        failed, left = put_back()
        if failed:
            raise SteerError(undone_words("switchback", "the episode is over", failed, left))
    rows = []
    stands: dict[str, dict[Setting, str]] = {}  # by plan, in the last of its windows
    for window, one in zip(schedule.windows, taken):
        wanted, unusable = switches.wanted[window.plan], machine.cpus.unusable
        values, differences = read_back(switches.settings, one.values, wanted, unusable)
        stands[window.plan] = values
        rows.append(row(window, one, receivers, differences, schedule))
    return {
        "owner": schedule.owner,
        "boot_id": machine.boot_id,
        "start": start,
        "fifo": fifo,
        "plans": {
            name: steering(machine, schedule.plans[name], switches.targets[name], values)
            for name, values in stands.items()
        },
        "windows": rows,
        "device_edges": counts,
        "left": left,
        "warnings": list(dict.fromkeys(switches.warnings)),
    }


def prepare_switches(machine: Machine, schedule: Schedule) -> Switches:
    """Compare all plans with the machine, and refuse what is invalid before any write."""
    plans = schedule.plans
    mine = machine.store.load(schedule.owner)
    others, warnings = machine.store.others(schedule.owner)
    paths = (rule.namespace for plan in plans.values() for rule in plan.rules)
    survey = Survey(machine, paths, mine.entries if mine else ())
    targets: dict[str, list[Target]] = {}
    for name, plan in plans.items():
        try:
            targets[name] = targets_of(machine, plan, survey)
        except SteerError as error:
            raise of_plan(name, error) from None
    union = plans[schedule.windows[0].plan]._replace(lease_seconds=schedule.lease_seconds)
    everything = merged(targets.values())
    refuse_foreign(everything, others)
    intent = Intent(machine, union, survey, mine)
    intent.steer(everything, {})
    found = {setting: text for setting, text, _ in intent.values}
    wanted = {}
    for name in plans:
        wanted[name] = {**intent.originals(), **values_of_plan(targets[name])}
        try:
            intent.refuse_impossible([(s, found[s], text) for s, text in wanted[name].items()])
        except SteerError as error:
            raise of_plan(name, error) from None
    steps, stands = [], found
    for window in schedule.windows:
        steps.append(switched(machine, stands, wanted[window.plan]))
        stands = wanted[window.plan]
    refuse_standing(chain.from_iterable(steps))
    warnings += [*survey.all_unread(), *intent.warnings]
    return Switches(
        union, mine, intent, targets, wanted, steps, warnings, everything, survey.by_path
    )


def refuse_standing(changes: Iterable[Change]) -> None:
    """Refuse to switch what cannot be switched under traffic."""
    for setting, found, wanted in changes:
        if not setting.knob.live:
            raise SteerError(
                f"switchback: {setting} would change from {found} to {wanted}: it cannot be switched "
                "under traffic: use plans that agree with its present value, or isolated runs",
                CANNOT,
            )


def targets_of(machine: Machine, plan: Plan, survey: Survey) -> list[Target]:
    targets, absent = find_targets(machine, plan, wanted_values(plan, machine.cpus), survey.by_path)
    if absent:
        words = [survey.unread_words(namespace) or words for namespace, words in absent]
        raise SteerError("; ".join(dict.fromkeys(words)), CANNOT)
    return targets


def merged(plans: Iterable[Iterable[Target]]) -> list[Target]:
    """Every place of any plan, with every knob that a plan sets there (pure)."""
    found: dict[Key, Target] = {}
    for target in chain.from_iterable(plans):
        key = target.held.place.key
        known = found.setdefault(key, target)
        held = known.held._replace(
            values={**target.held.values, **known.held.values},
            settings={**target.held.settings, **known.held.settings},
        )
        found[key] = known._replace(held=held, wanted={**target.wanted, **known.wanted})
    return list(found.values())


def values_of_plan(targets: Iterable[Target]) -> dict[Setting, str]:
    return {setting: text for target in targets for setting, _, text in target.values()}


def switched(
    machine: Machine, stands: Mapping[Setting, str], wanted: Mapping[Setting, str]
) -> list[Change]:
    """The writes from the present values to the wanted ones."""
    changes = [
        (setting, stands[setting], text)
        for setting, text in wanted.items()
        if text != stands[setting] and not setting.knob.equal(text, stands[setting])
    ]
    return in_order(changes, machine.release())


def snapshot(machine: Machine, switches: Switches) -> Snapshot:
    """The snapshot before the first write: every value that any window may change, and the lease.

    A watchdog of an earlier apply also watches it: it reads the file at least once a minute. The
    plan stays that of the apply: after a kill, `verify` finds what differs from it.
    """
    plan, mine = switches.plan, switches.mine
    if mine and mine.lease and mine.lease.watched() and not mine.old:
        expires = round(boot_time() + (plan.lease_seconds or 0), 3)
        lease: Lease | None = mine.lease._replace(seconds=plan.lease_seconds or 0, expires=expires)
    else:
        lease = start_lease(machine, plan)
    since = mine.since if mine else utc()
    entries = switches.intent.during(switches.changes())
    saved = mine.plan if mine else plan.document
    return Snapshot(plan.owner, machine.boot_id, since, os.getpid(), saved, lease, entries)


def refuse_changed(values: Sequence[Change], raw: Sequence[bytes]) -> None:
    """Refuse to start where somebody else has written a value since it was saved."""
    for (setting, found, _), read in zip(values, raw):
        now = setting.text_of(read)
        if not setting.knob.equal(found, now):
            words = f"{setting} was {found} a moment ago and is {now}: somebody else writes it"
            raise SteerError(f"{words}: start again")


def steering(
    machine: Machine, plan: Plan, targets: Iterable[Target], stands: Mapping[Setting, str]
) -> dict[str, Any]:
    """The values in a window of a plan, in the form of the answer of `apply`."""
    answer = report(machine, plan, [target.holding(stands) for target in targets])
    names = ("sock_flow_entries", "machine", *ROWS.values(), "warnings")
    return {name: answer[name] for name in names}
