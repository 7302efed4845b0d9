"""Known faults of Linux releases, and how to avoid them (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.settings import Change


RFS_TABLE = "rps_flow_cnt"
# CVE-2026-43208: an index into one queue's flow table was used with another's. Fixed from these on,
# and in 7.0-rc2.
TABLE_FAULT = {(6, 18): 16, (6, 19): 6}


def has_table_fault(release: str) -> bool:
    """Whether RFS tables of a device that differ in size can crash this release of Linux.

    By its version alone: a distribution may have the fix in an older one.
    """
    version = version_of(release)
    if version[:2] == (7, 0):
        return re.match(r"7\.0(\.0)?-rc1\b", release) is not None
    return version[2] < TABLE_FAULT.get(version[:2], 0)


def version_of(release: str) -> tuple[int, int, int]:
    """6, 18, 9 of 6.18.9-1-default; 0, 0, 0 of a text without a version."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    major, minor, patch = found.groups() if found else (0, 0, 0)
    return int(major), int(minor), int(patch or 0)


def table_fault_words(release: str) -> str:
    return (
        f"Linux {release} can crash while the RFS tables of a device differ in size "
        "(CVE-2026-43208, fixed in 6.18.16, 6.19.6 and 7.0; a distribution may have the fix in an "
        "older version): update the kernel before you use RFS"
    )


def without_unequal_tables(changes: Sequence[Change]) -> list[Change]:
    """The same changes in steps between which no two queues have tables of different sizes.

    A queue without a table is safe beside any other: so every table that is to get another size
    goes first.
    """
    resized = {c[0] for c in changes if c[0].knob.name == RFS_TABLE and int(c[1]) and int(c[2])}
    first = [(setting, found, "0") for setting, found, _ in changes if setting in resized]
    then = [(s, "0" if s in resized else found, wanted) for s, found, wanted in changes]
    return first + then
