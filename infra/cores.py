"""Which cores the lab's two nodes use (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from infra.refusals import Cannot

CoreList = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class Cores(BaseModel):
    """Cores of the server node, of the client node, and the one a single-queue NIC interrupts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: CoreList
    client: CoreList
    irq: Annotated[int, Field(ge=0)] = 0


def share(online: Sequence[int]) -> Cores:
    """Share the online cores between server and client.

    Disjoint halves from four cores on. With three the client has one of its own, with two it
    shares the server's second core: never the irq core, which is what is measured.
    Raises `Cannot` for a single core, where steering has nowhere to steer to.
    """
    cores = sorted(online)
    if len(cores) < 2:
        raise Cannot(
            f"cpus: the lab needs at least 2 online cores, this machine has {len(cores)}: "
            "with one core there is nowhere to steer packets to"
        )
    half = max(2, len(cores) // 2)
    return Cores(
        server=tuple(cores[:half]),
        client=tuple(cores[half:]) or (cores[-1],),
        irq=cores[0],
    )
