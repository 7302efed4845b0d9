"""The node agent: applies, verifies and restores a node's receive packet steering (RPS, RFS).

A plan comes in as JSON, one JSON document goes out. What `apply` finds is safe in a snapshot file
before its first write; `restore` goes back to it. Standard library only; Python 3.8, Linux 5.2.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import fnmatch
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

if TYPE_CHECKING:  # Python 3.8 reads such types only where it need not evaluate them
    Check = Callable[[Any], bool]
    Key = tuple[str, str, int, str]
    Change = tuple["Setting", str, str]  # found, wanted

ROLES = ("nic", "overlay", "veth", "pod")
WORDS = ("none", "all", "first", "middle", "last")
OVERLAYS = "vxlan.calico flannel.1 cilium_vxlan geneve_sys_* genev_sys_* antrea-* vxlan* geneve*"
# What stands on another device and passes its packets through RPS once more, unpacked.
DECIDE_AGAIN = ("vxlan", "geneve", "wireguard", "macsec")
VETHS = "cali* veth* lxc* azv* eni*"
MASK = r"[0-9a-fA-F]+(,[0-9a-fA-F]{1,8})*"
MAX_FLOWS = 2**30  # rps_flow_cnt: one more is ENOMEM
MAX_SOCK_FLOWS = 2**29  # rps_sock_flow_entries: one more is EINVAL
MAX_RULES = 10_000
# Bytes an entry: struct rps_dev_flow (8 before Linux 6.18), and a u32. Memory of vmalloc, which no
# control group's limit holds.
ENTRY_BYTES = {"rps_flow_cnt": 12, "rps_sock_flow_entries": 4}
# CPUs of isolated partitions: unlike isolcpus the kernel leaves these in a mask.
CPUSETS = ("fs/cgroup/cpuset.cpus.isolated", "fs/cgroup/unified/cpuset.cpus.isolated")
MEMORY_SHARE = 10  # the flow tables of a plan may take one part in so many of the free memory
LOCK_PATIENCE = 60.0
POD = "pod:"  # instead of a path: the network namespace of the pod with this uid
POD_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"
WATCH_NAP = 5.0
WATCHDOG_NAP = 60.0  # at most: sleep() stops while the machine is suspended, a lease does not
FAILED, BAD_PLAN, CANNOT = 1, 2, 3


class SteerError(Exception):
    """What ends a verb, with the exit status; says what was wrong, where, and what to do."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Gone(SteerError):
    """The device disappeared."""


# --- masks, counts and CPUs (pure) ---


def parse_mask(text: str) -> int:
    """The bits of a mask as the kernel writes it: hexadecimal, with commas between 32 bits."""
    if not re.fullmatch(MASK, text):
        raise ValueError(f"{text!r} is not a hexadecimal mask")
    first, *groups = text.split(",")
    return int(first + "".join(group.zfill(8) for group in groups), 16)


def format_mask(mask: int) -> str:
    digits = f"{mask:x}"
    head = len(digits) % 8 or 8
    return ",".join([digits[:head], *(digits[i : i + 8] for i in range(head, len(digits), 8))])


def parse_cpu_list(text: str) -> list[int]:
    """The CPUs of a list such as `0-3,8`; none for an empty line or the kernel's `(null)`."""
    ranges = (part.partition("-") for part in text.strip().split(",") if part[:1].isdigit())
    return [cpu for low, _, high in ranges for cpu in range(int(low), int(high or low) + 1)]


def mask_of(cpus: Iterable[int]) -> int:
    return sum(1 << cpu for cpu in set(cpus))


def cpus_of(mask: int) -> list[int]:
    return [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1]


def as_list(cpus: Iterable[int]) -> str:
    """`0-3,8` of 0, 1, 2, 3, 8."""
    spans: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in spans)


def rounded_flows(entries: int) -> int:
    """What the kernel makes of a number of flow table entries: the next power of two, or 0."""
    return 1 << (entries - 1).bit_length() if entries else 0


def place(word: str, cores: Sequence[int]) -> list[int]:
    """The cores that a placement word means; the last stage is never without one."""
    first, rest = list(cores[:1]), list(cores[1:])
    middle, last = rest[: len(rest) // 2], rest[len(rest) // 2 :] or first
    return dict(zip(WORDS, ([], list(cores), first, middle, last)))[word]  # noqa: B905


class Cpus(NamedTuple):
    """The machine's CPUs by number."""

    online: list[int]
    present: list[int]
    isolated: list[int]

    @classmethod
    def of(cls, root: Path) -> Cpus:
        def read(file: str) -> list[int]:
            try:
                return parse_cpu_list((root / "sys" / file).read_text())
            except OSError:
                return []

        folder = "devices/system/cpu"
        present = read(f"{folder}/present") or read(f"{folder}/possible")
        isolated = (read(file) for file in (f"{folder}/isolated", f"{folder}/nohz_full", *CPUSETS))
        return cls(read(f"{folder}/online"), present, sorted({*chain.from_iterable(isolated)}))

    @property
    def unusable(self) -> int:
        """The mask of those that take no packets: offline, or isolated for other work."""
        return mask_of({*self.present} - {*self.online} | {*self.isolated})

    @property
    def usable(self) -> list[int]:
        return [cpu for cpu in self.online if cpu not in self.isolated]

    def faults(self, mask: int) -> str:
        """Why each unusable CPU of a mask is that, in words."""
        offline = sorted({*self.present} - {*self.online} - {*self.isolated})
        states = (("offline", offline), ("isolated", sorted({*self.isolated})))
        found = ((state, [cpu for cpu in cpus if mask >> cpu & 1]) for state, cpus in states)
        return ", ".join(
            f"CPU{'s' * (len(cpus) > 1)} {','.join(map(str, cpus))} {'are' if len(cpus) > 1 else 'is'}"
            f" {state}"
            for state, cpus in found
            if cpus
        )


def agrees(name: str, wanted: str, got: str, unusable: int) -> bool:
    """Whether `got`, read back from the file `name`, is what the kernel makes of `wanted`."""
    if name != "rps_cpus":
        return int(got) == rounded_flows(int(wanted))
    want, have = parse_mask(wanted), parse_mask(got)
    return have & ~want == 0 and want & ~have & ~unusable == 0


# --- the plan (pure) ---


def whole(low: int, high: int) -> Check:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def like(pattern: str) -> Check:
    return lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None


def each(check: Check, least: int = 1, most: int = 2**16) -> Check:
    return lambda v: isinstance(v, list) and least <= len(v) <= most and all(map(check, v))


class Field(NamedTuple):
    """What a key may hold, that in words, and whether null (or no key) will do too."""

    fits: Check
    words: str
    nullable: bool = False


PLAN_FIELDS = {
    "version": Field(whole(1, 1), "1"),
    "owner": Field(like(r"[A-Za-z0-9._/-]{1,128}"), "1 to 128 characters of A-Z a-z 0-9 . _ / -"),
    "cores": Field(
        lambda v: each(whole(0, 2**16))(v) and len(set(v)) == len(v),
        "a list of different CPUs",
        nullable=True,
    ),
    "queue_core": Field(whole(0, 2**16), "a CPU", nullable=True),
    "sock_flow_entries": Field(whole(0, MAX_SOCK_FLOWS), f"0 to {MAX_SOCK_FLOWS}", nullable=True),
    "lease_seconds": Field(whole(1, 2**31), "a whole number of seconds from 1", nullable=True),
    "rules": Field(
        each(lambda v: isinstance(v, dict), 0, MAX_RULES), f"a list of at most {MAX_RULES} rules"
    ),
}
RULE_FIELDS = {
    "role": Field(lambda v: v in ROLES, f"one of {', '.join(ROLES)}"),
    "namespace": Field(
        like(rf"/[ -~]+|{POD}{POD_UID}"),
        f"the path of network namespaces, it may have *, or {POD} and the uid of a pod",
        nullable=True,
    ),
    "devices": Field(each(like(r"[^/\0]+")), "a list of device names, patterns or auto"),
    "cpus": Field(
        like("|".join((*WORDS, MASK))), f"one of {', '.join(WORDS)} or a hexadecimal mask"
    ),
    "flows": Field(whole(0, MAX_FLOWS), f"0 to {MAX_FLOWS}"),
    "pod": Field(like(r"(?s).*"), "a string", nullable=True),
    "generation": Field(like(r"(?s).*"), "a string", nullable=True),
    "optional": Field(lambda v: isinstance(v, bool), "true or false", nullable=True),
}


def shortened(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def read_fields(document: Any, fields: Mapping[str, Field], where: str) -> dict[str, Any]:
    """The values of a JSON object, every key present; the error names the key and the value."""
    if not isinstance(document, dict):
        raise SteerError(f"plan: {where or 'it'} must be a JSON object", BAD_PLAN)
    for key in document:
        if key not in fields:
            known = ", ".join(fields)
            raise SteerError(f"plan: {where}{key} is unknown; the keys are {known}", BAD_PLAN)
    for key, field in fields.items():
        value = document.get(key)
        if not field.fits(value) and not (value is None and field.nullable):
            said = shortened(json.dumps(value)) if key in document else "missing"
            words = f"{field.words} or null" if field.nullable else field.words
            raise SteerError(f"plan: {where}{key} is {said}: it must be {words}", BAD_PLAN)
    return {key: document.get(key) for key in fields}


class Rule(NamedTuple):
    """The steering of one kind of device in one network namespace (None: the agent's own).

    The namespace may be a pattern: /run/netns/cni-* are the pods that there are when it is read.
    """

    role: str
    namespace: str | None
    devices: list[str]
    cpus: str
    flows: int
    pod: str | None
    generation: str | None
    optional: bool


class Plan(NamedTuple):
    """All steering that one owner wants; `document` is the JSON that said so."""

    owner: str
    cores: list[int] | None
    queue_core: int | None
    sock_flow_entries: int | None
    lease_seconds: int | None
    rules: list[Rule]
    document: dict[str, Any]


def parse_plan(document: Any) -> Plan:
    values = read_fields(document, PLAN_FIELDS, "")
    del values["version"]
    rules = []
    for index, item in enumerate(values["rules"]):
        rule = Rule(**read_fields(item, RULE_FIELDS, f"rules[{index}]."))
        if rule.role == "pod" and "auto" in rule.devices:
            words = f'plan: rules[{index}].devices is ["auto"]: name the devices of a pod'
            raise SteerError(words, BAD_PLAN)
        if rule.optional is None:
            rule = rule._replace(optional=rule.role == "veth")
        rules.append(rule)
    return Plan(**{**values, "rules": rules}, document=document)


def asked_masks(plan: Plan, cpus: Cpus) -> list[int]:
    """The mask that each rule asks for; refuses any CPU that this machine does not have."""

    def known(mask: int, where: str, value: Any) -> int:
        absent = mask & ~mask_of(cpus.present)
        if absent:
            cpu = absent.bit_length() - 1
            words = f"plan: {where} is {shortened(json.dumps(value))}: CPU {cpu} does not exist"
            raise SteerError(f"{words}, this machine has {as_list(cpus.present)}", BAD_PLAN)
        return mask

    cores = plan.cores or cpus.usable
    known(mask_of(cores), "cores", plan.cores)
    irq = [] if plan.queue_core is None else [plan.queue_core]
    queue = known(mask_of(irq), "queue_core", plan.queue_core)
    usable = [cpu for cpu in cores if cpu in cpus.usable]
    masks = []
    for index, rule in enumerate(plan.rules):
        if rule.cpus not in WORDS:
            masks.append(known(parse_mask(rule.cpus), f"rules[{index}].cpus", rule.cpus))
        elif rule.role == "nic" and rule.cpus == "none":
            masks.append(queue)
        else:
            # with no usable core among them the word means those, which `wanted_masks` refuses
            masks.append(mask_of(place(rule.cpus, usable or cores)))
    return masks


def wanted_masks(plan: Plan, cpus: Cpus) -> list[int]:
    """The mask of each rule without offline and isolated CPUs.

    Refuses a rule that asks for none but these: such a mask is no steering (the kernel would make
    it 0, or refuse it), and a CPU that was isolated is not to be given packets.
    """
    masks = []
    for index, (rule, asked) in enumerate(zip(plan.rules, asked_masks(plan, cpus))):  # noqa: B905
        mask = asked & ~cpus.unusable
        if asked and not mask:
            words = f"plan: rules[{index}].cpus is {json.dumps(rule.cpus)}, which means "
            words += f"{as_list(cpus_of(asked))}: {cpus.faults(asked)}: "
            raise SteerError(f"{words}steer to some of {as_list(cpus.usable)}", CANNOT)
        masks.append(mask)
    return masks


def reductions(plan: Plan, cpus: Cpus) -> list[str]:
    """What the masks of a plan lose on this machine, and why."""
    words = []
    cores = mask_of(plan.cores or ())
    if cores & cpus.unusable:
        words.append(f"cores: left out: {cpus.faults(cores)}")
    for rule, asked in zip(plan.rules, asked_masks(plan, cpus)):  # noqa: B905
        mask = asked & ~cpus.unusable
        if mask != asked:
            change = f"{format_mask(asked)} becomes {format_mask(mask)}"
            words.append(f"mask of {rule.role} {', '.join(rule.devices)}: {change}: ")
            words[-1] += cpus.faults(asked)
    return words


def refuse_exhaustion(changes: Iterable[Change], available: int | None) -> None:
    """Refuse flow tables that would take a large share of the node's free memory (in bytes)."""
    growth = 0
    largest = 0
    for setting, found, wanted in changes:
        size = ENTRY_BYTES.get(setting.path.name)
        if size:
            growth += size * (rounded_flows(int(wanted)) - int(found))
            largest = max(largest, int(wanted))
    if available is None or growth <= available // MEMORY_SHARE:
        return
    limit = available // MEMORY_SHARE
    raise SteerError(
        f"plan: its flow tables take {growth / 1e6:.1f} MB more memory, of which {available / 1e6:.1f}"
        f" MB are available and a plan may use one part in {MEMORY_SHARE} ({limit / 1e6:.1f} MB): "
        f"lower flows or sock_flow_entries, the largest is {largest} entries",
        CANNOT,
    )


# --- known faults of kernels (pure) ---

# CVE-2026-43208: an index into one queue's flow table was used with another's. Fixed from these on,
# and in 7.0-rc2.
TABLE_FAULT = {(6, 18): 16, (6, 19): 6}


def has_table_fault(release: str) -> bool:
    """Whether RFS tables of a device that differ in size can crash this release of Linux.

    By its version alone: a distribution may have the fix in an older one.
    """
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(-rc1\b)?", release)
    if not found:
        return False
    major, minor, patch = (int(number or 0) for number in found.groups()[:3])
    if (major, minor) == (7, 0):
        return found.group(4) is not None
    return patch < TABLE_FAULT.get((major, minor), 0)


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
    resized = {
        c[0] for c in changes if c[0].path.name == "rps_flow_cnt" and int(c[1]) and int(c[2])
    }
    first = [(setting, found, "0") for setting, found, _ in changes if setting in resized]
    then = [(s, "0" if s in resized else found, wanted) for s, found, wanted in changes]
    return first + then


def matching(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The names that match a pattern, in the order of the patterns."""
    return [name for pattern in patterns for name in sorted(fnmatch.filter(names, pattern))]


def is_pattern(path: str | None) -> bool:
    return path is not None and any(sign in path for sign in "*?[")


def default_route_device(routes: str) -> str | None:
    """The device of the default route of least metric in the text of /proc/net/route."""
    rows = [line.split() for line in routes.splitlines()[1:]]
    defaults = [(int(r[6]), r[0]) for r in rows if len(r) > 7 and r[1] == r[7] == "00000000"]
    return min(defaults)[1] if defaults else None


# --- the snapshot: what stood before, and what was asked for last ---


class Entry(NamedTuple):
    """One receive queue and what it held.

    A recreated pod may get the same inode and ifindex again, but never the same cookie.
    """

    namespace: str | None
    cookie: str
    device: str
    ifindex: int
    queue: str
    rps_cpus: str
    rps_flow_cnt: str

    @property
    def key(self) -> Key:
        return self.cookie, self.device, self.ifindex, self.queue

    @property
    def place(self) -> tuple[str | None, str, str]:
        return self.namespace, self.device, self.queue

    def __str__(self) -> str:
        return f"{self.device} {self.queue} in {self.namespace or 'the own namespace'}"


class Lease(NamedTuple):
    """Until when, on CLOCK_BOOTTIME, the steering may stand, and the process that sees to it."""

    seconds: int
    expires: float
    pid: int
    start: str

    def watched(self) -> bool:
        return start_time(self.pid) == self.start


class Snapshot(NamedTuple):
    """One owner's file; `sock_flow_entries` is None where the owner does not hold the machine's."""

    owner: str
    boot_id: str
    since: str
    pid: int
    plan: dict[str, Any]
    lease: Lease | None
    sock_flow_entries: str | None
    entries: list[Entry]

    def to_text(self) -> str:
        entries = [entry._asdict() for entry in self.entries]
        lease = self.lease and self.lease._asdict()
        return json.dumps({**self._asdict(), "lease": lease, "entries": entries}, indent=1) + "\n"

    @classmethod
    def from_text(cls, written: str) -> Snapshot:
        """The inverse; an error for anything that this agent did not write whole."""
        document = json.loads(written)
        entries = [Entry(**row) for row in document.pop("entries")]
        lease = document.pop("lease")
        snapshot = cls(**document, lease=lease and Lease(**lease), entries=entries)
        for entry in entries:
            parse_mask(entry.rps_cpus), int(entry.rps_flow_cnt), int(entry.ifindex)
        int(snapshot.sock_flow_entries or 0)
        return snapshot


class Store:
    """The snapshot files of this boot, each whole or not there, under one lock."""

    SUFFIX = ".snapshot"

    def __init__(self, directory: Path, boot_id: str) -> None:
        self.directory = directory
        self.boot_id = boot_id

    def path(self, owner: str) -> Path:
        return self.directory / (quote(owner, safe="") + self.SUFFIX)

    def owners(self) -> list[str]:
        files = self.directory.glob(f"*{self.SUFFIX}")
        return sorted(unquote(file.name[: -len(self.SUFFIX)]) for file in files)

    def load(self, owner: str) -> Snapshot | None:
        """An owner's snapshot; None where there is none, or one of an earlier boot: worthless."""
        path = self.path(owner)
        try:
            snapshot = Snapshot.from_text(path.read_text(encoding="utf-8"))
            if snapshot.owner != owner:
                raise ValueError(f"its owner is {snapshot.owner}")
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SteerError(
                f"snapshot {path} is damaged ({error!r}) and stays as it is: "
                "put the values that it names back by hand, then move it away"
            ) from None
        return snapshot if snapshot.boot_id == self.boot_id else None

    def others(self, owner: str) -> list[Snapshot]:
        loaded = (self.load(other) for other in self.owners() if other != owner)
        return [snapshot for snapshot in loaded if snapshot]

    def save(self, snapshot: Snapshot) -> None:
        """Replace the owner's file: after a power cut the old one stands or the new one does."""
        path = self.path(snapshot.owner)
        temporary = path.with_suffix(".temporary")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
                file.write(snapshot.to_text())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            self._sync()
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise SteerError(f"snapshot {path}: {error.strerror}: make room for it") from None

    def discard(self, owner: str) -> None:
        with suppress(FileNotFoundError):
            self.path(owner).unlink()
            self._sync()

    def _sync(self) -> None:
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def locked(self, check: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep every other agent out while the block runs.

        With a `check`, which ends the wait by raising, it waits for the lock only so long.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.directory / "lock"
        mode = fcntl.LOCK_EX | (fcntl.LOCK_NB if check else 0)
        deadline = time.monotonic() + LOCK_PATIENCE
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                if check:
                    check()
                try:
                    fcntl.flock(lock, mode)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        words = f"another agent holds {path}: find it with `fuser -v {path}`"
                        raise SteerError(words) from None
                    time.sleep(0.01)
            yield
        finally:
            os.close(lock)


# --- the machine: files of the kernel, network namespaces, processes ---


class Setting(NamedTuple):
    """One value of the kernel's steering: a file, and its device in words."""

    path: Path
    where: str

    def __str__(self) -> str:
        return f"{self.path.name} of {self.where}"

    def read(self) -> str:
        """The kernel's text, known to be a mask or a count."""
        raw: bytes = self._open(os.O_RDONLY, lambda file: os.read(file, 1 << 16))
        try:
            value = raw.decode().strip()
            agrees(self.path.name, value, value, 0)
        except ValueError:
            raise SteerError(f"{self}: reads {raw[:40]!r}, which is no value of it") from None
        return value

    def put(self, wanted: str, unusable: int) -> None:
        """Write, read back and compare."""
        line = f"{wanted}\n".encode()
        with writable(self.path):
            self._open(os.O_WRONLY | os.O_TRUNC, lambda file: os.write(file, line))
        got = self.read()
        if not agrees(self.path.name, wanted, got, unusable):
            raise SteerError(f"{self}: {wanted} was written, {got} reads back")

    def put_back(self, before: str, unusable: int) -> bool:
        """Whether there was anything to write."""
        changed = self.read() != before
        if changed:
            self.put(before, unusable)
        return changed

    def _open(self, flags: int, work: Callable[[int], Any]) -> Any:
        try:
            file = os.open(self.path, flags | os.O_CLOEXEC)
            try:
                return work(file)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                raise Gone(f"{self}: it is gone from here") from None
            raise SteerError(f"{self}: {error.strerror}") from None


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Let a file of a sysfs be written that a container runtime has made read-only.

    That was for a pod's own view of it, and its mount stays so; all mounts share the file system.
    """
    opened = re.match("/proc/self/fd/([0-9]+)/", str(path))
    mount = int(opened.group(1)) if opened else None
    locked = mount is not None and os.fstatvfs(mount).f_flag & os.ST_RDONLY
    if mount is None or not locked:
        yield
        return
    kernel = Kernel()
    kernel.reconfigure(mount, b"rw")
    try:
        yield
    finally:
        with suppress(OSError):  # busy: whoever else writes there does this at its end
            kernel.reconfigure(mount, b"ro")


def settings(directory: Path, entry: Entry) -> tuple[Setting, Setting]:
    where = str(entry)
    return Setting(directory / "rps_cpus", where), Setting(directory / "rps_flow_cnt", where)


class Namespace(NamedTuple):
    """A network namespace, seen through a sysfs that was mounted in it."""

    path: str | None
    cookie: str
    net: Path
    routes: str

    def devices(self) -> list[str]:
        """All but lo; /sys/class/net also holds files that are none, such as bonding_masters."""
        names = (entry.name for entry in self.net.iterdir() if (entry / "ifindex").exists())
        return sorted(name for name in names if name != "lo")

    def number(self, device: str, name: str = "ifindex") -> int:
        """An attribute of a device; 0 where the device is gone."""
        try:
            return int((self.net / device / name).read_text())
        except (OSError, ValueError):
            return 0

    def receivers(self, device: str) -> list[str]:
        """The devices that receive the packets of a device first: itself, or some below it.

        A bond's slave, a VLAN's parent or a virtual function below Azure's synthetic device hands
        a packet on within its own receive function, after the only decision of RPS. Of a bridge
        these are its hardware ports, where it has some.
        """
        below = sorted(link.name[len("lower_") :] for link in (self.net / device).glob("lower_*"))
        if not below or self._kind(device) in DECIDE_AGAIN:
            return [device]
        if self._kind(device) == "bridge":
            below = [port for port in below if self._on_hardware(port)] or below
        lowest = [name for port in below for name in self.receivers(port)]
        # also hardware itself: it receives what its virtual function does not
        own = [device] if (self.net / device / "device").exists() else []
        return list(dict.fromkeys(own + lowest))

    def receiving(self, devices: Iterable[str]) -> Iterator[tuple[str, Entry, Path]]:
        """The queues that receive the packets of devices, each with the device it is for."""
        for named in devices:
            for device in self.receivers(named):
                for entry, directory in self.queues(device):
                    yield named, entry, directory

    def _on_hardware(self, device: str) -> bool:
        return any((self.net / name / "device").exists() for name in self.receivers(device))

    def _kind(self, device: str) -> str:
        """DEVTYPE, such as bond, vlan, bridge; many kinds have none."""
        try:
            text = (self.net / device / "uevent").read_text()
        except OSError:
            return ""
        found = re.search(r"^DEVTYPE=(.*)$", text, re.MULTILINE)
        return found.group(1) if found else ""

    def queues(self, device: str) -> Iterator[tuple[Entry, Path]]:
        """The receive queues of a device with what they hold now; nothing where it is gone."""
        folders = [*(self.net / device / "queues").glob("rx-*")]
        ifindex = self.number(device)
        if ifindex and not folders:
            raise SteerError(f"{device}: it has no receive queues, so leave it out", CANNOT)
        for folder in sorted(folders, key=lambda folder: queue_number(folder.name)):
            entry = Entry(self.path, self.cookie, device, ifindex, folder.name, "", "")
            if folder.exists() and not (folder / "rps_cpus").exists():
                raise SteerError(f"{entry}: this kernel has no RPS (CONFIG_RPS)", CANNOT)
            mask, flows = settings(folder, entry)
            with suppress(Gone):
                yield entry._replace(rps_cpus=mask.read(), rps_flow_cnt=flows.read()), folder

    def chosen(self, rule: Rule, named: Collection[str]) -> list[str]:
        """The devices that a rule means; `auto` finds none of those `named` by other rules."""
        names = self.devices()
        found: set[str] = set()
        for pattern in rule.devices:
            auto = pattern == "auto"
            found.update(
                set(self._auto(rule.role, names)).difference(named)
                if auto
                else matching([pattern], names)
            )
        return sorted(found)

    def _auto(self, role: str, names: list[str]) -> list[str]:
        if role == "veth":
            return matching(VETHS.split(), names)
        overlay = matching(OVERLAYS.split(), names)[:1]
        if role == "overlay":
            return overlay
        for device in overlay:
            lower = self.number(device, "iflink")
            below = [link.name[len("lower_") :] for link in (self.net / device).glob("lower_*")]
            below += [name for name in names if name != device and self.number(name) == lower]
            if below:
                return below[:1]
        return [name for name in names if name == default_route_device(self.routes)]


def queue_number(queue: str) -> int:
    digits = queue[len("rx-") :]
    return int(digits) if digits.isdigit() else 0


class Kernel:
    """The system calls that Python 3.8 does not have."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def enter(self, namespace: int) -> None:
        self._result(self._libc.setns(namespace, 0x40000000), "setns")  # CLONE_NEWNET

    def sysfs(self) -> int:
        """A sysfs of the current network namespace that is mounted nowhere: only its descriptor.

        A private mount namespace would do too, but it copies the mounts of the machine and so
        keeps the namespaces below /run/netns alive.
        """
        context = self._call(430, b"sysfs", 1)  # fsopen, FSOPEN_CLOEXEC; same on all architectures
        try:
            self._call(431, context, 6, None, None, 0)  # fsconfig, FSCONFIG_CMD_CREATE
            return self._call(432, context, 1, 0)  # fsmount, FSMOUNT_CLOEXEC
        finally:
            os.close(context)

    def reconfigure(self, mount: int, flag: bytes) -> None:
        """Set a flag of a mounted file system, for all its mounts."""
        context = self._call(433, mount, b"", 9)  # fspick, FSPICK_CLOEXEC | FSPICK_EMPTY_PATH
        try:
            self._call(431, context, 0, flag, None, 0)  # fsconfig, FSCONFIG_SET_FLAG
            self._call(431, context, 7, None, None, 0)  # FSCONFIG_CMD_RECONFIGURE
        finally:
            os.close(context)

    def cookie(self, namespace: int) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                raw = probe.getsockopt(socket.SOL_SOCKET, 71, 8)  # SO_NETNS_COOKIE, Linux 5.14
            except OSError:
                return f"inode {os.fstat(namespace).st_ino}"
        return str(int.from_bytes(raw, sys.byteorder))

    def _call(self, number: int, *arguments: Any) -> int:
        words = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)]
        return self._result(self._libc.syscall(*words), f"system call {number}")

    @staticmethod
    def _result(result: int, what: str) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
        return result


class Machine:
    """The files under a root: `/`, or a tree of the same shape that needs no privilege."""

    def __init__(self, root: Path, check: Callable[[], None] = lambda: None) -> None:
        self.root = root = root.resolve()  # the watchdog leaves the current folder
        self.check = check
        self.real = root == Path("/")
        if self.real and os.geteuid() != 0:
            raise SteerError("only root may steer: use sudo", CANNOT)
        self._mounts: list[int] = []
        self.boot_id = (root / "proc/sys/kernel/random/boot_id").read_text().strip()
        self.store = Store(root / "run/steerlab", self.boot_id)
        self.table = Setting(root / "proc/sys/net/core/rps_sock_flow_entries", "this machine")
        self.cpus = Cpus.of(root)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        for mount in self._mounts:
            os.close(mount)
        self._mounts.clear()

    def release(self) -> str:
        try:
            return (self.root / "proc/sys/kernel/osrelease").read_text().strip()
        except OSError:
            return ""

    def memory_available(self) -> int | None:
        """Bytes, of the whole machine; None where it cannot be read."""
        try:
            text = (self.root / "proc/meminfo").read_text()
        except OSError:
            return None
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None

    def sock_flow_entries(self) -> str | None:
        """The machine's flow table; None outside the first namespace, where it cannot be seen."""
        try:
            return self.table.read()
        except Gone:
            return None

    def survey(
        self, paths: Iterable[str | None], entries: Iterable[Entry] = ()
    ) -> tuple[dict[str | None, Namespace], dict[str, Namespace]]:
        """The namespaces that exist, by path and by cookie.

        A path such as /proc/PID/ns/net can end before its namespace does: the namespace of an
        entry is then looked for under every path that there is.
        """
        entries = list(entries)
        by_path = self.visit({*paths, *(entry.namespace for entry in entries)})
        by_cookie = {namespace.cookie: namespace for namespace in by_path.values()}
        if {entry.cookie for entry in entries} - set(by_cookie):
            for namespace in self.visit(self._all_paths()).values():
                by_cookie.setdefault(namespace.cookie, namespace)
        return by_path, by_cookie

    def visit(self, paths: Iterable[str | None]) -> dict[str | None, Namespace]:
        """Enter each namespace once; this process is back in its own when it returns."""
        known = {one for path in paths for one in (self._glob(path) if path else [None])}
        ordered = sorted(known, key=lambda path: path or "")
        pods = self._pods() if any(path and path.startswith(POD) for path in ordered) else {}
        if not self.real:
            return {p: ns for p in ordered for ns in self._imitations(p, pods.get(p or "", p))}
        seen: dict[str | None, Namespace] = {}
        kernel = Kernel()
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        path: str | None = None
        try:
            for path in ordered:
                cookie = self._enter(kernel, pods.get(path or "", path), home)
                if cookie:
                    self._mounts.append(kernel.sysfs())
                    net = Path(f"/proc/self/fd/{self._mounts[-1]}/class/net")
                    routes = Path("/proc/thread-self/net/route").read_text()
                    seen[path] = Namespace(path, cookie, net, routes)
        except OSError as error:
            words = f"namespace {path or 'of the agent'}: {error.strerror}"
            raise SteerError(f"{words}: Linux 5.2 and CAP_SYS_ADMIN are needed", CANNOT) from None
        finally:
            kernel.enter(home)
            os.close(home)
        return seen

    def _enter(self, kernel: Kernel, path: str | None, home: int) -> str | None:
        """The cookie of the namespace, now entered; None where the path is not that of one."""
        try:
            inside = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else os.dup(home)
            try:
                kernel.enter(inside)
                return kernel.cookie(inside)
            finally:
                os.close(inside)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.EINVAL):
                return None
            raise

    def _pods(self) -> dict[str, str]:
        """The network namespace of each pod that has a process, whose cgroup names the pod."""
        found = {}
        for file in self.root.glob("proc/[0-9]*/cgroup"):
            with suppress(OSError):
                for uid in re.findall(f"pod({POD_UID})", file.read_text()):
                    found[POD + uid.replace("_", "-")] = f"/proc/{file.parent.name}/ns/net"
        return found

    def _imitations(self, path: str | None, place: str | None) -> Iterator[Namespace]:
        base = self.root / place.lstrip("/") if place else self.root
        cookie, routes = base / "cookie", base / "proc/net/route"
        if cookie.exists() or not path:
            name = cookie.read_text().strip() if cookie.exists() else "own"
            table = routes.read_text() if routes.exists() else ""
            yield Namespace(path, name, base / "sys/class/net", table)

    def _all_paths(self) -> list[str | None]:
        """One path to each namespace that has a name or a process."""
        found: dict[int, str | None] = {}
        for pattern in ("/run/netns/*", "/proc/[0-9]*/ns/net"):
            for path in sorted(self._glob(pattern)):
                with suppress(OSError):
                    found.setdefault((self.root / path[1:]).stat().st_ino, path)
        return list(found.values())

    def _glob(self, path: str) -> list[str]:
        """The paths that a pattern means now; any other path as it is."""
        if not is_pattern(path):
            return [path]
        return [f"/{one.relative_to(self.root)}" for one in self.root.glob(path.lstrip("/"))]


def locate(entry: Entry, by_cookie: Mapping[str, Namespace]) -> Path | None:
    """The directory of an entry's queue; None where that very device no longer exists."""
    namespace = by_cookie.get(entry.cookie)
    if namespace is None or namespace.number(entry.device) != entry.ifindex:
        return None
    directory = namespace.net / entry.device / "queues" / entry.queue
    return directory if directory.exists() else None


def start_time(pid: int) -> str | None:
    """Field 22 of proc_pid_stat(5), which tells a process from a later one of the same id."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


# --- targets: what a plan means on this machine ---


class Target(NamedTuple):
    """One queue: what it holds, and what it is to hold."""

    rule: Rule
    named: str  # the device that the rule means; the queue is its own, or of one below it
    entry: Entry
    directory: Path
    rps_cpus: str
    rps_flow_cnt: str

    def values(self) -> Iterator[tuple[Setting, str, str]]:
        """Each of its settings, found and wanted."""
        mask, flows = settings(self.directory, self.entry)
        yield mask, self.entry.rps_cpus, self.rps_cpus
        yield flows, self.entry.rps_flow_cnt, self.rps_flow_cnt


def meant(path: str | None, by_path: Mapping[str | None, Namespace]) -> list[Namespace]:
    """The namespaces of a rule's path or pattern."""
    if path is None or not is_pattern(path):
        return [by_path[path]] if path in by_path else []
    return [ns for known, ns in by_path.items() if known and fnmatch.fnmatchcase(known, path)]


def named_elsewhere(plan: Plan, rule: Rule) -> set[str]:
    rules = (r for r in plan.rules if r is not rule and r.namespace == rule.namespace)
    return {name for other in rules for name in other.devices}


def find_targets(
    plan: Plan, masks: Sequence[int], by_path: Mapping[str | None, Namespace]
) -> tuple[list[Target], list[tuple[Rule, str]]]:
    """Every queue that the plan means, in order, and the rules that mean none, with why."""
    found: dict[Key, Target] = {}
    absent: list[tuple[Rule, str]] = []
    for index, rule in enumerate(plan.rules):
        namespaces = meant(rule.namespace, by_path)
        if not namespaces and not (rule.optional and is_pattern(rule.namespace)):
            absent.append((rule, f"rules[{index}]: there is no namespace {rule.namespace}"))
        for namespace in namespaces:
            devices = namespace.chosen(rule, named_elsewhere(plan, rule))
            if not devices and not rule.optional:
                where = namespace.path or "this namespace"
                what = f"rules[{index}]: no {rule.role} device of {where}"
                has = ", ".join(namespace.devices()) or "only lo"
                absent.append((rule, f"{what} matches {', '.join(rule.devices)}; it has {has}"))
            for name, entry, directory in namespace.receiving(devices):
                wanted = format_mask(masks[index]), str(rule.flows)
                target = found.setdefault(entry.key, Target(rule, name, entry, directory, *wanted))
                if (target.rps_cpus, target.rps_flow_cnt) != wanted:
                    twin = plan.rules.index(target.rule)
                    words = f"plan: rules[{twin}] and rules[{index}] want different values for"
                    raise SteerError(f"{words} {entry}: let only one of them match it", BAD_PLAN)
    return sorted(found.values(), key=_in_order), absent


def _in_order(target: Target) -> tuple[int, str, str, int]:
    rule, entry = target.rule, target.entry
    role = ROLES.index(rule.role)
    return role, rule.namespace or "", entry.device, queue_number(entry.queue)


def values_of(entry: Entry) -> dict[str, Any]:
    hidden = ("cookie", "ifindex")  # they differ from one recreation to the next
    row = {name: value for name, value in entry._asdict().items() if name not in hidden}
    return {**row, "rps_flow_cnt": int(entry.rps_flow_cnt)}


def report(machine: Machine, plan: Plan, targets: Iterable[Target]) -> dict[str, Any]:
    """What stands, in the order of the plan; nothing in it differs from run to run."""
    queues, warnings = [], []
    release = machine.release()
    warnings += reductions(plan, machine.cpus)
    asked = dict(zip(map(id, plan.rules), asked_masks(plan, machine.cpus)))  # noqa: B905
    for rule, named, entry, _, _, flows in targets:
        row: dict[str, Any] = {"role": rule.role, "pod": rule.pod, **values_of(entry)}
        if named != entry.device:
            row["for"] = named
        if asked[id(rule)] & machine.cpus.unusable:
            row["asked_rps_cpus"] = format_mask(asked[id(rule)])
        queues.append(row)
        if entry.cookie.startswith("inode"):
            warnings.append("before Linux 5.14 a recreated namespace may pass for the old one")
        if has_table_fault(release) and (int(flows) or int(entry.rps_flow_cnt)):
            warnings.append(table_fault_words(release))
    table = machine.sock_flow_entries() if plan.sock_flow_entries is not None else None
    return {
        "owner": plan.owner,
        "changed": 0,
        "boot_id": machine.boot_id,
        "sock_flow_entries": None if table is None else int(table),
        "queues": queues,
        "drift": [],
        "warnings": list(dict.fromkeys(warnings)),
    }


# --- apply ---


def apply(machine: Machine, plan: Plan) -> dict[str, Any]:
    """Bring the machine from any plan of this owner to this one; whole or not at all."""
    masks = wanted_masks(plan, machine.cpus)
    with machine.store.locked(machine.check):
        mine, others = machine.store.load(plan.owner), machine.store.others(plan.owner)
        old = {entry.key: entry for entry in mine.entries} if mine else {}
        by_path, by_cookie = machine.survey((r.namespace for r in plan.rules), old.values())
        targets, absent = find_targets(plan, masks, by_path)
        if absent:
            raise SteerError("; ".join(words for _, words in absent), CANNOT)
        refuse_foreign(plan, targets, others)

        kept = []
        values: list[Change] = []
        for target in targets:
            known = old.pop(target.entry.key, target.entry)
            kept.append(known._replace(namespace=target.entry.namespace))
            values += target.values()
        dropped = []
        for entry in old.values():
            directory = locate(entry, by_cookie)
            if directory:
                mask, flows = settings(directory, entry)
                values.append((mask, mask.read(), entry.rps_cpus))
                values.append((flows, flows.read(), entry.rps_flow_cnt))
                dropped.append(entry)
        held, table_values = plan_table(machine, plan, mine)
        values += table_values
        # What is wanted has no unusable CPU, so a mask that has lost one is written again.
        changes = [v for v in values if not agrees(v[0].path.name, v[2], v[1], 0)]
        refuse_exhaustion(changes, machine.memory_available())
        steps = changes
        if has_table_fault(machine.release()):
            steps = without_unequal_tables(changes)

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lease = start_lease(machine, plan)
        since = mine.since if mine else now
        final = Snapshot(
            plan.owner, machine.boot_id, since, os.getpid(), plan.document, lease, held, kept
        )
        # Until the last write is made, the file holds what the old plan and the new one need.
        also = mine.sock_flow_entries if mine else None
        during = final._replace(entries=kept + dropped, sock_flow_entries=held or also)
        commit(machine, mine, during, final, steps)
        if mine and mine.lease:
            end_watchdog(machine.root, plan.owner, mine.lease)
        answer = {**report(machine, plan, read_again(targets)), "changed": len(changes)}
        if mine and mine.lease and plan.lease_seconds is None:
            lost = f"the lease of {mine.lease.seconds} s is gone with this plan, which has none"
            answer["warnings"].append(f"{lost}: the steering stays until it is restored")
        return answer


def read_again(targets: Iterable[Target]) -> Iterator[Target]:
    """The targets with what they hold by now, without those that are gone."""
    for target in targets:
        mask, flows = (setting for setting, _, _ in target.values())
        with suppress(Gone):
            entry = target.entry._replace(rps_cpus=mask.read(), rps_flow_cnt=flows.read())
            yield target._replace(entry=entry)


def plan_table(
    machine: Machine, plan: Plan, mine: Snapshot | None
) -> tuple[str | None, list[Change]]:
    """What the machine's flow table held before this owner, and what it is to hold."""
    found = machine.sock_flow_entries()
    before = mine.sock_flow_entries if mine else None
    if found is None and plan.sock_flow_entries:
        words = f"the plan needs {machine.table.path}, which there is not"
        raise SteerError(f"{words}: run the agent in the first network namespace", CANNOT)
    if found is None:
        return before, []
    if plan.sock_flow_entries is None:
        return None, [] if before is None else [(machine.table, found, before)]
    held = found if before is None else before
    return held, [(machine.table, found, str(plan.sock_flow_entries))]


def refuse_foreign(plan: Plan, targets: Iterable[Target], others: Iterable[Snapshot]) -> None:
    """Two owners of one value could not both restore it."""
    holders = {entry.key: other for other in others for entry in other.entries}
    claims = [(str(target.entry), holders.get(target.entry.key)) for target in targets]
    if plan.sock_flow_entries is not None:
        claims += [("rps_sock_flow_entries", o) for o in others if o.sock_flow_entries is not None]
    for what, other in claims:
        if other:
            held = f"{what} is steered by owner {other.owner} (pid {other.pid}, {other.since})"
            raise SteerError(f"{held}: first run restore --owner {other.owner}", CANNOT)


def commit(
    machine: Machine,
    mine: Snapshot | None,
    during: Snapshot,
    final: Snapshot,
    changes: Iterable[Change],
) -> None:
    """Make the snapshot durable and then the changes, or put back what was found."""
    store, unusable = machine.store, machine.cpus.unusable
    started: list[Change] = []
    try:
        if mine is None or during._replace(pid=mine.pid) != mine:
            store.save(during)
        for change in changes:
            machine.check()
            started.append(change)
            setting, _, wanted = change
            setting.put(wanted, unusable)
        if final != during:
            store.save(final)
    except BaseException as error:
        status = getattr(error, "status", FAILED)
        stuck = []
        for setting, found, _ in reversed(started):
            try:
                setting.put_back(found, unusable)
            except Gone:
                continue
            except SteerError as failure:
                stuck.append(str(failure))
        if stuck:
            words = f"{error}; not put back, so the snapshot stays: {'; '.join(stuck)}"
            raise SteerError(words, status) from None
        # Should this fail, the file of both plans stays: it holds all that a restore needs.
        with suppress(SteerError):
            store.save(mine) if mine else store.discard(during.owner)
        raise SteerError(f"{error}; steering is as apply found it", status) from None


# --- the lease ---


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_lease(machine: Machine, plan: Plan) -> Lease | None:
    if plan.lease_seconds is None:
        return None
    process = start_watchdog(machine.root, plan.owner)
    return Lease(plan.lease_seconds, round(boot_time() + plan.lease_seconds, 3), *process)


def start_watchdog(root: Path, owner: str) -> tuple[int, str]:
    """Fork a detached watchdog, where none stands; returns its process id and start time.

    It first waits for the lock, which the caller holds, and ends if the file then does not name
    it: so nobody need tell it that apply failed or was killed.
    """
    standing = standing_watch(root, owner)
    if standing:
        return standing
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.write(writable, b"%d" % os.getpid())
                detach()
                watch(root, owner)
        finally:
            os._exit(0)
    os.close(writable)
    os.waitpid(child, 0)
    word = os.read(readable, 32)
    os.close(readable)
    start = start_time(int(word)) if word else None
    if start is None:
        raise SteerError("the watchdog of the lease did not start; nothing was changed")
    return int(word), start


def detach() -> None:
    """Let go of all that was inherited: pipes, the lock, views of namespaces."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir("/")
    os.closerange(0, 1 + max(int(file.name) for file in Path("/proc/self/fd").iterdir()))
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
        os.open(os.devnull, flags)


def watch(root: Path, owner: str) -> None:
    """Restore when the lease lapses unrenewed; end when the file no longer names this process."""
    while True:
        nap = WATCHDOG_NAP
        # A passing want of memory or descriptors must not end the lease.
        with suppress(SteerError, OSError), Machine(root) as machine, machine.store.locked():
            snapshot = machine.store.load(owner)
            lease = snapshot and snapshot.lease
            if not snapshot or not lease or lease.pid != os.getpid() or not lease.watched():
                return
            left = lease.expires - boot_time()
            if left <= 0 and not put_back(machine, snapshot)["failed"]:
                return
            nap = min(left, nap) if left > 0 else nap
        time.sleep(nap)
        if not root.exists():
            return


def watch_file(root: Path, owner: str) -> Path:
    """Names the process of `watch`, as `pid start-time`."""
    return root / "run/steerlab" / (quote(owner, safe="") + ".watch")


def standing_watch(root: Path, owner: str) -> tuple[int, str] | None:
    try:
        pid, start = watch_file(root, owner).read_text().split()
    except (OSError, ValueError):
        return None
    return (int(pid), start) if start_time(int(pid)) == start else None


def stand_watch(root: Path, owner: str, signals: Signals) -> dict[str, Any]:
    """See to an owner's leases until a signal comes, and then restore.

    For where a forked watchdog could not stay: the containers of a Job end with it.
    """
    me = os.getpid(), start_time(os.getpid()) or ""
    with Machine(root) as machine, machine.store.locked():
        standing = standing_watch(root, owner)
        if standing and standing != me:
            raise SteerError(f"pid {standing[0]} watches owner {owner} already", CANNOT)
        watch_file(root, owner).write_text(f"{me[0]} {me[1]}")
    while not signals.caught:
        nap = WATCH_NAP
        with suppress(SteerError, OSError), Machine(root) as machine, machine.store.locked():
            snapshot = machine.store.load(owner)
            lease = snapshot and snapshot.lease
            if snapshot and lease:
                if (lease.pid, lease.start) != me:
                    end_watchdog(root, owner, lease)
                    lease = lease._replace(pid=me[0], start=me[1])
                    machine.store.save(snapshot._replace(lease=lease))
                nap = min(nap, max(0.0, lease.expires - boot_time()))
                if nap <= 0:
                    put_back(machine, snapshot)
                    nap = WATCH_NAP
        signals.wait(nap)
    with Machine(root) as machine:
        answer = restore(machine, owner)
    with suppress(FileNotFoundError):
        watch_file(root, owner).unlink()
    return answer


def end_watchdog(root: Path, owner: str, lease: Lease) -> None:
    """Called under the lock, so never while the watchdog restores."""
    mine = lease.pid == os.getpid() or standing_watch(root, owner) == (lease.pid, lease.start)
    if not mine and lease.watched():
        with suppress(ProcessLookupError):
            os.kill(lease.pid, signal.SIGTERM)


# --- verify ---


def verify(machine: Machine, owner: str, plan: Plan | None, renew: bool) -> dict[str, Any]:
    """Hold the machine against a plan, by default the one applied last; writes no steering."""
    if not renew:
        return inspect(machine, owner, plan, machine.store.load(owner))
    with machine.store.locked(machine.check):
        snapshot = machine.store.load(owner)
        answer = inspect(machine, owner, plan, snapshot)
        if snapshot and snapshot.lease and not answer["drift"]:
            lease = snapshot.lease
            if not lease.watched():
                pid, start = start_watchdog(machine.root, owner)
                lease = lease._replace(pid=pid, start=start)
            lease = lease._replace(expires=round(boot_time() + lease.seconds, 3))
            machine.store.save(snapshot._replace(lease=lease))
        return answer


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

    if snapshot is None:
        note("snapshot", f"owner {owner} steers nothing here: restored, or its lease has lapsed")
    entries = snapshot.entries if snapshot else []
    plan = plan or (parse_plan(snapshot.plan) if snapshot else None)
    if plan is None:
        nothing = Plan(owner, None, None, None, None, [], {})
        return {**report(machine, nothing, ()), "drift": drift}

    by_path, by_cookie = machine.survey((r.namespace for r in plan.rules), entries)
    targets, absent = find_targets(plan, wanted_masks(plan, machine.cpus), by_path)
    for rule, words in absent:
        note("missing", words, rule.namespace)
    known = {entry.key for entry in entries}
    places = {entry.place for entry in entries}  # where a recreated device looks like the old one
    for target in targets:
        entry = target.entry
        if snapshot and entry.key not in known:
            recreated = entry.place in places
            words = "is not the device that apply steered" if recreated else "is new"
            kind = "recreated" if recreated else "unsteered"
            note(kind, f"{entry} {words}: apply again", *entry.place)
            continue
        for setting, got, wanted in target.values():
            if not agrees(setting.path.name, wanted, got, machine.cpus.unusable):
                note("value", f"{setting} is {got}, not {wanted}", *entry.place)

    met = {target.entry.key for target in targets}
    seen = {target.entry.place for target in targets}
    # What a pattern finds may go, with its pod; a rule that then finds nothing has said so above.
    rules = [rule for rule in plan.rules if rule.namespace in by_path]
    named = {(rule.namespace, device) for rule in rules for device in rule.devices}
    for entry in entries:
        if entry.key in met:
            continue
        if locate(entry, by_cookie):
            note("unplanned", f"{entry} is steered but not in this plan", *entry.place)
        elif entry.place not in seen and (entry.namespace, entry.device) in named:
            note("missing", f"{entry} is gone", *entry.place)
    answer = report(machine, plan, targets)
    table, wanted_table = answer["sock_flow_entries"] or 0, plan.sock_flow_entries
    if wanted_table is not None and table != rounded_flows(wanted_table):
        note("value", f"{machine.table} is {table}, not {wanted_table}")
    if snapshot and snapshot.lease and not snapshot.lease.watched():
        answer["warnings"].append("the lease has lost its watchdog: verify --renew starts another")
    return {**answer, "drift": sorted(drift, key=lambda item: json.dumps(item))}


# --- restore and show ---


def restore(machine: Machine, owner: str) -> dict[str, Any]:
    with machine.store.locked(machine.check):
        snapshot = machine.store.load(owner)
        if snapshot:
            return put_back(machine, snapshot)
        machine.store.discard(owner)
    return {"owner": owner, "restored": 0, "sock_flow_entries": None, "gone": [], "failed": []}


def restore_all(machine: Machine) -> dict[str, Any]:
    answers = []
    for owner in machine.store.owners():
        try:
            answers.append(restore(machine, owner))
        except SteerError as error:
            answers.append({"owner": owner, "restored": 0, "gone": [], "failed": [str(error)]})
    return {"owners": answers, "failed": [words for a in answers for words in a["failed"]]}


def put_back(machine: Machine, snapshot: Snapshot) -> dict[str, Any]:
    """Write a snapshot's values, skip what is gone, keep what fails; called under the lock."""
    _, by_cookie = machine.survey((), snapshot.entries)
    restored = 0
    gone: list[str] = []
    failed: list[str] = []

    def write(setting: Setting, before: str) -> bool:
        """Whether this setting is done with."""
        nonlocal restored
        try:
            restored += setting.put_back(before, machine.cpus.unusable)
        except SteerError as error:
            # The machine's table does not go; only this network namespace does not show it.
            device_gone = isinstance(error, Gone) and setting != machine.table
            (gone if device_gone else failed).append(str(error))
            return device_gone
        return True

    left = []
    for entry in snapshot.entries:
        directory = locate(entry, by_cookie)
        if directory is None:
            gone.append(f"{entry}: it is gone")
            continue
        mask, flows = settings(directory, entry)
        done = [write(mask, entry.rps_cpus), write(flows, entry.rps_flow_cnt)]
        left += [] if all(done) else [entry]
    table = snapshot.sock_flow_entries
    table_done = table is None or write(machine.table, table)
    if failed:
        kept = None if table_done else table
        machine.store.save(snapshot._replace(entries=left, sock_flow_entries=kept))
    else:
        machine.store.discard(snapshot.owner)
        if snapshot.lease:
            end_watchdog(machine.root, snapshot.owner, snapshot.lease)
    return {
        "owner": snapshot.owner,
        "restored": restored,
        "sock_flow_entries": int(table) if table is not None and table_done else None,
        "gone": gone,
        "failed": failed,
    }


def show(machine: Machine, paths: Sequence[str]) -> dict[str, Any]:
    seen = machine.visit({None, *paths})
    for path in paths:
        if path not in seen and not is_pattern(path):
            raise SteerError(f"there is no namespace {path}", CANNOT)
    found = (pair for ns in seen.values() for name in ns.devices() for pair in ns.queues(name))
    table = machine.sock_flow_entries()
    release = machine.release()
    warnings = [table_fault_words(release)] if has_table_fault(release) else []
    return {
        "boot_id": machine.boot_id,
        "cpus": machine.cpus._asdict(),
        "sock_flow_entries": None if table is None else int(table),
        "queues": [values_of(entry) for entry, _ in found],
        "uppers": [
            {"namespace": ns.path, "device": name, "receives_on": below}
            for ns in seen.values()
            for name in ns.devices()
            for below in (ns.receivers(name),)
            if below != [name]
        ],
        "warnings": warnings,
        "snapshots": [describe(machine, owner) for owner in machine.store.owners()],
    }


def describe(machine: Machine, owner: str) -> dict[str, Any]:
    try:
        snapshot = machine.store.load(owner)
    except SteerError as error:
        return {"owner": owner, "error": str(error)}
    if snapshot is None:
        return {"owner": owner, "error": "of an earlier boot, worthless: restore removes it"}
    lease = snapshot.lease
    return {
        "owner": owner,
        "since": snapshot.since,
        "pid": snapshot.pid,
        "lease_seconds": lease and lease.seconds,
        "lease_seconds_left": lease and max(0.0, round(lease.expires - boot_time(), 1)),
        "watchdog": lease.pid if lease and lease.watched() else None,
        "entries": len(snapshot.entries),
        "holds_sock_flow_entries": snapshot.sock_flow_entries is not None,
    }


# --- the command line ---


class Signals:
    """Remembers a signal until the agent asks, where nothing is half done."""

    ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.caught: list[int] = []
        for number in self.ALL:
            signal.signal(number, lambda number, _: self.caught.append(number))

    def check(self) -> None:
        for number in self.caught:
            raise SteerError(f"interrupted by {signal.Signals(number).name}", 128 + number)

    def wait(self, seconds: float) -> None:
        """Sleep, but not through a signal."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self.ALL)
        got = signal.sigtimedwait(self.ALL, seconds)
        if got:
            self.caught.append(got.si_signo)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.ALL)

    def ignore(self) -> None:
        """From here on the exit status says what was done: an ending Python resets handlers."""
        for number in self.ALL:
            signal.signal(number, signal.SIG_IGN)


def read_plan(argument: str | None, owner: str | None) -> Plan | None:
    """The plan of --plan, else of stdin; None where there is no text."""
    try:
        if argument is None:
            piped = sys.stdin is not None and not sys.stdin.isatty()
            words = sys.stdin.buffer.read().decode() if piped else ""
        else:
            from_file = argument.startswith("@")
            words = Path(argument[1:]).read_text(encoding="utf-8") if from_file else argument
        document = json.loads(words) if words.strip() else None
    except OSError as error:
        raise SteerError(f"plan: {error.filename}: {error.strerror}", BAD_PLAN) from None
    except ValueError as error:
        raise SteerError(f"plan: it is not JSON in UTF-8: {error}", BAD_PLAN) from None
    if owner and isinstance(document, dict) and document.setdefault("owner", owner) != owner:
        raise SteerError(f"plan: owner is {document['owner']!r}, not {owner!r}", BAD_PLAN)
    return None if document is None else parse_plan(document)


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="steer", description=(__doc__ or "").split("\n")[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", type=Path, default=Path("/"), help="a tree to work on, not /")
    planned = argparse.ArgumentParser(add_help=False, parents=[common])
    planned.add_argument("--owner", help="who steers; by default the plan's owner")
    planned.add_argument("--plan", metavar="JSON|@FILE", help="the plan, instead of stdin")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verb = verbs.add_parser("show", parents=[common], help="print the steering that stands")
    verb.add_argument("--namespace", action="append", default=[], metavar="PATH|PATTERN")
    verbs.add_parser("apply", parents=[planned], help="bring the machine to the plan")
    verb = verbs.add_parser("verify", parents=[planned], help="compare; write no steering")
    verb.add_argument("--saved", action="store_true", help="use the plan that was applied last")
    verb.add_argument("--renew", action="store_true", help="where all is well, renew the lease")
    verb = verbs.add_parser("watch", parents=[common], help="see to the lease; restore at the end")
    verb.add_argument("--owner", required=True)
    verb = verbs.add_parser("restore", parents=[common], help="go back to the snapshot")
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--owner")
    which.add_argument("--all", action="store_true", help="every owner of this machine")
    return parser.parse_args(words)


def dispatch(options: argparse.Namespace, machine: Machine) -> tuple[dict[str, Any], list[str]]:
    """What a verb says, and what of it is wrong, in words."""
    if options.verb == "show":
        return show(machine, options.namespace), []
    if options.verb == "restore":
        done = restore_all(machine) if options.all else restore(machine, options.owner)
        return done, done["failed"]
    if options.verb == "apply":
        plan = read_plan(options.plan, options.owner)
        if plan is None:
            raise SteerError("plan: there is none: give it on stdin or with --plan", BAD_PLAN)
        return apply(machine, plan), []
    plan = None if options.saved else read_plan(options.plan, options.owner)
    owner = plan.owner if plan else options.owner
    if owner is None:
        raise SteerError("verify: there is neither a plan nor --owner: give one", BAD_PLAN)
    done = verify(machine, owner, plan, options.renew)
    return done, [item["message"] for item in done["drift"]]


def main(words: Sequence[str] | None = None) -> int:
    options = parse_arguments(words)
    status = 0
    wrong: list[str] = []
    signals = Signals()
    try:
        if options.verb == "watch":
            said = stand_watch(options.root, options.owner, signals)
            wrong = said["failed"]
        else:
            with Machine(options.root, signals.check) as machine:
                said, wrong = dispatch(options, machine)
        sys.stdout.write(json.dumps(said, indent=1) + "\n")
        status = FAILED if wrong else 0
    except SteerError as error:
        status, wrong = error.status, [str(error)]
        leave_refusal(status)
    except OSError as error:
        status, wrong = FAILED, [f"{error.filename or options.verb}: {error.strerror}"]
    signals.ignore()
    if wrong:
        sys.stderr.write(f"steer: {'; '.join(wrong)}\n")
    notify(f"{options.verb}: {'; '.join(wrong) or 'done'}")
    return status


def leave_refusal(status: int) -> None:
    """Tell whoever started a stack's engine why it failed: an engine passes on text alone."""
    path = os.environ.get("STEERLAB_REFUSALS")
    if path and status in (BAD_PLAN, CANNOT):
        with suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{status}\n")


def notify(words: str) -> None:
    """Tell systemd, where it runs this, what its status of the unit is to show; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    message = "STATUS=" + shortened(" ".join(words.split()), 2000)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(message.encode(errors="replace"), address.replace("@", "\0", 1))


if __name__ == "__main__":
    sys.exit(main())
