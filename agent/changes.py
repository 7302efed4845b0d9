"""Changes of settings: the order in which they are made, and which are refused before the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import CANNOT, SteerError
from agent.files import exists, read_text
from agent.kernel_faults import has_table_fault, without_unequal_tables
from agent.knobs import RX_QUEUE, of_scope
from agent.values import rounded_flows

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.namespaces import After
    from agent.settings import Change, Setting
    from agent.snapshot import Place, Snapshot


MEMORY_SHARE = 10  # the flow tables of a plan may take 1/10 of the available memory


def in_order(changes: Iterable[Change], release: str) -> list[Change]:
    """The changes so that each is possible on this release of Linux (pure)."""
    ordered = sorted(changes, key=lambda change: change[0].knob.turn(change[2]))
    return without_unequal_tables(ordered) if has_table_fault(release) else ordered


def without(mine: Snapshot | None, unusable: int) -> After:
    """The value that a device's knob will have without the owner's previous plan, which is restored (pure)."""
    entries = mine.entries if mine else []
    known = {(e.place.cookie, e.place.ifindex, e.knob): e for e in entries if not e.place.queue}

    def after(place: Place, knob: str, found: str) -> str:
        entry = known.get((place.cookie, place.ifindex, knob))
        return entry.before if entry and entry.explains(found, unusable) else found

    return after


def refuse_exhaustion(changes: Iterable[Change], available: int | None) -> None:
    """Refuse flow tables that would take a large share of the node's available memory (bytes)."""
    growth = 0
    largest = 0
    for setting, found, wanted in changes:
        size = setting.knob.entry_bytes
        if size:
            growth += size * (rounded_flows(int(wanted)) - int(found))
            largest = max(largest, int(wanted))
    if available is None or growth <= available // MEMORY_SHARE:
        return
    limit = available // MEMORY_SHARE
    raise SteerError(
        f"plan: its flow tables take {growth / 1e6:.1f} MB more memory; {available / 1e6:.1f} MB are "
        f"available, and a plan may use 1/{MEMORY_SHARE} of them ({limit / 1e6:.1f} MB): "
        f"reduce rps_flow_cnt or rps_sock_flow_entries, the largest is {largest}",
        CANNOT,
    )


def refused(setting: Setting, wanted: str, originals: Mapping[Path, str]) -> str:
    """Why a value cannot be set, or could not be restored; empty if it can.

    `originals` are the values that are restored first, by their file.
    """
    words = setting.refusal(wanted)
    if words or not setting.knob.reshapes:
        return f"{setting} cannot be {wanted}: {words}" if words else ""
    for number in range(int(wanted), int(setting.read())):
        queue = setting.path.parent / "queues" / f"rx-{number}"
        for knob in of_scope(RX_QUEUE):
            file = queue / knob.access.path
            value = originals.get(file) or (read_text(file).strip() if exists(file) else "0")
            if value.strip("0,"):
                return (
                    f"{setting} cannot be {wanted}: rx-{number} has {knob.name} {value}, which a "
                    "later restore could not write to a new queue: set it to 0 first"
                )
    return ""
