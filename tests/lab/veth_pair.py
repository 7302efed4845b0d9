"""The veth pair stlb0, stlb1 that stands for a NIC in the first namespace of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

NAMES = ("stlb0", "stlb2")  # the second: what a test renames the first to


def make(queues: int = 1) -> None:
    """Make the pair with so many queues on each end.

    A pair that stands is what an interrupted run left: it would fail every test after it.
    """
    remove()
    many = ("numrxqueues", str(queues), "numtxqueues", str(queues))
    pair = ("type", "veth", "peer", "name", "stlb1")
    subprocess.run(["ip", "link", "add", NAMES[0], *many, *pair], check=True)


def remove() -> None:
    for name in NAMES:
        if Path("/sys/class/net", name).exists():
            subprocess.run(["ip", "link", "del", name], check=True)
