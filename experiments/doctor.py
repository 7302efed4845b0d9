"""What this machine is, what it lacks for the lab, and what holds its steering now."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

from experiments import agent, requirements


@dataclass(frozen=True)
class Findings:
    """The result of an examination."""

    kernel: str
    cores: int
    missing: list[str]
    steering: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        lines = [f"kernel  {self.kernel}", f"cores   {self.cores}"]
        lines += [f"lacks   {reason}" for reason in self.missing] or ["lab     can run here"]
        return "\n".join(lines)


def examine() -> Findings:
    missing = requirements.missing()
    steering = agent.call("show") if os.geteuid() == 0 else {}
    return Findings(platform.release(), os.cpu_count() or 1, missing, steering)
