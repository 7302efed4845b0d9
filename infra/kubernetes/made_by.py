"""The engine that created a cluster's stack: the other engine refuses it.

The API records the manager of each field of an object. The engines are two managers, so a hand-over
would fail halfway with conflicts. Stacks of the lab can change engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from infra.errors import InvalidInput

# The component that records the engine, and the configuration key that the embedded engine sets.
COMPONENT = "steerlab:kubernetes:Cluster"
ENGINE = "steerlab-engine:name"
PULUMI, EMBEDDED = "pulumi", "embedded"


def running() -> str:
    """The engine that runs this program."""
    import pulumi

    section, _, key = ENGINE.partition(":")
    return pulumi.Config(section).get(key) or PULUMI


def recorded(resources: Iterable[Mapping[str, Any]]) -> str:
    """The engine recorded in a checkpoint's resources; empty where they are not of a cluster (pure)."""
    inputs = (one.get("inputs") or {} for one in resources if one["type"] == COMPONENT)
    return next((str(one.get("engine", "")) for one in inputs), "")


def refuse_other(stack: str, resources: Iterable[Mapping[str, Any]], engine: str) -> None:
    """Raise `InvalidInput` where another engine created this stack (pure)."""
    made = recorded(resources)
    if made and made != engine:
        raise InvalidInput(
            f"engine: stack {stack} was created on its cluster by the {made} engine: use "
            f"--engine {made}, or destroy it with that first (./steerlab destroy -s {stack} "
            f"--engine {made})"
        )
