"""The snapshot: the values before an owner's first write, and the owner's last plan (pure)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.errors import shortened
from agent.fields import like, whole
from agent.files import read_json
from agent.knobs import DEVICE, KNOBS, MACHINE, NAMESPACE
from agent.plan import POD, POD_UID
from agent.processes import start_time

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.fields import Check

    Key = tuple[str, int, str, int]


# Limits of a snapshot, which contains the plan and several masks for each value.
MAX_SAVED = 2**25
SAVED_LIMITS = {",": 2**21, "[{": 2**18, '"': 2**21}
SNAPSHOT_VERSION = 2


class Place(NamedTuple):
    """A queue, a device, a network namespace or the machine: it has one value for each knob of its scope.

    sysfs uses no inode number twice, and a queue or device keeps its number when it is renamed or
    moved to another namespace. In tests with plain files the number is 0; there the namespace's
    cookie and the device's ifindex identify a place.
    """

    namespace: str | None
    cookie: str
    device: str
    ifindex: int
    queue: str
    inode: int

    @property
    def scope(self) -> str:
        if self.queue:
            return self.queue.partition("-")[0]
        return DEVICE if self.device else NAMESPACE if self.cookie else MACHINE

    @property
    def key(self) -> Key:
        if self.inode:
            return "", 0, "", self.inode
        return self.cookie, self.ifindex, self.queue, 0

    @property
    def keys(self) -> list[Key]:
        """The keys under which a snapshot may have this place."""
        return list(dict.fromkeys([self.key, self._replace(inode=0).key]))

    @property
    def names(self) -> tuple[str | None, str, str]:
        """Namespace, device and queue: those of a recreated device may be the same."""
        return self.namespace, self.device, self.queue

    def __str__(self) -> str:
        if self.scope == MACHINE:
            return "this machine"
        where = self.namespace or "this namespace"
        return f"{self.device} {self.queue}".strip() + f" in {where}" if self.device else where


THE_MACHINE = Place(None, "", "", 0, "", 0)


class Entry(NamedTuple):
    """One value that an owner steers: its place, the old value, and the owner's values."""

    place: Place
    knob: str
    before: str
    # values that this owner may have written, saved before the write; None: an earlier agent's entry
    written: list[str] | None = []  # noqa: RUF012 - it is replaced, never changed
    overwritten: list[str] = []  # noqa: RUF012 - others' values that the owner replaced since
    reason: str | None = None  # why a restore failed

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Entry:
        """From a row of a snapshot file; it takes its fields out of the row."""
        place = Place(**{name: row.pop(name) for name in Place._fields})
        return cls(place, **row)

    def as_row(self) -> dict[str, Any]:
        row = {**self.place._asdict(), **self._asdict()}
        del row["place"]
        return row

    @property
    def value_key(self) -> tuple[Key, str]:
        return self.place.key, self.knob

    def __str__(self) -> str:
        return f"{self.knob} of {self.place}"

    def writing(self, *values: str) -> Entry:
        """The entry with further values that may be written from now on."""
        if self.written is None:
            return self
        new = [value for value in dict.fromkeys(values) if value not in self.written]
        return self._replace(written=self.written + new)

    def explains(self, found: str, unusable: int) -> bool:
        """Whether `found` is the old value, or comes from this owner."""
        if self.written is None:
            return True
        values = (self.before, *self.written)
        return any(KNOBS[self.knob].comes_from(value, found, unusable) for value in values)


class Lease(NamedTuple):
    """The end of the lease (CLOCK_BOOTTIME, seconds), and the process that watches it."""

    seconds: int
    expires: float
    pid: int
    start: str

    def watched(self) -> bool:
        return start_time(self.pid) == self.start


class Snapshot(NamedTuple):
    """One owner's file."""

    owner: str
    boot_id: str
    since: str
    pid: int
    plan: dict[str, Any]
    lease: Lease | None
    entries: list[Entry]
    old: bool = False  # read from the form of an earlier agent

    def to_text(self) -> str:
        """JSON with a line of its own for each entry."""
        document = {**self._asdict(), "version": SNAPSHOT_VERSION}
        del document["old"]
        document["entries"] = [entry.as_row() for entry in self.entries]
        document["lease"] = self.lease and self.lease._asdict()
        write = partial(json.dumps, ensure_ascii=False)
        entries = ",\n".join(map(write, document["entries"]))
        head = {"checksum": checksum(document), **document, "entries": None}
        lines = [f"{write(k)}: {write(v)}" for k, v in head.items() if k != "entries"]
        return "{{\n{},\n{}: [\n{}\n]\n}}\n".format(",\n".join(lines), '"entries"', entries)

    @classmethod
    def from_text(cls, written: str) -> Snapshot:
        """The inverse of `to_text`; an error for any text that no agent wrote completely."""
        document = read_json(written, MAX_SAVED, SAVED_LIMITS)
        if "checksum" in document and document.pop("checksum") != checksum(document):
            raise ValueError("its checksum is that of another text")
        version = document.pop("version", 1)
        if version not in (1, SNAPSHOT_VERSION):
            raise ValueError(f"its version is {version}")
        old = version == 1
        rows = document.pop("entries")
        entries = (
            _entries_of_version_1(document, rows) if old else [Entry.of_row(row) for row in rows]
        )
        lease = document.pop("lease")
        snapshot = cls(**document, lease=lease and Lease(**lease), entries=entries, old=old)
        check_row(snapshot, SNAPSHOT_CHECKS)
        if snapshot.lease:
            check_row(snapshot.lease, LEASE_CHECKS)
        for entry in entries:
            check_row(entry, ENTRY_CHECKS)
            check_row(entry.place, PLACE_CHECKS)
            place = entry.place
            if place.scope != KNOBS[entry.knob].scope or (place.queue and not place.device):
                raise ValueError(f"it has {shortened(str(entry))}")
            for value in (entry.before, *(entry.written or ()), *entry.overwritten):
                if not (isinstance(value, str) and KNOBS[entry.knob].codec.fits(value)):
                    raise ValueError(f"a value of it is {shortened(repr(value))}")
        return snapshot


def checksum(document: Mapping[str, Any]) -> str:
    """A checksum of a document that does not depend on key order and white space."""
    total = hashlib.sha256()
    for key in sorted(document):
        value = document[key]
        for part in value if isinstance(value, list) else [value]:
            total.update(json.dumps([key, part], sort_keys=True).encode())
    return total.hexdigest()


def is_name(value: Any) -> bool:
    """Whether it can be the name of a device: it becomes a part of a path that root writes to."""
    fits = like(r"(?s)[^/\0]+")(value) and value not in (".", "..")
    return fits and len(os.fsencode(value)) <= 255


def is_place(value: Any) -> bool:
    fits = like(rf"(?s)/[^\0]*|{POD}{POD_UID}")
    return value is None or (fits(value) and len(os.fsencode(value)) < 4096)


# Of each field that is no text: what it may be.
SNAPSHOT_CHECKS: dict[str, Check] = {
    "pid": whole(0, 2**31),
    "plan": lambda v: isinstance(v, dict),
    "lease": lambda v: v is None or isinstance(v, Lease),
    "entries": lambda v: isinstance(v, list),
    "old": lambda v: isinstance(v, bool),
}
LEASE_CHECKS: dict[str, Check] = {
    "seconds": whole(0, 2**31),
    "expires": lambda v: type(v) in (int, float) and 0 <= v < 2**53,
    "pid": whole(0, 2**31),
}
PLACE_CHECKS: dict[str, Check] = {
    "namespace": is_place,
    "device": lambda v: v == "" or is_name(v),
    "queue": like(r"((rx|tx)-[0-9]{1,10})?"),
    "ifindex": whole(0, 2**31),
    "inode": whole(0, 2**64),
}
ENTRY_CHECKS: dict[str, Check] = {
    "place": lambda v: isinstance(v, Place),
    "knob": lambda v: v in KNOBS,
    "written": lambda v: v is None or isinstance(v, list),
    "overwritten": lambda v: isinstance(v, list),
    "reason": lambda v: v is None or isinstance(v, str),
}


def check_row(row: Any, checks: Mapping[str, Check]) -> None:
    for name, value in row._asdict().items():
        if not checks.get(name, lambda v: isinstance(v, str))(value):
            raise TypeError(f"its {name} is {shortened(repr(value))}")


def _entries_of_version_1(document: dict[str, Any], rows: list[dict[str, Any]]) -> list[Entry]:
    """One row for both values of a queue, and the flow table beside them."""
    entries = []
    for row in rows:
        values = {knob: row.pop(knob) for knob in ("rps_cpus", "rps_flow_cnt")}
        place = Place(**row, inode=0)
        entries += [Entry(place, knob, before, None) for knob, before in values.items()]
    table = document.pop("sock_flow_entries")
    if table is not None:
        entries.append(Entry(THE_MACHINE, "rps_sock_flow_entries", table, None))
    return entries
