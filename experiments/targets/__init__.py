"""The registry of targets: everything that differs between the lab and a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.targets.contract import Target
from experiments.targets.kubernetes import target as kubernetes
from experiments.targets.lab import target as lab

TARGETS: dict[str, Target] = {"lab": lab, "kubernetes": kubernetes}


def of(resources: Sequence[dict[str, Any]]) -> Target:
    """The target of the resources in a checkpoint; the lab if there are none."""
    return next((one for one in TARGETS.values() if one.made(resources)), lab)
