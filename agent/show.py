"""Show: what stands, and who steers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.errors import CANNOT, SteerError, explain
from agent.kernel_faults import has_table_fault, table_fault_words
from agent.machine import Machine
from agent.patterns import is_pattern
from agent.plan import TABLE
from agent.processes import boot_time
from agent.store import Store
from agent.targets import values_of


def show(machine: Machine, paths: Sequence[str]) -> dict[str, Any]:
    seen, unread = machine.visit({None, *paths})
    for path in paths:
        if path not in seen and path not in unread and not is_pattern(path):
            raise SteerError(f"there is no namespace {path}", CANNOT)
    warnings = [f"{path or 'own namespace'}: {why}" for path, why in unread.items()]
    queues: list[dict[str, Any]] = []
    uppers: list[dict[str, Any]] = []
    for ns in seen.values():
        for name in ns.devices():
            try:
                queues += [values_of(queue) for queue, _ in ns.queues(name)]
                below = ns.receivers(name)
            except (OSError, SteerError) as error:
                warnings.append(explain(error))
                continue
            if below != [name]:
                uppers.append({"namespace": ns.path, "device": name, "receives_on": below})
    table = machine.sock_flow_entries()
    release = machine.release()
    warnings += [table_fault_words(release)] if has_table_fault(release) else []
    for owner in machine.store.owners(Store.TRACE):
        warnings.append(f"the watchdog of {owner}: {machine.store.traced(owner)}")
    return {
        "boot_id": machine.boot_id,
        "cpus": machine.cpus._asdict(),
        "sock_flow_entries": None if table is None else int(table),
        "queues": queues,
        "uppers": uppers,
        "warnings": warnings,
        "snapshots": [describe(machine, owner) for owner in machine.store.owners()],
    }


def describe(machine: Machine, owner: str) -> dict[str, Any]:
    try:
        snapshot = machine.store.load(owner)
        watched = bool(snapshot and snapshot.lease and snapshot.lease.watched())
    except (OSError, SteerError) as error:
        return {"owner": owner, "error": explain(error)}
    if snapshot is None:
        return {
            "owner": owner,
            "error": "snapshot from an earlier boot, no longer valid; restore deletes it",
        }
    lease = snapshot.lease
    return {
        "owner": owner,
        "since": snapshot.since,
        "pid": snapshot.pid,
        "lease_seconds": lease and lease.seconds,
        "lease_seconds_left": lease and max(0.0, round(lease.expires - boot_time(), 1)),
        "watchdog": lease.pid if lease and watched else None,
        "entries": len({entry.key for entry in snapshot.entries if entry.knob != TABLE}),
        "holds_sock_flow_entries": snapshot.table is not None,
        "not_restored": [entry.reason for entry in snapshot.entries if entry.reason],
    }
