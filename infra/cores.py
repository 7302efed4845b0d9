"""Which cores the lab's two nodes use (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from agent.values import MAX_CPUS, parse_cpu_list
from infra import untrusted
from infra.complaints import whole
from infra.errors import PrerequisiteMissing


def _different(cores: object) -> object:
    texts = [str(core) for core in cores] if isinstance(cores, list | tuple) else []
    if not texts or len(set(texts)) != len(texts):
        raise ValueError("must be a list of one or more different cores")
    return cores


Core = Annotated[int, whole(0, MAX_CPUS - 1)]
CoreList = Annotated[tuple[Core, ...], BeforeValidator(_different)]


class Cores(BaseModel):
    """Cores of the server node, of the client node, and the one a single-queue NIC interrupts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: CoreList
    client: CoreList
    irq: Core = 0


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
    """Share the online cores between server and client.

    Disjoint halves from four cores on. With three the client has one of its own, with two it
    shares the server's second core: never the irq core, which is what is measured.
    Raises `PrerequisiteMissing` for a single core, where steering has nowhere to steer to.
    """
    cores = sorted(online)
    if len(cores) < 2:
        raise PrerequisiteMissing(
            f"cpus: the lab needs at least 2 cores, and may use {len(cores)}: with one core there "
            "is nowhere to steer packets to. Cores that are offline, isolated or outside of this "
            "process' cpuset or affinity (taskset) are left out"
        )
    half = max(2, len(cores) // 2)
    return Cores(
        server=tuple(cores[:half]),
        client=tuple(cores[half:]) or (cores[-1],),
        irq=cores[0],
    )
