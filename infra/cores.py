"""The cores of this machine, and those that the lab's two nodes use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from agent.values import MAX_CPUS, parse_cpu_list
from infra import untrusted
from infra.complaints import whole
from infra.configurations import Configuration
from infra.errors import InvalidInput, PrerequisiteMissing

_CPUS = Path("/sys/devices/system/cpu")


def _different(cores: object) -> object:
    texts = [str(core) for core in cores] if isinstance(cores, list | tuple) else []
    if not texts or len(set(texts)) != len(texts):
        raise ValueError("must be a list of one or more different cores")
    return cores


Core = Annotated[int, whole(0, MAX_CPUS - 1)]
CoreList = Annotated[tuple[Core, ...], BeforeValidator(_different)]


class Cores(BaseModel):
    """Cores of the server node, of the client node, and the one that the NIC's first queue interrupts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: CoreList
    client: CoreList
    irq: Core = 0

    def of_queues(self, number: int) -> tuple[int, ...]:
        """The core of each receive queue of the NIC; fewer where the server has fewer cores."""
        return (self.irq, *(core for core in self.server if core != self.irq))[:number]


def listed(text: str) -> list[int]:
    """The CPUs of a list as the kernel writes it, `0-3,8`. Raises `PrerequisiteMissing` for any other text."""
    with untrusted.reading("the list of CPUs"):
        return parse_cpu_list(text)


def numbered(name: str) -> int:
    """The CPU of a name as /proc has it, `cpu7` or `CPU7`. Raises ValueError."""
    number = untrusted.whole(name[3:])
    if name[:3].lower() != "cpu" or number >= MAX_CPUS:
        raise ValueError(f"{name[:40]!r} is no CPU")
    return number


def share(online: Sequence[int]) -> Cores:
    """Share the online cores between server and client (pure).

    Disjoint halves from four cores on. With three the client has one of its own, with two it
    shares the server's second core: never the irq core, which is what is measured.
    Raises `PrerequisiteMissing` for a single core, where steering is not possible.
    """
    cores = sorted(online)
    if len(cores) < 2:
        raise PrerequisiteMissing(
            f"lab.cpus: the lab needs at least 2 cores, and may use {len(cores)}: with one core there "
            "is nowhere to steer packets to. Cores that are offline, isolated or outside of this "
            "process' cpuset or affinity (taskset) are left out"
        )
    half = max(2, len(cores) // 2)
    return Cores(
        server=tuple(cores[:half]),
        client=tuple(cores[half:]) or (cores[-1],),
        irq=cores[0],
    )


def check(cpus: Cores, online: tuple[int, ...]) -> None:
    """Raise `InvalidInput` for cores that are not online, or an irq core of the client (pure)."""
    if absent := sorted({*cpus.server, *cpus.client, cpus.irq} - set(online)):
        raise InvalidInput(f"lab.cpus: core {absent[0]} is not online (online: {_text(online)})")
    if cpus.irq not in cpus.server:
        raise InvalidInput(
            f"lab.cpus: the irq core {cpus.irq} is not a server core ({_text(cpus.server)})"
        )


def check_masks(steering: Configuration, online: tuple[int, ...]) -> None:
    """Raise `InvalidInput` for a configuration with masks beyond the online cores (pure)."""
    if steering.needs_cpus > max(online) + 1:
        raise InvalidInput(
            f"configuration: {steering.name} needs {steering.needs_cpus} CPUs, "
            f"this machine has {_text(online)}"
        )
    if absent := sorted(steering.named_cpus - set(online)):
        raise InvalidInput(
            f"configuration: {steering.name} has a mask with core {absent[0]}, which is "
            f"not online (online: {_text(online)})"
        )


def check_allowed(cpus: Cores, allowed: tuple[int, ...]) -> None:
    """Raise `PrerequisiteMissing` for cores that the kernel does not let this process use (pure)."""
    if absent := sorted({*cpus.server, *cpus.client, cpus.irq} - set(allowed)):
        raise PrerequisiteMissing(
            f"lab.cpus: this process may not use core {absent[0]} (allowed: {_text(allowed)}): choose "
            "others, or widen its cpuset (systemd AllowedCPUs=, docker --cpuset-cpus, cpuset.cpus)"
        )


def _text(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in numbers)


def online() -> tuple[int, ...]:
    """The online CPUs of this machine (/sys/devices/system/cpu/online)."""
    return _read("online")


def possible() -> tuple[int, ...]:
    """The CPUs that this machine can have, also those that are offline."""
    return _read("possible")


def _read(name: str) -> tuple[int, ...]:
    return tuple(listed(untrusted.words(_CPUS / name)))


def allowed() -> tuple[int, ...]:
    """The online CPUs that the kernel lets this process use: those of its cpuset.

    Its affinity may be narrower, because of taskset or isolated CPUs. A thread requests all CPUs to
    see which it gets; what the lab starts is bound in the same way.
    """

    def widest() -> set[int]:
        with suppress(OSError):
            os.sched_setaffinity(0, online())
        return os.sched_getaffinity(0)

    with ThreadPoolExecutor(1) as other:
        return tuple(sorted(other.submit(widest).result()))


def usable() -> tuple[int, ...]:
    """The CPUs of this process' affinity that are not isolated for other work."""
    files = [_CPUS / name for name in ("isolated", "nohz_full")]
    isolated = {core for one in files if one.exists() for core in listed(untrusted.words(one))}
    mine = os.sched_getaffinity(0)
    return tuple(core for core in online() if core in mine and core not in isolated)
