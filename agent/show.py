"""Show: the settings of this machine, and their owners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from agent.errors import CANNOT, SteerError, explain
from agent.kernel_faults import has_table_fault, table_fault_words
from agent.knobs import DEVICE, RX_QUEUE, TX_QUEUE
from agent.machine import Machine
from agent.namespaces import Held
from agent.patterns import is_pattern
from agent.processes import boot_time
from agent.snapshot import THE_MACHINE
from agent.store import Store
from agent.targets import machine_row, row_of, rows_of


def show(machine: Machine, paths: Sequence[str]) -> dict[str, Any]:
    seen, unread = machine.visit({None, *paths})
    for path in paths:
        if path not in seen and path not in unread and not is_pattern(path):
            raise SteerError(f"there is no namespace {path}", CANNOT)
    warnings = [f"{path or 'own namespace'}: {why}" for path, why in unread.items()]
    holdings: list[Held] = []
    uppers: list[dict[str, Any]] = []
    for ns in seen.values():
        try:
            holdings.append(ns.own())
            devices = ns.devices()
        except (OSError, SteerError) as error:
            warnings.append(explain(error))
            continue
        for name in devices:
            try:
                for scope in (RX_QUEUE, TX_QUEUE, DEVICE):
                    holdings += ns.holdings(name, scope)
                below = ns.receivers(name)
            except (OSError, SteerError) as error:
                warnings.append(explain(error))
                continue
            if below != [name]:
                uppers.append({"namespace": ns.path, "device": name, "receives_on": below})
    release = machine.release()
    warnings += [table_fault_words(release)] if has_table_fault(release) else []
    for owner in machine.store.owners(Store.TRACE):
        warnings.append(f"the watchdog of {owner}: {machine.store.traced(owner)}")
    return {
        "boot_id": machine.boot_id,
        "cpus": machine.cpus._asdict(),
        **machine_row(machine.own().values),
        **rows_of((one.place, row_of(one)) for one in holdings if one.values),
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
    values = Counter(entry.knob for entry in snapshot.entries)
    return {
        "owner": owner,
        "since": snapshot.since,
        "pid": snapshot.pid,
        "lease_seconds": lease and lease.seconds,
        "lease_seconds_left": lease and max(0.0, round(lease.expires - boot_time(), 1)),
        "watchdog": lease.pid if lease and watched else None,
        "entries": len({entry.place.key for entry in snapshot.entries} - {THE_MACHINE.key}),
        "values": values,
        "holds_sock_flow_entries": "rps_sock_flow_entries" in values,
        "not_restored": [entry.reason for entry in snapshot.entries if entry.reason],
    }
