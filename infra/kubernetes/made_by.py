"""Which engine made a cluster's stack: the other refuses it.

The API keeps for each field of an object the manager that applied it, and the two engines are two
managers with records of their own: a hand-over would end in conflicts half way. The lab's stacks
have no such owner and go from one engine to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra import checkpoint
from infra.errors import InvalidInput

# The component whose inputs say it, and the configuration by which the embedded engine says so.
COMPONENT = "steerlab:kubernetes:Cluster"
ENGINE = "steerlab-engine:name"
PULUMI, EMBEDDED = "pulumi", "embedded"


def running() -> str:
    """The engine that runs this program."""
    import pulumi

    section, _, key = ENGINE.partition(":")
    return pulumi.Config(section).get(key) or PULUMI


def recorded(resources: Iterable[Mapping[str, Any]]) -> str:
    """The engine that a checkpoint's resources name; empty where they are no cluster's (pure)."""
    inputs = (one.get("inputs") or {} for one in resources if one["type"] == COMPONENT)
    return next((str(one.get("engine", "")) for one in inputs), "")


def refuse_other(stack: str, resources: Iterable[Mapping[str, Any]], engine: str) -> None:
    """Raise `InvalidInput` where another engine has made this stack (pure)."""
    made = recorded(resources)
    if made and made != engine:
        raise InvalidInput(
            f"engine: stack {stack} was made on its cluster by the {made} engine: use "
            f"--engine {made}, or destroy it with that first (./steerlab destroy -s {stack} "
            f"--engine {made})"
        )


def refuse_embedded(stack: str, root: Path) -> None:
    """The same for plain Pulumi, which has no other way to know: `root` is the project's."""
    import pulumi

    if running() != EMBEDDED:
        path = checkpoint.path_of(root, pulumi.get_project(), stack)
        refuse_other(stack, checkpoint.resources(path), PULUMI)
