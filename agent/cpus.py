"""The machine's CPUs: online, present and isolated."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import NamedTuple

from agent.errors import CANNOT, SteerError
from agent.files import exists, read_text
from agent.values import mask_of, parse_cpu_list

# CPUs of isolated partitions: unlike isolcpus the kernel leaves these in a mask.
CPUSETS = ("fs/cgroup/cpuset.cpus.isolated", "fs/cgroup/unified/cpuset.cpus.isolated")


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
        """The mask of CPUs that process no packets: offline, or isolated for other work."""
        return mask_of({*self.present} - {*self.online} | {*self.isolated})

    @property
    def usable(self) -> list[int]:
        return [cpu for cpu in self.online if cpu not in self.isolated]

    def faults(self, mask: int) -> str:
        """The reasons why CPUs of a mask are unusable."""
        offline = sorted({*self.present} - {*self.online} - {*self.isolated})
        states = (("offline", offline), ("isolated", sorted({*self.isolated})))
        found = ((state, [cpu for cpu in cpus if mask >> cpu & 1]) for state, cpus in states)
        return ", ".join(
            f"CPU{'s' * (len(cpus) > 1)} {','.join(map(str, cpus))} {'are' if len(cpus) > 1 else 'is'}"
            f" {state}"
            for state, cpus in found
            if cpus
        )
