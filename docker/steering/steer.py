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
import hashlib
import json
import os
import re
import resource
import shlex
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

if TYPE_CHECKING:  # Python 3.8 reads such types only where it need not evaluate them
    Check = Callable[[Any], bool]
    Key = tuple[str, int, str, int]
    Change = tuple["Setting", str, str]  # found, wanted

T = TypeVar("T")

ROLES = ("nic", "overlay", "veth", "pod")
WORDS = ("none", "all", "first", "middle", "last")
OVERLAYS = "vxlan.calico flannel.1 cilium_vxlan geneve_sys_* genev_sys_* antrea-* vxlan* geneve*"
# What stands on another device and passes its packets through RPS once more, unpacked.
DECIDE_AGAIN = ("vxlan", "geneve", "wireguard", "macsec")
RTF_UP, RTF_REJECT = 0x1, 0x200  # linux/route.h
IFF_UP = 0x1  # linux/if.h
VETHS = "cali* veth* lxc* azv* eni*"
MASK = r"[0-9a-fA-F]+(,[0-9a-fA-F]{1,8})*"
MAX_FLOWS = 2**30  # rps_flow_cnt: one more is ENOMEM
MAX_SOCK_FLOWS = 2**29  # rps_sock_flow_entries: one more is EINVAL
MAX_RULES = 10_000
MAX_CPUS = 2**13  # the largest NR_CPUS that Linux can be built with
# Of a JSON text: thousands of queues, and less than 200 MB when it is read.
MAX_TEXT, MAX_VALUES, MAX_LEVELS = 2**24, 500_000, 100
LIMITS = {",[{": MAX_VALUES}
# Of a snapshot: it holds the plan, and of each value several masks. What is larger is not applied.
MAX_SAVED = 2**25
SAVED_LIMITS = {",": 2**21, "[{": 2**18, '"': 2**21}
# Bytes an entry: struct rps_dev_flow (8 before Linux 6.18), and a u32. Memory of vmalloc, which no
# control group's limit holds.
ENTRY_BYTES = {"rps_flow_cnt": 12, "rps_sock_flow_entries": 4}
# CPUs of isolated partitions: unlike isolcpus the kernel leaves these in a mask.
CPUSETS = ("fs/cgroup/cpuset.cpus.isolated", "fs/cgroup/unified/cpuset.cpus.isolated")
MEMORY_SHARE = 10  # the flow tables of a plan may take one part in so many of the free memory
KNOBS = ("rps_cpus", "rps_flow_cnt")  # of a receive queue
TABLE = "rps_sock_flow_entries"  # of the machine
RUN = "run/steerlab"
SNAPSHOT_VERSION = 2
NAMED = ("/run/netns", "/run/docker/netns")  # where network namespaces have names
LONGEST_FILE = 1 << 26
LOCK_PATIENCE = 60.0
LAST_TRIES = 5
POD = "pod:"  # instead of a path: the network namespace of the pod with this uid
POD_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"
WATCH_NAP = 5.0
SEARCH_SECONDS = 20.0  # for what users of the machine keep in user namespaces of their own
WATCHDOG_NAP = 60.0  # at most: sleep() stops while the machine is suspended, a lease does not
FAILED, BAD_PLAN, CANNOT = 1, 2, 3
BACK = ("restore", "watch")  # verbs whose warnings are for whoever reads no JSON


class SteerError(Exception):
    """What ends a verb, with the exit status; says what was wrong, where, and what to do."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Unsteerable(SteerError):
    """A namespace in which a plan failed; everything is as it was before."""

    def __init__(self, error: OSError | SteerError, namespace: str | None) -> None:
        super().__init__(explain(error), getattr(error, "status", FAILED))
        self.namespace = namespace


class Gone(SteerError):
    """A file or its device disappeared."""


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
    cpus: list[int] = []
    for part in [] if text.strip() in ("", "(null)") else text.strip().split(",", MAX_CPUS):
        span = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        low, high = (
            (int(n) for n in (span.group(1), span.group(2) or span.group(1))) if span else (1, 0)
        )
        if not low <= high < MAX_CPUS:
            raise ValueError(f"{shortened(repr(part))} is no CPU or range of CPUs")
        if len(cpus) > MAX_CPUS:
            raise ValueError("it has more CPUs than any machine")
        cpus.extend(range(low, high + 1))
    return cpus


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
            path = root / "sys" / file
            try:
                return parse_cpu_list(read_text(path)) if exists(path) else []
            except ValueError as error:
                raise SteerError(f"{path}: {error}", CANNOT) from None

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


def comes_from(name: str, written: str, got: str, unusable: int) -> bool:
    """Whether `got` may be what is left of `written`, also where the kernel did not round it."""
    return got == written or agrees(name, written, got, unusable)


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


def is_like(path: str, pattern: str) -> bool:
    """Whether a pattern of paths means a path: part by part, so that * stands for no /."""
    names, parts = path.strip("/").split("/"), pattern.strip("/").split("/")
    return len(names) == len(parts) and all(
        fnmatch.fnmatchcase(name, part) if is_pattern(part) else name == part
        for name, part in zip(names, parts)  # noqa: B905
    )


def is_pattern(path: str | None) -> bool:
    return path is not None and any(sign in path for sign in "*?[")


def default_route_device(routes: str) -> str | None:
    """The device of the default route of least metric in the text of /proc/net/route.

    A route that rejects has none. The lower half of a default route in two halves counts where no
    whole one exists: a VPN adds such halves to one that it keeps.
    """
    # a device's name may hold whatever Python takes for white space or the end of a line
    row = (
        r"^([^ \t\n]+)[ \t]+00000000[ \t]+[^ \t\n]+[ \t]+([0-9A-Fa-f]{1,8})[ \t]+"
        r"(?:[^ \t\n]+[ \t]+){2}([0-9]{1,10})[ \t]+(0{8}|0{6}80|80{7})[ \t]"
    )
    defaults = [
        (int(mask, 16) != 0, int(metric), device)
        for device, flags, metric, mask in re.findall(row, routes, re.M | re.A)
        if int(flags, 16) & (RTF_UP | RTF_REJECT) == RTF_UP
    ]
    return min(defaults)[2] if defaults else None


# --- files: the kernel's and the agent's own ---

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH)
DENIED = (errno.EACCES, errno.EPERM)


def explain(error: BaseException) -> str:
    """An error in words that name its file."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + (error.strerror or repr(error))
    return str(error) if isinstance(error, SteerError) else repr(error)


@contextmanager
def opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        yield file
    finally:
        with suppress(OSError):  # the kernel frees a descriptor even where close fails
            os.close(file)


def read_to_end(file: int, longest: int = LONGEST_FILE) -> bytes:
    """All of a file: one read may return only a part of it."""
    parts: list[bytes] = []
    while sum(map(len, parts)) <= longest:
        part = os.read(file, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def read_text(path: Path | str) -> str:
    """The text of a file. Names of devices, processes and cgroups can be any bytes."""
    with opened(path, os.O_RDONLY | os.O_NONBLOCK) as file:
        return read_to_end(file).decode("utf-8", "surrogateescape")


def listing(path: Path | str) -> list[str]:
    """The names in a folder; none where it does not exist."""
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise


def exists(path: Path | str) -> bool:
    """Unlike `Path.exists` never false because of another error."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in ABSENT:
            return False
        raise
    return True


def read_json(
    text: str, longest: int = MAX_TEXT, limits: Mapping[str, int] = MappingProxyType(LIMITS)
) -> Any:
    """The value of a JSON text; ValueError for any other, and for one too large to work on."""
    counts = ((sum(map(text.count, signs)), most) for signs, most in limits.items())
    if len(text) > longest or any(count > most for count, most in counts):
        raise ValueError("it is too long")
    try:
        value = json.loads(text, parse_constant=refuse_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_LEVELS):
        lists = [item for item in level if isinstance(item, list)]
        lists += [list(item.values()) for item in level if isinstance(item, dict)]
        level = list(chain.from_iterable(lists))
    if level:
        raise ValueError("it is nested too deeply")
    return value


def refuse_number(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")


# --- the snapshot: what stood before, and what was asked for last ---


class Queue(NamedTuple):
    """One receive queue and what it holds.

    sysfs uses no inode number twice, and a queue keeps its own when its device is renamed or moved
    to another namespace. It is 0 where files only imitate a machine: there the namespace's cookie
    and the device's ifindex tell one queue from another.
    """

    namespace: str | None
    cookie: str
    device: str
    ifindex: int
    queue: str
    inode: int
    rps_cpus: str
    rps_flow_cnt: str

    @property
    def keys(self) -> list[Key]:
        """By either of them a snapshot may know this queue."""
        return [("", 0, "", self.inode)] * bool(self.inode) + [
            (self.cookie, self.ifindex, self.queue, 0)
        ]

    @property
    def place(self) -> tuple[str | None, str, str]:
        return self.namespace, self.device, self.queue

    def __str__(self) -> str:
        return f"{self.device} {self.queue} in {self.namespace or 'the own namespace'}"


class Entry(NamedTuple):
    """One value that an owner steers: where it is, what it held before, what the owner wrote."""

    namespace: str | None
    cookie: str
    device: str
    ifindex: int
    queue: str
    inode: int
    knob: str
    before: str
    # what this owner may have written, durable before the write; None: by an agent that kept none
    written: list[str] | None
    overwritten: list[str]  # what others had written meanwhile, before the owner applied again
    reason: str | None  # why a restore has left it

    @classmethod
    def of(cls, queue: Queue, knob: str, before: str) -> Entry:
        return cls(*queue[:6], knob, before, [], [], None)

    @classmethod
    def of_table(cls, before: str) -> Entry:
        return cls(None, "", "", 0, "", 0, TABLE, before, [], [], None)

    @property
    def key(self) -> Key:
        if self.inode:
            return "", 0, "", self.inode
        return self.cookie, self.ifindex, self.queue, 0

    @property
    def value_key(self) -> tuple[Key, str]:
        return self.key, self.knob

    @property
    def place(self) -> tuple[str | None, str, str]:
        return self.namespace, self.device, self.queue

    @property
    def where(self) -> str:
        if self.knob == TABLE:
            return "this machine"
        return f"{self.device} {self.queue} in {self.namespace or 'the own namespace'}"

    def __str__(self) -> str:
        return f"{self.knob} of {self.where}"

    def at(self, queue: Queue) -> Entry:
        """The same value, under the names that its queue has now."""
        return Entry(*queue[:6], *self[6:])

    def writing(self, *values: str) -> Entry:
        """With values that may be written from now on."""
        if self.written is None:
            return self
        new = [value for value in dict.fromkeys(values) if value not in self.written]
        return self._replace(written=self.written + new)

    def explains(self, found: str, unusable: int) -> bool:
        """Whether `found` is what was there before, or comes from this owner."""
        if self.written is None:
            return True
        values = (self.before, *self.written)
        return any(comes_from(self.knob, value, found, unusable) for value in values)


class Lease(NamedTuple):
    """Until when, on CLOCK_BOOTTIME, the steering may stand, and the process that sees to it."""

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

    @property
    def table(self) -> Entry | None:
        """The machine's flow table, where this owner holds it."""
        return next((entry for entry in self.entries if entry.knob == TABLE), None)

    def to_text(self) -> str:
        """JSON with a line of its own for each entry."""
        document = {**self._asdict(), "version": SNAPSHOT_VERSION}
        del document["old"]
        document["entries"] = [entry._asdict() for entry in self.entries]
        document["lease"] = self.lease and self.lease._asdict()
        write = partial(json.dumps, ensure_ascii=False)
        entries = ",\n".join(map(write, document["entries"]))
        head = {"checksum": checksum(document), **document, "entries": None}
        lines = [f"{write(k)}: {write(v)}" for k, v in head.items() if k != "entries"]
        return "{{\n{},\n{}: [\n{}\n]\n}}\n".format(",\n".join(lines), '"entries"', entries)

    @classmethod
    def from_text(cls, written: str) -> Snapshot:
        """The inverse; an error for anything that no agent wrote whole."""
        document = read_json(written, MAX_SAVED, SAVED_LIMITS)
        if "checksum" in document and document.pop("checksum") != checksum(document):
            raise ValueError("its checksum is that of another text")
        version = document.pop("version", 1)
        if version not in (1, SNAPSHOT_VERSION):
            raise ValueError(f"its version is {version}")
        old = version == 1
        rows = document.pop("entries")
        entries = _entries_of_version_1(document, rows) if old else [Entry(**r) for r in rows]
        lease = document.pop("lease")
        snapshot = cls(**document, lease=lease and Lease(**lease), entries=entries, old=old)
        check_row(snapshot, SNAPSHOT_CHECKS)
        if snapshot.lease:
            check_row(snapshot.lease, LEASE_CHECKS)
        for entry in entries:
            check_row(entry, ENTRY_CHECKS)
            if {entry.knob == TABLE, not entry.device, not entry.queue} == {True, False}:
                raise ValueError(f"it has {shortened(str(entry))}")
            for value in (entry.before, *(entry.written or ()), *entry.overwritten):
                if not VALUE_CHECKS[entry.knob](value):
                    raise ValueError(f"a value of it is {shortened(repr(value))}")
        return snapshot


def checksum(document: Mapping[str, Any]) -> str:
    """Of what a document means, whatever its order and white space."""
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
ENTRY_CHECKS: dict[str, Check] = {
    "namespace": is_place,
    "device": lambda v: v == "" or is_name(v),
    "queue": like(r"(rx-[0-9]{1,10})?"),
    "ifindex": whole(0, 2**31),
    "inode": whole(0, 2**64),
    "knob": lambda v: v in (*KNOBS, TABLE),
    "written": lambda v: v is None or isinstance(v, list),
    "overwritten": lambda v: isinstance(v, list),
    "reason": lambda v: v is None or isinstance(v, str),
}
VALUE_CHECKS: dict[str, Check] = {
    "rps_cpus": lambda v: like(MASK)(v) and len(v) <= MAX_CPUS,
    "rps_flow_cnt": lambda v: like("[0-9]{1,10}")(v) and int(v) <= MAX_FLOWS,
    TABLE: lambda v: like("[0-9]{1,10}")(v) and int(v) <= 2 * MAX_SOCK_FLOWS,
}


def check_row(row: Any, checks: Mapping[str, Check]) -> None:
    for name, value in row._asdict().items():
        if not checks.get(name, lambda v: isinstance(v, str))(value):
            raise TypeError(f"its {name} is {shortened(repr(value))}")


def _entries_of_version_1(document: dict[str, Any], rows: list[dict[str, Any]]) -> list[Entry]:
    """One row for both values of a queue, and the flow table beside them."""
    entries = []
    for row in rows:
        queue = Queue(**{**row, "inode": 0})
        for knob in KNOBS:
            entry = Entry.of(queue, knob, getattr(queue, knob))
            entries.append(entry._replace(written=None))
    table = document.pop("sock_flow_entries")
    if table is not None:
        entries.append(Entry.of_table(table)._replace(written=None))
    return entries


class Damaged(SteerError):
    """A snapshot whose text is not one."""


UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def as_bytes(words: str) -> bytes:
    """UTF-8; bytes of a name that are none are escaped, as JSON does it."""
    return words.encode("utf-8", "backslashreplace")


class Store:
    """The snapshot files of this boot, each whole or not there, under one lock."""

    SUFFIX = ".snapshot"
    TRACE = ".watchdog"
    DRAFT = ".temporary"

    def __init__(self, directory: Path, boot_id: str) -> None:
        self.directory = directory
        self.boot_id = boot_id

    def path(self, owner: str, suffix: str = SUFFIX) -> Path:
        return self.directory / (quote(owner, safe="", errors="surrogateescape") + suffix)

    def owners(self, suffix: str = SUFFIX) -> list[str]:
        self.secure()
        names = [name for name in listing(self.directory) if name.endswith(suffix)]
        return sorted(unquote(name[: -len(suffix)], errors="surrogateescape") for name in names)

    def secure(self, create: bool = False) -> None:
        """Only root may write here: root would write into the kernel whatever stands in a snapshot.

        The mode is repaired where the folder is the agent's own; anything else is refused.
        """
        if create:
            with suppress(FileExistsError):
                os.makedirs(self.directory, 0o700)
        try:
            status = os.lstat(self.directory)
        except FileNotFoundError:
            return
        wrong = None
        if not stat.S_ISDIR(status.st_mode):
            wrong = "is not a folder" if not stat.S_ISLNK(status.st_mode) else "is a symbolic link"
        elif status.st_uid != os.geteuid():
            wrong = f"belongs to user {status.st_uid}, not to {os.geteuid()}"
        if wrong:
            words = f"{self.directory} {wrong}: nothing there can be trusted, so remove it"
            raise SteerError(words, CANNOT)
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.chmod(self.directory, 0o700)

    def read(self, path: Path) -> bytes | None:
        """A file of the agent's own; None where there is none."""
        self.secure()
        try:
            with opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as file:
                status = os.fstat(file)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    return read_to_end(file, MAX_SAVED)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno != errno.ELOOP:
                raise
        raise Damaged(f"{path} is not a file of this agent: look at it, then move it away")

    def load(self, owner: str) -> Snapshot | None:
        """An owner's snapshot; None where there is none, or one of an earlier boot: worthless."""
        path = self.path(owner)
        raw = self.read(path)
        if raw is None:
            return None
        try:
            snapshot = Snapshot.from_text(raw.decode())
            if snapshot.owner != owner:
                raise ValueError(f"its owner is {snapshot.owner}")
        except UNREADABLE as error:
            raise Damaged(
                f"snapshot {path} is damaged ({error!r}) and stays as it is: "
                "put the values that it names back by hand, then move it away"
            ) from None
        return snapshot if snapshot.boot_id == self.boot_id else None

    def others(self, owner: str) -> tuple[list[Snapshot], list[str]]:
        """The other owners' snapshots, and what is to be said of those that are damaged."""
        snapshots, damaged = [], []
        for other in self.owners():
            try:
                snapshot = None if other == owner else self.load(other)
            except Damaged as error:
                damaged.append(f"{error}; what that owner steers may be steered by two now")
            else:
                snapshots += [snapshot] if snapshot else []
        return snapshots, damaged

    def save(self, snapshot: Snapshot) -> None:
        """Replace the owner's file: after a power cut the old one stands or the new one does."""
        path = self.path(snapshot.owner)
        text = snapshot.to_text()
        try:
            if len(as_bytes(text)) > MAX_SAVED:
                raise ValueError("it is too long")
            saved = Snapshot.from_text(as_bytes(text).decode())
        except UNREADABLE as error:
            words = f"snapshot {path}: it could not be read again ({error!r})"
            raise SteerError(f"{words}: let the plan mean fewer queues", CANNOT) from None
        if saved != snapshot._replace(old=False):
            raise SteerError(f"snapshot {path}: it would be read otherwise than it is", CANNOT)
        try:
            self.write(path, text)
        except OSError as error:
            raise SteerError(f"snapshot {path}: {error.strerror}: make room for it") from None

    def write(self, path: Path, words: str) -> None:
        """Replace a file; its draft is locked until then, and nobody else's."""
        draft = self.directory / f"{os.getpid()}-{os.urandom(8).hex()}{self.DRAFT}"
        try:
            with opened(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                rest = as_bytes(words)
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
                os.rename(draft, path)
            self._sync()
        except OSError:
            with suppress(OSError):
                os.unlink(draft)
            raise

    def tidy(self) -> None:
        """Remove the drafts of agents that were killed, which hold no lock on them."""
        with suppress(OSError):
            for name in listing(self.directory):
                if name.endswith(self.DRAFT):
                    with (
                        suppress(OSError),
                        opened(
                            self.directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                        ) as file,
                    ):
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(self.directory / name)

    def discard(self, owner: str) -> None:
        """Remove an owner's snapshot, and what its watchdog had to tell."""
        for suffix in (self.SUFFIX, self.TRACE):
            with suppress(FileNotFoundError):
                os.unlink(self.path(owner, suffix))
                self._sync()

    def trace(self, owner: str, words: str) -> None:
        """Leave a word for `show` and `verify`, which nobody else would hear; never fails."""
        with suppress(Exception):
            self.secure(create=True)
            self.write(self.path(owner, self.TRACE), f"{utc()}: {words}\n")

    def forget_trace(self, owner: str) -> None:
        with suppress(OSError):
            os.unlink(self.path(owner, self.TRACE))

    def traced(self, owner: str) -> str | None:
        try:
            raw = self.read(self.path(owner, self.TRACE))
        except (OSError, SteerError) as error:
            return explain(error)
        return None if raw is None else shortened(raw.decode("utf-8", "replace").strip(), 2000)

    def _sync(self) -> None:
        """What was renamed or removed counts for this boot, whatever this says of the next one."""
        with suppress(OSError), opened(self.directory, os.O_RDONLY | os.O_DIRECTORY) as folder:
            os.fsync(folder)

    @contextmanager
    def locked(self, check: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep every other agent out while the block runs.

        With a `check`, which ends the wait by raising, it waits for the lock only so long.
        """
        self.secure(create=True)
        path = self.directory / "lock"
        mode = fcntl.LOCK_EX | (fcntl.LOCK_NB if check else 0)
        deadline = time.monotonic() + LOCK_PATIENCE
        with opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW) as lock:
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
            self.tidy()
            yield


def utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- the machine: files of the kernel, network namespaces, processes ---


class Setting(NamedTuple):
    """One value of the kernel's steering: a file, and its device in words."""

    path: Path
    where: str
    # Of the queue's folder, and of its device where files only imitate a machine: they tell it from
    # one that has taken its place. The machine's own table has neither.
    inode: int = 0
    ifindex: int = 0

    def __str__(self) -> str:
        return f"{self.path.name} of {self.where}"

    def read(self) -> str:
        """The kernel's text, known to be a mask or a count."""
        raw: bytes = self._open(
            os.O_RDONLY | os.O_NONBLOCK, lambda file: read_to_end(file, 1 << 16)
        )
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

    def _open(self, flags: int, work: Callable[[int], Any]) -> Any:
        """Through the folder that was held against the queue: a later one is never reached."""
        try:
            with opened(self.path.parent, os.O_PATH | os.O_DIRECTORY) as folder:
                self._identify(folder)
                with opened(self.path.name, flags, folder) as file:
                    return work(file)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                raise Gone(f"{self}: {error.strerror}") from None
            raise SteerError(f"{self}: {error.strerror}") from None

    def _identify(self, folder: int) -> None:
        if self.inode:
            same = os.fstat(folder).st_ino == self.inode
        elif self.ifindex:
            with opened("../../ifindex", os.O_RDONLY, folder) as file:
                same = read_to_end(file).strip() == b"%d" % self.ifindex
        else:
            return
        if not same:
            raise Gone(f"{self}: another device has taken its name")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Let a file of a sysfs be written that a container runtime has made read-only.

    That was for a pod's own view of it, and its mount stays so; all mounts share the file system.
    """
    through = re.match("/proc/self/fd/([0-9]+)/", str(path))
    mount = int(through.group(1)) if through else None
    try:
        locked = mount is not None and os.fstatvfs(mount).f_flag & os.ST_RDONLY
        if mount is None or not locked:
            yield
            return
        kernel = Kernel()
        kernel.reconfigure(mount, b"rw")
    except OSError as error:
        raise SteerError(f"{path.name}: its read-only sysfs: {explain(error)}") from None
    try:
        yield
    finally:
        for _ in range(3):
            with suppress(OSError):  # busy: whoever else writes there does this at its end
                kernel.reconfigure(mount, b"ro")
                break


def settings(directory: Path, queue: Queue) -> tuple[Setting, Setting]:
    mask, flows = (
        Setting(directory / knob, str(queue), queue.inode, queue.ifindex) for knob in KNOBS
    )
    return mask, flows


class Namespace(NamedTuple):
    """A network namespace, seen through a sysfs that was mounted in it."""

    path: str | None
    cookie: str
    net: Path
    routes: str
    numbered: bool  # by inodes that are not used twice
    foreign: bool = False  # of a user namespace that is not the agent's

    def devices(self) -> list[str]:
        """All but lo; /sys/class/net also holds files that are none, such as bonding_masters.

        What cannot be looked at is a device: it must not disappear from a listing.
        """
        return [name for name in listing(self.net) if name != "lo" and self._is_device(name)]

    def _is_device(self, name: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(self.net / name).st_mode)
        except OSError as error:
            return error.errno not in ABSENT

    def number(self, device: str, name: str = "ifindex") -> int:
        """An attribute of a device; 0 where the device is gone."""
        try:
            return int(read_text(self.net / device / name))
        except (OSError, ValueError):
            return 0

    def receivers(self, device: str) -> list[str]:
        """The devices that receive the packets of a device first: itself, or some below it.

        A bond's slave, a VLAN's parent or a virtual function below Azure's synthetic device hands
        a packet on within its own receive function, after the only decision of RPS. Of a bridge
        these are its hardware ports, where it has some.
        """
        links = (name for name in listing(self.net / device) if name.startswith("lower_"))
        below = [name[len("lower_") :] for name in links]
        if not below or self._kind(device) in DECIDE_AGAIN:
            return [device]
        if self._kind(device) == "bridge":
            below = [port for port in below if self._on_hardware(port)] or below
        lowest = [name for port in below for name in self.receivers(port)]
        # also hardware itself: it receives what its virtual function does not
        own = [device] if exists(self.net / device / "device") else []
        return list(dict.fromkeys(own + lowest))

    def receiving(self, devices: Iterable[str]) -> Iterator[tuple[str, Queue, Path]]:
        """The queues that receive the packets of devices, each with the device it is for."""
        for named in devices:
            for device in self.receivers(named):
                for queue, directory in self.queues(device):
                    yield named, queue, directory

    def _on_hardware(self, device: str) -> bool:
        return any(exists(self.net / name / "device") for name in self.receivers(device))

    def _kind(self, device: str) -> str:
        """DEVTYPE, such as bond, vlan, bridge; many kinds have none."""
        uevent = self.net / device / "uevent"
        text = read_text(uevent) if exists(uevent) else ""
        found = re.search(r"^DEVTYPE=(.*)$", text, re.MULTILINE)
        return found.group(1) if found else ""

    def queues(self, device: str) -> Iterator[tuple[Queue, Path]]:
        """The receive queues of a device with what they hold now; nothing where it is gone."""
        folder = self.net / device / "queues"
        try:
            names = [name for name in listing(folder) if name.startswith("rx-")]
            index = read_text(self.net / device / "ifindex").strip()
        except OSError as error:
            if device not in self.devices():
                return
            raise SteerError(f"{device} in {self}: {error.strerror}") from None
        if not re.fullmatch("[0-9]{1,10}", index):
            raise SteerError(f"{device} in {self}: its ifindex is {shortened(repr(index))}")
        if not names:
            raise SteerError(f"{device}: it has no receive queues, so leave it out", CANNOT)
        for name in sorted(names, key=queue_number):
            with suppress(Gone):
                yield self._queue(device, int(index), name), folder / name

    def _queue(self, device: str, ifindex: int, name: str) -> Queue:
        """One receive queue; `Gone` where its folder has disappeared."""
        folder = self.net / device / "queues" / name
        where = Queue(self.path, self.cookie, device, ifindex, name, 0, "", "")
        try:
            queue = where._replace(inode=self.inode(folder))
            if "rps_cpus" not in listing(folder) and name in listing(folder.parent):
                raise SteerError(f"{where}: this kernel has no RPS (CONFIG_RPS)", CANNOT)
            mask, flows = (setting.read() for setting in settings(folder, queue))
        except (OSError, Gone) as error:
            if name not in listing(folder.parent):
                raise Gone(f"{where}: it is gone") from None
            raise SteerError(f"{where}: {explain(error)}") from None
        return queue._replace(rps_cpus=mask, rps_flow_cnt=flows)

    def inode(self, folder: Path) -> int:
        return os.stat(folder).st_ino if self.numbered else 0

    def find(self, entry: Entry) -> tuple[str, Path] | None:
        """The device and the folder of an entry's queue; None where it is not in this namespace."""
        folder = self.net / entry.device / "queues" / entry.queue
        with suppress(OSError, ValueError):  # most often it has kept its name
            if entry.inode:
                if os.stat(folder).st_ino == entry.inode:
                    return entry.device, folder
            elif int(read_text(self.net / entry.device / "ifindex")) == entry.ifindex:
                os.stat(folder)
                return entry.device, folder
        return self._search(entry)

    def _search(self, entry: Entry) -> tuple[str, Path] | None:
        for _ in range(5):
            names, unread = self.devices(), ""
            for device in names:
                try:
                    folder = self.net / device / "queues" / entry.queue
                    ifindex = 0 if entry.inode else int(read_text(folder.parents[1] / "ifindex"))
                    if entry.queue not in listing(folder.parent):
                        continue
                    if entry.inode in (0, os.stat(folder).st_ino) and (
                        entry.inode or ifindex == entry.ifindex
                    ):
                        return device, folder
                except (OSError, ValueError) as error:
                    unread = f"{device} in {self}: {explain(error)}"
            if self.devices() == names:  # none was renamed meanwhile
                if unread:
                    raise SteerError(unread)
                return None
        raise SteerError(f"the devices in {self} keep changing")

    def __str__(self) -> str:
        return self.path or "the own namespace"

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
        overlay = self.overlays(names)[:1]
        if role == "overlay":
            return overlay
        below = [lower for device in overlay for lower in self._below(device, names)][:1]
        if below and self.is_up(overlay[0]):
            return below
        return [name for name in names if name == default_route_device(self.routes)] or below

    def overlays(self, names: Sequence[str]) -> list[str]:
        """Devices of overlays, those that are up first: a CNI that was removed leaves its own."""
        return sorted(matching(OVERLAYS.split(), names), key=lambda name: not self.is_up(name))

    def is_up(self, device: str) -> bool:
        """Whether a device is up, or does not tell."""
        try:
            return bool(int(read_text(self.net / device / "flags"), 16) & IFF_UP)
        except (OSError, ValueError):
            return True

    def _below(self, device: str, names: Sequence[str]) -> list[str]:
        lower = self.number(device, "iflink")
        links = [name for name in listing(self.net / device) if name.startswith("lower_")]
        below = [name[len("lower_") :] for name in links]
        return below + [n for n in names if n != device and self.number(n, "ifindex") == lower]


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
            with suppress(OSError):
                os.close(context)

    def reconfigure(self, mount: int, flag: bytes) -> None:
        """Set a flag of a mounted file system, for all its mounts."""
        context = self._call(433, mount, b"", 9)  # fspick, FSPICK_CLOEXEC | FSPICK_EMPTY_PATH
        try:
            self._call(431, context, 0, flag, None, 0)  # fsconfig, FSCONFIG_SET_FLAG
            self._call(431, context, 7, None, None, 0)  # FSCONFIG_CMD_RECONFIGURE
        finally:
            with suppress(OSError):
                os.close(context)

    def cookie(self, namespace: int) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                raw = probe.getsockopt(socket.SOL_SOCKET, 71, 8)  # SO_NETNS_COOKIE, Linux 5.14
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
                return f"inode {os.fstat(namespace).st_ino}"
        return str(int.from_bytes(raw, sys.byteorder))

    def _call(self, number: int, *arguments: Any) -> int:
        words = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)]
        while True:
            with suppress(InterruptedError):  # what Python itself does for the calls that it has
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
        self._mounts: dict[Path, int] = {}
        self._nets: set[int] = set()  # the inodes of /proc/net/dev of the namespaces seen
        self.boot_id = read_text(root / "proc/sys/kernel/random/boot_id").strip()
        self.store = Store(root / RUN, self.boot_id)
        self.table = Setting(root / "proc/sys/net/core" / TABLE, "this machine")
        self.cpus = Cpus.of(root)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        for net in list(self._mounts):
            self._unmount(net)

    def forget(self, namespace: Namespace) -> None:
        self._unmount(namespace.net)

    def _unmount(self, net: Path) -> None:
        mount = self._mounts.pop(net, None)
        if mount is not None:
            with suppress(OSError):
                os.close(mount)

    def release(self) -> str:
        file = self.root / "proc/sys/kernel/osrelease"
        return read_text(file).strip() if exists(file) else ""

    def memory_available(self) -> int | None:
        """Bytes, of the whole machine; None where the kernel does not tell."""
        file = self.root / "proc/meminfo"
        found = (
            re.search(r"^MemAvailable:\s*([0-9]{1,15}) kB$", read_text(file), re.M)
            if exists(file)
            else None
        )
        return int(found.group(1)) * 1024 if found else None

    def sock_flow_entries(self) -> str | None:
        """The machine's flow table; None outside the first namespace, where it cannot be seen."""
        try:
            return self.table.read()
        except Gone:
            if exists(self.table.path):
                raise
            return None

    def visit(
        self, paths: Iterable[str | None]
    ) -> tuple[dict[str | None, Namespace], dict[str | None, str]]:
        """The namespaces by path, and why others could not be looked into.

        Enters each once; this process is back in its own when it returns.
        """
        unread: dict[str | None, str] = {}
        known: set[str | None] = set()
        pods: dict[str, str] = {}
        for path in paths:
            try:
                known.update(self._glob(path) if path else [None])
            except OSError as error:
                unread[path] = explain(error)
        ordered = sorted(known, key=lambda path: path or "")
        if any(path and path.startswith(POD) for path in ordered):
            pods = self._pods(unread, [path for path in ordered if path])
            ordered = [path for path in ordered if path not in unread]
        seen: dict[str | None, Namespace] = {}
        with self._inside() as enter:
            for path in ordered:
                try:
                    namespace = enter(path, pods.get(path or "", path))
                    if namespace:
                        seen[path] = namespace
                except OSError as error:
                    needs = "Linux 5.2 and CAP_SYS_ADMIN are needed"
                    unread[path] = f"{explain(error)}: {needs}" if self.real else explain(error)
        return seen, unread

    @contextmanager
    def _inside(self) -> Iterator[Callable[[str | None, str | None], Namespace | None]]:
        """How to look into a namespace: its path, and where that leads."""
        if not self.real:
            yield self._imitation
            return
        kernel = Kernel()
        with opened("/proc/thread-self/ns/net", os.O_RDONLY) as home:

            def enter(path: str | None, place: str | None) -> Namespace | None:
                return self._namespace(kernel, home, path, place)

            yield enter

    def _namespace(
        self, kernel: Kernel, home: int, path: str | None, place: str | None
    ) -> Namespace | None:
        """None where there is no network namespace at the path."""
        try:
            inside = open_namespace(place, home) if place else home
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise
        if inside is None:
            return None
        try:
            try:
                kernel.enter(inside)
                cookie = kernel.cookie(inside)
                mount = kernel.sysfs()
                net = Path(f"/proc/self/fd/{mount}/class/net")
                self._mounts[net] = mount
                routes = read_text("/proc/thread-self/net/route")
                self._nets.add(os.stat("/proc/thread-self/net/dev").st_ino)
            finally:
                go_home(kernel, home)
            foreign = is_foreign(inside)
            return Namespace(path, cookie, net, routes, numbered=True, foreign=foreign)
        finally:
            if inside != home:
                with suppress(OSError):
                    os.close(inside)

    def _imitation(self, path: str | None, place: str | None) -> Namespace | None:
        base = self.root / place.lstrip("/") if place else self.root
        has_cookie = exists(base / "cookie")
        if not has_cookie and path:
            return None
        cookie = read_text(base / "cookie").strip() if has_cookie else "own"
        routes = base / "proc/net/route"
        table = read_text(routes) if exists(routes) else ""
        foreign = exists(base / "foreign")
        net = base / "sys/class/net"
        return Namespace(path, cookie, net, table, numbered=False, foreign=foreign)

    def _pods(self, unread: dict[str | None, str], wanted: Collection[str]) -> dict[str, str]:
        """The network namespace of each wanted pod that has a process, whose cgroup names the pod.

        What is not certain is left out, with the reason in `unread`.
        """
        own = {self._identity(f"/proc/{process}/ns/net") for process in ("self", "1")}
        found: dict[str, dict[str, str]] = {}  # a path of each of its namespaces
        deeper: dict[str, dict[str, str]] = {}
        for pid in self._processes():
            try:
                words = read_text(self.root / f"proc/{pid}/cgroup")
            except OSError as error:
                if error.errno not in ABSENT:
                    unread[f"/proc/{pid}/cgroup"] = explain(error)
                continue
            for uid, deep in pods_of(words):
                pod, path = POD + uid, f"/proc/{pid}/ns/net"
                namespace = self._identity(path) if pod in wanted else None
                if namespace:
                    (deeper if deep else found).setdefault(pod, {})[namespace] = path
        places = {}
        for pod, paths in {**deeper, **found}.items():
            if len(paths) > 1:
                words = ", ".join(paths.values())
                unread[pod] = f"its processes have different network namespaces: {words}"
            elif own.intersection(paths):
                unread[pod] = "its network namespace is that of the node: steer the node itself"
            else:
                places[pod] = next(iter(paths.values()))
        return places

    def _identity(self, path: str) -> str | None:
        """What tells a network namespace from all others; None where it cannot be seen."""
        place = self.root / path[1:]
        try:
            if self.real:
                return str(os.stat(place).st_ino)
            return read_text(place / "cookie").strip()
        except OSError:
            return None

    def _processes(self) -> list[str]:
        return [name for name in listing(self.root / "proc") if name.isdigit()]

    def search(self, unread: dict[str | None, str]) -> Iterator[Namespace]:
        """Every network namespace that something keeps alive, each until the next one.

        `unread` gets what it could not look into, so that it may have missed one. A process that
        even root may not look into is none of these where its namespace is known from elsewhere.

        What a user keeps in a user namespace of his own comes last, for a limited time, and nothing
        that fails there counts: else any user could keep every restore from its end.
        """
        seen: set[int] = set()
        denied = {}
        for path, foreign in self._everywhere(unread):
            failed: dict[str | None, str] = {}
            try:
                inode = again(partial(os.stat, self.root / path[1:])).st_ino
                if inode not in seen:
                    seen.add(inode)
                    found, failed = self.visit([path])
                    yield from (ns._replace(foreign=foreign or ns.foreign) for ns in found.values())
            except OSError as error:
                if error.errno in DENIED:
                    denied.update({} if foreign else {path: explain(error)})
                elif error.errno not in ABSENT:
                    failed = {path: explain(error)}
            if not foreign:
                unread.update(failed)
        for path, why in denied.items():
            devices = self.root / path[1:].replace("/ns/net", "/net/dev")
            try:
                known = os.stat(devices).st_ino in self._nets
            except OSError as error:
                known = error.errno in ABSENT
            if not known:
                unread[path] = why

    def _everywhere(self, unread: dict[str | None, str]) -> Iterator[tuple[str, bool]]:
        """Paths of what keeps a namespace, and whether the keeper is of a foreign user namespace.

        Mounts and descriptors of processes that even root may not look into are left out.
        """
        tried = partial(self._tried, unread)
        for folder in NAMED:
            yield from ((f"{folder}/{name}", False) for name in tried(folder, listing))
        own: list[str] = []
        foreign: list[str] = []
        for pid in tried("/proc", lambda _: self._processes()):
            (foreign if self._is_foreign(pid) else own).append(f"/proc/{pid}")
        yield from ((path, False) for path in self._kept(own, tried))
        deadline = time.monotonic() + SEARCH_SECONDS
        for path in self._kept(foreign, partial(self._tried, {}), deadline):
            if time.monotonic() > deadline:
                return
            yield path, True

    def _tried(
        self, unread: dict[str | None, str], path: str, look: Callable[[Path], Iterable[str]]
    ) -> list[str]:
        try:
            return again(lambda: list(look(self.root / path[1:])))
        except OSError as error:
            hidden = DENIED if path.startswith("/proc/") else ()
            if error.errno not in (*ABSENT, *hidden):
                unread[path] = explain(error)
            return []

    def _is_foreign(self, pid: str) -> bool:
        """By its map of users, which unlike its namespaces everybody may read."""
        maps = [self.root / f"proc/{process}/uid_map" for process in ("self", pid)]
        try:
            own, other = (read_text(file).split() for file in maps)
        except OSError:
            return False
        return own != other

    def _kept(
        self,
        processes: Sequence[str],
        tried: Callable[[str, Callable[[Path], Iterable[str]]], list[str]],
        deadline: float = float("inf"),
    ) -> Iterator[str]:
        """By processes themselves, their mounts, threads and descriptors."""
        yield from (f"{process}/ns/net" for process in processes)
        if not self.real:
            return
        mounts: dict[str, str] = {}
        for process in processes:
            for inode in tried(f"{process}/ns/mnt", lambda path: [os.readlink(path)]):
                mounts.setdefault(inode, process)
        for process in mounts.values():

            def look(path: Path) -> list[str]:
                return namespace_mounts(lines_of(path, " - nsfs ", deadline))

            for path in tried(f"{process}/mountinfo", look):
                yield f"{process}/root{path}"
        for process in processes:
            yield from (f"{process}/task/{t}/ns/net" for t in tried(f"{process}/task", listing))
        for process in processes:
            for number in tried(f"{process}/fd", listing):
                path = f"{process}/fd/{number}"
                for target in tried(path, lambda path: [os.readlink(path)]):
                    # one that was opened by a name is shown as / once that is unmounted
                    if target.startswith("net:[") or target == "/":
                        yield path

    def _glob(self, path: str) -> list[str]:
        """The paths that a pattern means now; any other path as it is."""
        if not is_pattern(path):
            return [path]
        found = [""]
        for part in path.strip("/").split("/"):
            if is_pattern(part):
                names = {parent: listing(self.root / parent.lstrip("/")) for parent in found}
                found = [f"{p}/{n}" for p in found for n in fnmatch.filter(names[p], part)]
            else:
                found = [f"{parent}/{part}" for parent in found]
        return [one for one in found if exists(self.root / one.lstrip("/"))]


# Where a kubelet keeps its pods: at the root, in a cgroup of its own, or in a container of Docker's.
# Whoever may write elsewhere, such as a user below user.slice, could name any pod.
_KUBELET = (
    r"(?:system\.slice|kubelet(?:\.slice)?|k3s|docker|docker-[0-9a-f]{64}\.scope|[0-9a-f]{64})"
)
_CLASS = r"(?:(?:[a-z0-9_]+-)*(?:kubepods|burstable|besteffort|guaranteed)(?:\.slice)?)"
MAX_HIERARCHIES = 1000  # a line each; there are some dozen controllers, and names that root gave
_POD_CGROUP = re.compile(
    # a view from within a cgroup namespace begins with .. and can lack what both have above them
    rf"/(?:(?:\.\./)*(?:{_KUBELET}/)*(?:[a-z0-9_]+-)*kubepods(?:\.slice)?/|(?:\.\./)+)"
    rf"(?:{_CLASS}/)*(?:(?:[a-z0-9_]+-)*)pod({POD_UID})(?:\.slice)?(/.*)?"
)


def pods_of(words: str) -> Iterator[tuple[str, bool]]:
    """The pods of a process by /proc/PID/cgroup, and whether it is in a container of a container."""
    for line in words.split("\n", MAX_HIERARCHIES)[:MAX_HIERARCHIES]:
        found = _POD_CGROUP.fullmatch(line.split(":", 2)[-1])
        if found:
            yield found[1].replace("_", "-"), (found[2] or "").count("/") > 1


def again(work: Callable[[], T]) -> T:
    """Do it, and once more where it fails: a passing want of memory is no answer."""
    try:
        return work()
    except OSError:
        return work()


def open_namespace(path: str, home: int) -> int | None:
    """A namespace; None for any other file, which is not opened.

    Whoever can mount in a namespace of his own chooses what a path there leads to, and to open a
    device can be to act on it.
    """
    with opened(path, os.O_PATH) as found:
        if os.fstat(found).st_dev != os.fstat(home).st_dev:
            return None
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)


def go_home(kernel: Kernel, home: int) -> None:
    """Return to the agent's own network namespace; a passing want of memory must not strand it."""
    for _ in range(5):
        with suppress(OSError):
            kernel.enter(home)
            return
    kernel.enter(home)


def is_foreign(namespace: int) -> bool:
    """Whether a network namespace belongs to another user namespace than the agent's."""
    try:
        owner = fcntl.ioctl(namespace, 0xB701)  # NS_GET_USERNS
    except OSError:
        return False
    try:
        return os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino
    finally:
        with suppress(OSError):
            os.close(owner)


def lines_of(path: Path, word: str, deadline: float) -> Iterator[str]:
    """The lines of a file of any length that have a word in them."""
    rest, sign = b"", word.encode()
    with opened(path, os.O_RDONLY) as file:
        while time.monotonic() < deadline:
            part = os.read(file, 1 << 18)
            block, _, rest = (rest + part).rpartition(b"\n") if part else (rest, b"", b"")
            for line in block.split(b"\n") if sign in block else ():
                if sign in line:
                    yield line.decode("utf-8", "surrogateescape")
            if not part:
                return


def namespace_mounts(lines: Iterable[str]) -> list[str]:
    """Where network namespaces are mounted, of the lines of /proc/PID/mountinfo."""
    rows = [line.split(" ") for line in lines if " - nsfs " in line]
    octal = re.compile(r"\\([0-7]{3})")
    return [
        octal.sub(lambda match: chr(int(match.group(1), 8)), row[4])
        for row in rows
        if row[3].startswith("net:[")
    ]


class Found(NamedTuple):
    """Where the queue of a snapshot's entry is now."""

    directory: Path
    device: str
    namespace: Namespace


class Survey:
    """The namespaces of a plan and of a snapshot, and where the snapshot's values are now."""

    def __init__(
        self, machine: Machine, paths: Iterable[str | None], entries: Iterable[Entry] = ()
    ) -> None:
        self._machine = machine
        self._entries = [entry for entry in entries if entry.knob != TABLE]
        self._elsewhere: dict[Key, Found] | None = None
        self.by_path, self.unread = machine.visit({*paths, *(e.namespace for e in self._entries)})

    def unread_words(self, path: str | None) -> str | None:
        why = self.unread.get(path)
        return why and f"namespace {path or 'of the agent'} cannot be read: {why}"

    def all_unread(self) -> list[str]:
        return [self.unread_words(path) or "" for path in self.unread]

    def located(self, entry: Entry, work: Callable[[Setting], T]) -> T:
        """Work on the file of an entry; `Gone` where it is certain that it exists nowhere."""
        setting = self.setting(entry)
        try:
            return work(setting)
        except Gone as error:
            self._elsewhere = None
            self.setting(entry)
            raise SteerError(str(error)) from None

    def setting(self, entry: Entry) -> Setting:
        """The file of an entry; `Gone` where it is certain that it exists nowhere."""
        if entry.knob == TABLE:
            return self._machine.table
        found = self.find(entry)
        now = (found.namespace.path, found.device, entry.queue)
        where = entry.where
        if found.device != entry.device or found.namespace.cookie != entry.cookie:
            where += f" (now {now[1]} in {now[0] or 'the own namespace'})"
        return Setting(found.directory / entry.knob, where, entry.inode, entry.ifindex)

    def find(self, entry: Entry) -> Found:
        unclear = ""
        for namespace in self.by_path.values():
            if namespace.cookie == entry.cookie:
                try:
                    found = namespace.find(entry)
                except (OSError, SteerError) as error:
                    unclear = explain(error)
                else:
                    if found:
                        return Found(found[1], found[0], namespace)
        if self._elsewhere is None:
            self._elsewhere = self._search()
        if entry.key in self._elsewhere:
            return self._elsewhere[entry.key]
        unread = [f"{path or 'own namespace'}: {why}" for path, why in self.unread.items()]
        if unclear or unread:
            words = "; ".join(([unclear] if unclear else []) + unread[:3])
            raise SteerError(f"{entry.where}: not found, but not all could be read: {words}")
        raise Gone(f"{entry.where}: it is gone")

    def _search(self) -> dict[Key, Found]:
        """All entries that are in any other namespace than they were."""
        elsewhere: dict[Key, Found] = {}
        for namespace in self._machine.search(self.unread):
            keep = False
            for entry in self._entries:
                # without an inode only its own namespace can tell it from a stranger
                if entry.key in elsewhere or not (entry.inode or namespace.cookie == entry.cookie):
                    continue
                try:
                    found = namespace.find(entry)
                except (OSError, SteerError) as error:
                    if not namespace.foreign:
                        self.unread[namespace.path] = explain(error)
                    continue
                if found:
                    keep = True
                    elsewhere[entry.key] = Found(found[1], found[0], namespace)
            if not keep:
                self._machine.forget(namespace)
        return elsewhere


def start_time(pid: int) -> str | None:
    """Field 22 of proc_pid_stat(5), which tells a process from a later one of the same id."""
    try:
        state, *fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    except ValueError:  # no text at all
        return None
    return None if state in "ZX" else "".join(fields[18:19])


# --- targets: what a plan means on this machine ---


class Target(NamedTuple):
    """One queue: what it holds, and what it is to hold."""

    rule: Rule
    named: str  # the device that the rule means; the queue is its own, or of one below it
    entry: Queue
    directory: Path
    rps_cpus: str
    rps_flow_cnt: str

    def values(self) -> Iterator[tuple[Setting, str, str]]:
        """Each of its settings, found and wanted."""
        mask, flows = settings(self.directory, self.entry)
        yield mask, self.entry.rps_cpus, self.rps_cpus
        yield flows, self.entry.rps_flow_cnt, self.rps_flow_cnt

    def holding(self, stands: Mapping[Setting, str]) -> Target:
        """With what its settings hold after a commit."""
        mask, flows = (stands.get(setting, found) for setting, found, _ in self.values())
        return self._replace(entry=self.entry._replace(rps_cpus=mask, rps_flow_cnt=flows))


def meant(path: str | None, by_path: Mapping[str | None, Namespace]) -> list[Namespace]:
    """The namespaces of a rule's path or pattern."""
    if path is None or not is_pattern(path):
        return [by_path[path]] if path in by_path else []
    return [ns for known, ns in by_path.items() if known and is_like(known, path)]


def named_elsewhere(plan: Plan, rule: Rule) -> set[str]:
    rules = (r for r in plan.rules if r is not rule and r.namespace == rule.namespace)
    return {name for other in rules for name in other.devices}


def other_overlays(plan: Plan, by_path: Mapping[str | None, Namespace]) -> list[str]:
    """Of which overlays `auto` took one, and which it left out."""
    words = []
    for rule in plan.rules:
        if "auto" not in rule.devices or rule.role not in ("nic", "overlay"):
            continue
        named = {*rule.devices, *named_elsewhere(plan, rule)}
        for namespace in meant(rule.namespace, by_path):
            overlays = namespace.overlays(namespace.devices())
            others = [
                f"{name} ({'up' if namespace.is_up(name) else 'down'})"
                for name in overlays[1:]
                if name not in named
            ]
            if others:
                words.append(
                    f"the overlay of {namespace} is {overlays[0]} by auto, {', '.join(others)} left "
                    "out: name the device if another is meant"
                )
    return list(dict.fromkeys(words))


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
            named = named_elsewhere(plan, rule) if "auto" in rule.devices else ()
            devices = namespace.chosen(rule, named)
            if not devices and not rule.optional:
                where = namespace.path or "this namespace"
                what = f"rules[{index}]: no {rule.role} device of {where}"
                has = ", ".join(namespace.devices()) or "only lo"
                absent.append((rule, f"{what} matches {', '.join(rule.devices)}; it has {has}"))
            try:
                queues = list(namespace.receiving(devices))
            except (OSError, SteerError) as error:
                raise Unsteerable(error, namespace.path) from None
            for name, entry, directory in queues:
                wanted = format_mask(masks[index]), str(rule.flows)
                target = found.setdefault(
                    entry.keys[0], Target(rule, name, entry, directory, *wanted)
                )
                if (target.rps_cpus, target.rps_flow_cnt) != wanted:
                    twin = plan.rules.index(target.rule)
                    words = f"plan: rules[{twin}] and rules[{index}] want different values for"
                    raise SteerError(f"{words} {entry}: let only one of them match it", BAD_PLAN)
    return sorted(found.values(), key=_in_order), absent


def _in_order(target: Target) -> tuple[int, str, str, int]:
    rule, entry = target.rule, target.entry
    role = ROLES.index(rule.role)
    return role, rule.namespace or "", entry.device, queue_number(entry.queue)


def values_of(entry: Queue) -> dict[str, Any]:
    hidden = ("cookie", "ifindex", "inode")  # they differ from one recreation to the next
    row = {name: value for name, value in entry._asdict().items() if name not in hidden}
    return {**row, "rps_flow_cnt": int(entry.rps_flow_cnt)}


def report(
    machine: Machine, plan: Plan, targets: Iterable[Target], table: str | None
) -> dict[str, Any]:
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
    table = table if plan.sock_flow_entries is not None else None
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
    """Bring the machine from any plan of this owner to this one; whole or not at all.

    One namespace that a pattern of an optional rule finds must not keep all others unsteered: where
    a value in it cannot be written it is left out, and told.
    """
    left_out: dict[str | None, str] = {}
    while True:
        try:
            with machine.store.locked(machine.check):
                return apply_without(machine, plan, left_out)
        except Unsteerable as error:
            if error.namespace in left_out or not may_lack(plan, error.namespace):
                raise
            left_out[error.namespace] = str(error)


def may_lack(plan: Plan, path: str | None) -> bool:
    """Whether nobody has asked for this very namespace."""
    patterns = [r.namespace or "" for r in plan.rules if r.optional and is_pattern(r.namespace)]
    named = any(rule.namespace == path for rule in plan.rules)
    return not named and any(is_like(path or "", pattern) for pattern in patterns)


def apply_without(
    machine: Machine, plan: Plan, left_out: Mapping[str | None, str]
) -> dict[str, Any]:
    """Called under the lock."""
    masks = wanted_masks(plan, machine.cpus)
    mine = machine.store.load(plan.owner)
    others, warnings = machine.store.others(plan.owner)
    survey = Survey(machine, (r.namespace for r in plan.rules), mine.entries if mine else ())
    by_path = {path: ns for path, ns in survey.by_path.items() if path not in left_out}
    targets, absent = find_targets(plan, masks, by_path)
    warnings += [f"namespace {path} is left out: {why}" for path, why in left_out.items()]
    warnings += other_overlays(plan, by_path)
    if absent:
        words = [survey.unread_words(rule.namespace) or words for rule, words in absent]
        raise SteerError("; ".join(dict.fromkeys(words)), CANNOT)
    warnings += survey.all_unread()
    refuse_foreign(plan, targets, others)
    intent = Intent(machine, plan, survey, mine)
    intent.steer(targets, left_out)
    warnings += intent.warnings
    # What is wanted has no unusable CPU, so a mask that has lost one is written again.
    changes = [v for v in intent.values if not agrees(v[0].path.name, v[2], v[1], 0)]
    refuse_exhaustion(changes, machine.memory_available())
    steps = changes
    if has_table_fault(machine.release()):
        steps = without_unequal_tables(changes)

    lease = start_lease(machine, plan)
    since = mine.since if mine else utc()
    empty = Snapshot(plan.owner, machine.boot_id, since, os.getpid(), plan.document, lease, [])
    stands = commit(machine, mine, empty, intent, steps)
    if mine and mine.lease:
        with suppress(OSError):  # it also ends by itself: the file no longer names it
            end_watchdog(machine.root, plan.owner, mine.lease)
    machine.store.forget_trace(plan.owner)
    now = [target.holding(stands) for target in targets]
    table = stands.get(machine.table, intent.table_found)
    answer = report(machine, plan, now, table)
    warnings += answer["warnings"]
    if mine and mine.lease and plan.lease_seconds is None:
        lost = f"the lease of {mine.lease.seconds} s is gone with this plan, which has none"
        warnings.append(f"{lost}: the steering stays until it is restored")
    return {**answer, "changed": len(changes), "warnings": list(dict.fromkeys(warnings))}


class Intent:
    """What an apply is about to write, and what the snapshot has to hold for that."""

    def __init__(self, machine: Machine, plan: Plan, survey: Survey, mine: Snapshot | None) -> None:
        self._machine = machine
        self._plan = plan
        self._survey = survey
        self._known = {entry.value_key: entry for entry in mine.entries} if mine else {}
        self.values: list[Change] = []
        self.warnings: list[str] = []
        self.table_found: str | None = None
        self._kept: list[tuple[Entry, Setting, str]] = []  # of the plan, and what it wants
        self._dropped: list[tuple[Entry, Setting]] = []  # of the plan before, going back
        self._stuck: list[Entry] = []  # not found, and not known to be gone

    def steer(self, targets: Iterable[Target], left_out: Mapping[str | None, str]) -> None:
        for target in targets:
            for knob, (setting, found, wanted) in zip(KNOBS, target.values()):  # noqa: B905
                keys = [(key, knob) for key in target.entry.keys if (key, knob) in self._known]
                old = self._known.pop(keys[0]).at(target.entry) if keys else None
                self._take(old or Entry.of(target.entry, knob, found), setting, found, wanted)
        self._steer_table()
        for entry in self._known.values():
            if entry.namespace in left_out and entry.knob != TABLE:
                self._stuck.append(entry._replace(reason=left_out[entry.namespace]))
            else:
                self._drop(entry)

    def _steer_table(self) -> None:
        """The machine's flow table, where the plan wants it."""
        table, wanted = self._machine.table, self._plan.sock_flow_entries
        self.table_found = found = self._machine.sock_flow_entries()
        if wanted is None:
            return
        if found is None and wanted:
            words = f"the plan needs {table.path}, which there is not"
            raise SteerError(f"{words}: run the agent in the first network namespace", CANNOT)
        if found is not None:
            new = Entry.of_table(found)
            self._take(self._known.pop(new.value_key, new), table, found, str(wanted))

    def _take(self, entry: Entry, setting: Setting, found: str, wanted: str) -> None:
        if not entry.explains(found, self._machine.cpus.unusable):
            back = f"a restore goes back to {entry.before}, which was there at first"
            self.warnings.append(
                f"{setting} was {found}, which {self._plan.owner} had not written; {back}"
            )
            entry = entry._replace(overwritten=[*dict.fromkeys([*entry.overwritten, found])])
        self._kept.append((entry._replace(reason=None), setting, wanted))
        self.values.append((setting, found, wanted))

    def _drop(self, entry: Entry) -> None:
        """A value of the plan before that this one does not want."""
        try:
            setting, found = self._survey.located(entry, lambda setting: (setting, setting.read()))
        except Gone:
            return
        except (OSError, SteerError) as error:
            self.warnings.append(f"not put back, and kept in the snapshot: {explain(error)}")
            self._stuck.append(entry._replace(reason=explain(error)))
            return
        if entry.explains(found, self._machine.cpus.unusable):
            self._dropped.append((entry, setting))
            self.values.append((setting, found, entry.before))
        else:
            self.warnings.append(left_words(entry, setting, found))

    def wants(self, setting: Setting) -> bool:
        return any(kept == setting for _, kept, _ in self._kept)

    def namespace_of(self, setting: Setting) -> str | None:
        return next(entry.namespace for entry, kept, _ in self._kept if kept == setting)

    def during(self, steps: Iterable[Change]) -> list[Entry]:
        """What the snapshot holds until the last write is made: for the old plan and the new."""
        writes: dict[Setting, list[str]] = {}
        for setting, _, wanted in steps:
            writes.setdefault(setting, []).append(wanted)
        entries = [e.writing(*writes.get(s, ()), wanted) for e, s, wanted in self._kept]
        for entry, setting in self._dropped:
            reduced = reduced_by(entry, self._machine.cpus.unusable)
            entries.append(entry.writing(*writes.get(setting, ()), *reduced))
        return entries + self._stuck

    def final(self, stands: Mapping[Setting, str]) -> list[Entry]:
        """What it holds from then on."""
        entries = [entry._replace(written=[wanted]) for entry, _, wanted in self._kept]
        for entry, setting in self._dropped:
            got = stands.get(setting, entry.before)
            if not agrees(entry.knob, entry.before, got, 0):
                reason = reduced_words(setting, entry.before, got)
                entries.append(entry.writing(got)._replace(reason=reason))
                self.warnings.append(reason)
        return entries + self._stuck

    def failing(self, stuck: Mapping[Setting, str], entries: Iterable[Entry]) -> list[Entry]:
        """The entries with the reasons why their values could not be put back."""
        places = [(entry, setting) for entry, setting, _ in self._kept] + self._dropped
        reasons = {e.value_key: stuck[setting] for e, setting in places if setting in stuck}
        return [e._replace(reason=reasons.get(e.value_key, e.reason)) for e in entries]


def refuse_foreign(plan: Plan, targets: Iterable[Target], others: Iterable[Snapshot]) -> None:
    """Two owners of one value could not both restore it."""
    holders = {entry.key: other for other in others for entry in other.entries}
    claims = [
        (str(target.entry), holders[key])
        for target in targets
        for key in target.entry.keys
        if key in holders
    ]
    if plan.sock_flow_entries is not None:
        claims += [(TABLE, other) for other in others if other.table]
    for what, other in claims:
        held = f"{what} is steered by owner {other.owner} (pid {other.pid}, {other.since})"
        undo = ["python3", str(Path(__file__).resolve()), "restore", "--owner", other.owner]
        raise SteerError(f"{held}: first run {shlex.join(undo)}", CANNOT)


def commit(
    machine: Machine,
    mine: Snapshot | None,
    empty: Snapshot,
    intent: Intent,
    steps: Sequence[Change],
) -> dict[Setting, str]:
    """Make the snapshot durable and then the changes, or put back what was found.

    The answer is what then stands, of the values that were written.
    """
    store, unusable = machine.store, machine.cpus.unusable
    during = empty._replace(entries=intent.during(steps))
    started: list[Change] = []
    stands: dict[Setting, str] = {}
    at: Setting | None = None  # where it fails, if it does
    try:
        if mine is None or during._replace(pid=mine.pid) != mine:
            store.save(during)
        for change in steps:
            machine.check()
            at, found, wanted = change
            setting = at
            now = setting.read()
            if not agrees(setting.path.name, found, now, 0):
                words = f"{setting} was {found} a moment ago and is {now}: somebody else writes it"
                raise SteerError(f"{words}: apply again")
            started.append(change)
            setting.put(wanted, unusable)
            stands[setting] = setting.read()
            at = None
        final = empty._replace(entries=intent.final(stands))
        if final != during:
            store.save(final)
        return stands
    except BaseException as error:
        status = getattr(error, "status", FAILED)
        words = explain(error)
        stuck, left = roll_back(started, unusable)
        if stuck:
            words += f"; not put back, so the snapshot stays: {'; '.join(stuck.values())}"
            try:
                store.save(during._replace(entries=intent.failing(stuck, during.entries)))
            except (OSError, SteerError) as failure:
                words += f"; {explain(failure)}"
            raise SteerError("; ".join([words, *left]), status) from None
        # Should this fail, the file of both plans stays: it holds all that a restore needs.
        with suppress(OSError, SteerError):
            store.save(mine) if mine else store.discard(during.owner)
        undone = SteerError("; ".join([f"{words}; steering is as apply found it", *left]), status)
        if at and intent.wants(at):
            raise Unsteerable(undone, intent.namespace_of(at)) from None
        raise undone from None


def roll_back(started: Sequence[Change], unusable: int) -> tuple[dict[Setting, str], list[str]]:
    """Undo changes in reverse: what could not be put back, with why; what others wrote meanwhile."""
    written: dict[Setting, list[str]] = {}
    for setting, _, wanted in started:
        written.setdefault(setting, []).append(wanted)
    stuck: dict[Setting, str] = {}
    left = []
    for setting, found, _ in reversed(started):
        stuck.pop(setting, None)  # of the step after this one: this value is what counts
        name = setting.path.name
        try:
            now = setting.read()
            if agrees(name, found, now, 0):
                continue
            if not any(comes_from(name, wanted, now, unusable) for wanted in written[setting]):
                left.append(f"{setting} is {now}, which somebody else wrote: left as it is")
                continue
            setting.put(found, unusable)
            got = setting.read()
            if not agrees(name, found, got, 0):
                stuck[setting] = reduced_words(setting, found, got)
        except Exception as error:  # whatever it is, the others go back
            with suppress(OSError):
                if isinstance(error, Gone) and not exists(setting.path):
                    continue
            stuck[setting] = explain(error)
    return stuck, left


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
    try:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    answer = detach(writable)
                    os.write(answer, b"%d" % os.getpid())
                    os.close(answer)
                    watch(root, owner)
            finally:
                os._exit(0)
        os.close(writable)
        writable = -1
        os.waitpid(child, 0)
        word = os.read(readable, 32)
    finally:
        for end in (readable, writable):
            with suppress(OSError):
                os.close(end)
    start = start_time(int(word)) if word else None
    if start is None:
        raise SteerError("the watchdog of the lease did not start; nothing was changed")
    return int(word), start


def detach(answer: int) -> int:
    """Let go of all that was inherited but `answer`: pipes, the lock, views of namespaces."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir("/")
    answer = fcntl.fcntl(answer, fcntl.F_DUPFD_CLOEXEC, 3)
    last = max(int(name) for name in listing("/proc/self/fd"))
    os.closerange(0, answer)
    os.closerange(answer + 1, last + 1)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
        os.open(os.devnull, flags)
    return answer


def watch(root: Path, owner: str) -> None:
    """Restore when the lease lapses unrenewed; end when the file no longer names this process."""
    while True:
        nap: float | None = WATCHDOG_NAP
        try:
            nap = watch_once(root, owner)
        except Exception as error:  # nothing may end the lease but its end
            leave_trace(root, owner, explain(error))
        if nap is None:
            return
        time.sleep(nap)
        if not root_exists(root):
            return


def watch_once(root: Path, owner: str) -> float | None:
    """How long to sleep; None where there is nothing to watch any more."""
    with Machine(root) as machine, machine.store.locked():
        snapshot = machine.store.load(owner)
        lease = snapshot and snapshot.lease
        me = os.getpid(), start_time(os.getpid())
        if not snapshot or not lease or (lease.pid, lease.start) != me:
            return None
        machine.store.forget_trace(owner)
        left = lease.expires - boot_time()
        if left > 0:
            return min(left, WATCHDOG_NAP)
        if not lapse(machine, snapshot):
            return WATCHDOG_NAP
        return None


def lapse(machine: Machine, snapshot: Snapshot) -> bool:
    """Restore because a lease has lapsed; whether all is done. Nobody hears, so it is written."""
    answer = put_back(machine, snapshot)
    words = [*answer["failed"], *answer["left"], *answer["warnings"]]
    if words:
        said = f"the lease lapsed: {'; '.join(words)}"
        machine.store.trace(snapshot.owner, said)
    return not answer["failed"]


def root_exists(root: Path) -> bool:
    try:
        return exists(root)
    except OSError:
        return True


def leave_trace(root: Path, owner: str, words: str) -> None:
    with suppress(Exception):
        Store(root / RUN, "").trace(owner, words)


def watch_file(root: Path, owner: str) -> Path:
    """Names the process of `watch`, as `pid start-time`."""
    return Store(root / RUN, "").path(owner, ".watch")


def standing_watch(root: Path, owner: str) -> tuple[int, str] | None:
    try:
        raw = Store(root / RUN, "").read(watch_file(root, owner))
        word, start = (raw or b"").decode().split()
        pid = int(word)
    except (Damaged, ValueError):
        return None
    return (pid, start) if start_time(pid) == start else None


def stand_watch(root: Path, owner: str, signals: Signals) -> dict[str, Any]:
    """See to an owner's leases until a signal comes, and then restore.

    For where a forked watchdog could not stay: the containers of a Job end with it.
    """
    me = os.getpid(), start_time(os.getpid()) or ""
    with Machine(root) as machine, machine.store.locked():
        standing = standing_watch(root, owner)
        if standing and standing != me:
            raise SteerError(f"pid {standing[0]} watches owner {owner} already", CANNOT)
        machine.store.write(watch_file(root, owner), f"{me[0]} {me[1]}")
    while not signals.caught:
        nap = WATCH_NAP
        try:
            nap = stand_once(root, owner, me)
        except Exception as error:  # nothing may end the lease but its end
            leave_trace(root, owner, explain(error))
        signals.wait(nap)
    answer = last_restore(root, owner, signals)
    with suppress(OSError):
        os.unlink(watch_file(root, owner))
    return answer


def stand_once(root: Path, owner: str, me: tuple[int, str]) -> float:
    """Take over the owner's lease, restore what has lapsed; how long to sleep."""
    with Machine(root) as machine, machine.store.locked():
        snapshot = machine.store.load(owner)
        lease = snapshot and snapshot.lease
        if not snapshot or not lease:
            return WATCH_NAP
        if (lease.pid, lease.start) != me:
            end_watchdog(root, owner, lease)
            lease = lease._replace(pid=me[0], start=me[1])
            snapshot = snapshot._replace(lease=lease)
            machine.store.save(snapshot)
        machine.store.forget_trace(owner)
        left = lease.expires - boot_time()
        if left <= 0:
            lapse(machine, snapshot)
            return WATCH_NAP
        return min(WATCH_NAP, left)


def last_restore(root: Path, owner: str, signals: Signals) -> dict[str, Any]:
    """A watch that ends is the last that restores: what fails is tried again."""
    for attempt in reversed(range(LAST_TRIES)):
        try:
            with Machine(root) as machine:
                answer = restore(machine, owner)
            if not answer["failed"] or not attempt:
                return answer
        except Exception:
            if not attempt:
                raise
        signals.wait(1)
    raise AssertionError("there is a last attempt")


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
            watched = lease.watched()
            # a watchdog of an earlier agent cannot read the file that this one writes
            if not watched or snapshot.old:
                pid, start = start_watchdog(machine.root, owner)
                lease = lease._replace(pid=pid, start=start)
            lease = lease._replace(expires=round(boot_time() + lease.seconds, 3))
            machine.store.save(snapshot._replace(lease=lease, old=False))
            if watched and snapshot.old:
                with suppress(OSError):
                    end_watchdog(machine.root, owner, snapshot.lease)
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
    targets, absent = find_targets(plan, wanted_masks(plan, machine.cpus), survey.by_path)
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
        for setting, got, wanted in target.values():
            if not agrees(setting.path.name, wanted, got, machine.cpus.unusable):
                note("value", f"{setting} is {got}, not {wanted}", *queue.place)

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


# --- restore and show ---


def restore(machine: Machine, owner: str, force: bool = False) -> dict[str, Any]:
    with machine.store.locked(machine.check):
        snapshot = machine.store.load(owner)
        if snapshot:
            return put_back(machine, snapshot, force)
        machine.store.discard(owner)
    return restored(owner)


def restored(owner: str, **more: Any) -> dict[str, Any]:
    """The answer of a restore."""
    none: dict[str, Any] = {"restored": 0, "sock_flow_entries": None}
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
            if entry.knob == "rps_flow_cnt":
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
            if entry.knob == TABLE:
                answer["sock_flow_entries"] = int(entry.before)
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
            end_watchdog(machine.root, snapshot.owner, snapshot.lease)
    return answer


def announce(machine: Machine, snapshot: Snapshot, failed: list[str]) -> Snapshot:
    """Record what this restore may write besides the old values, before the first write.

    That is what the kernel makes of a mask while some of its CPUs are offline, and an empty table.
    """
    fault = has_table_fault(machine.release())
    entries = [
        entry.writing(
            *reduced_by(entry, machine.cpus.unusable),
            *(["0"] if fault and entry.knob == "rps_flow_cnt" else []),
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
    if agrees(entry.knob, entry.before, found, 0):
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
    written = int(not agrees(entry.knob, found, got, 0))
    if agrees(entry.knob, entry.before, got, 0):
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
    if entry.knob != "rps_cpus" or not parse_mask(entry.before) & unusable:
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
        return {"owner": owner, "error": "of an earlier boot, worthless: restore removes it"}
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


# --- the command line ---


class Signals:
    """Remembers a signal until the agent asks, where nothing is half done."""

    ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.caught: list[int] = []
        self._at_once = False
        for number in self.ALL:
            signal.signal(number, lambda number, _: self._catch(number))

    def _catch(self, number: int) -> None:
        self.caught.append(number)
        if self._at_once:
            self.check()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block, which may wait for long and does nothing by halves."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

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
            words = sys.stdin.buffer.read(MAX_TEXT + 1).decode() if piped else ""
        elif argument.startswith("@"):
            with opened(argument[1:], os.O_RDONLY) as file:
                words = read_to_end(file, MAX_TEXT).decode()
        else:
            words = argument
        document = read_json(words) if words.strip() else None
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
    verb.add_argument(
        "--force", action="store_true", help="write the old values over what others wrote meanwhile"
    )
    return parser.parse_args(words)


def dispatch(
    options: argparse.Namespace, machine: Machine, signals: Signals
) -> tuple[dict[str, Any], list[str]]:
    """What a verb says, and what of it is wrong, in words."""
    if options.verb == "show":
        return show(machine, options.namespace), []
    if options.verb == "restore":
        force = options.force
        done = (
            restore_all(machine, force) if options.all else restore(machine, options.owner, force)
        )
        return done, done["failed"]
    if options.verb == "apply":
        with signals.at_once():
            plan = read_plan(options.plan, options.owner)
        if plan is None:
            raise SteerError("plan: there is none: give it on stdin or with --plan", BAD_PLAN)
        return apply(machine, plan), []
    with signals.at_once():
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
    said: dict[str, Any] = {}
    signals = Signals()
    allow_descriptors()
    try:
        if options.verb == "watch":
            said = stand_watch(options.root, options.owner, signals)
            wrong = said["failed"]
        else:
            with Machine(options.root, signals.check) as machine:
                said, wrong = dispatch(options, machine, signals)
        status = FAILED if wrong else 0
        wrong = wrong + [*said.get("left", ()), *said.get("warnings", ())] * (options.verb in BACK)
    except SteerError as error:
        status, wrong = error.status, [str(error)]
        leave_refusal(status)
    except Exception as error:
        status, wrong = FAILED, [f"{options.verb}: {unforeseen(error)}"]
    signals.ignore()
    unprinted = printed(said) if said else ""
    if unprinted:
        status = status or FAILED
        wrong = [*wrong, f"{options.verb} was done, but its answer is lost: {unprinted}"]
        if options.verb == "apply":
            wrong[-1] += f"; owner {said['owner']} steers this machine until a restore"
    if wrong:
        with suppress(Exception):  # nobody reads it: the status remains
            sys.stderr.write(f"steer: {visible('; '.join(wrong))}\n")
    words = "; ".join(wrong or ["done", *said.get("warnings", ())])
    notify(f"{options.verb}: {visible(words)}")
    return status


def unforeseen(error: Exception) -> str:
    """An error that no part of the agent has expected, in words."""
    known = isinstance(error, OSError)
    return explain(error) if known else f"unexpected {shortened(repr(error), 1000)}"


def printed(answer: dict[str, Any]) -> str:
    """Print an answer; why that failed, if it did."""
    try:
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
        sys.stdout.flush()
    except Exception as error:
        with suppress(Exception):  # else Python tries once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return explain(error)
    return ""


def visible(words: str) -> str:
    """Words in which names of devices and processes cannot do anything to a terminal."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in words
    )


def allow_descriptors() -> None:
    """As many as may be: a view of each namespace stays open, and a node can have hundreds."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
        manager.settimeout(1)
        manager.sendto(message.encode(errors="replace"), address.replace("@", "\0", 1))


if __name__ == "__main__":
    sys.exit(main())
