"""Configuration -> the plan of one node for its agent: which devices get what (pure).

A plan speaks of kinds of devices and of placement words; the agent (`agent/`)
finds the devices and turns the words into masks on the node itself, whose cores it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.plan import ALIASES
from infra.configurations import Configuration, DeviceSteering, Role


@dataclass(frozen=True)
class Device:
    """The receive devices of one kind in one network namespace.

    `namespace` is the path of an nsfs file, `None` the agent's own; `generation` changes when a
    pod is made anew, so that the plan does too.
    """

    role: Role
    patterns: tuple[str, ...]
    namespace: str | None = None
    pod: str | None = None
    generation: str | None = None
    optional: bool = False


def plan(
    configuration: Configuration,
    *,
    owner: str,
    devices: Sequence[Device],
    cores: Sequence[int] | None,
    queue_core: int | None,
    owns_flow_table: bool = True,
    lease_seconds: int | None = None,
) -> dict[str, Any]:
    """The plan that brings `devices` to `configuration`; every value is written, also a zero.

    `cores` are those that the placement words mean, `None` all of the node's. Of the nodes that
    share a kernel one alone `owns_flow_table`.
    """
    return {
        "version": 1,
        "owner": owner,
        "cores": None if cores is None else list(cores),
        "queue_core": queue_core,
        "sock_flow_entries": configuration.sock_flow_entries if owns_flow_table else None,
        "lease_seconds": lease_seconds,
        "rules": [_rule(configuration, device) for device in devices],
    }


def _words(wanted: DeviceSteering) -> dict[str, Any]:
    """As it has always been where that says it all: a plan is part of a stack's state."""
    if wanted.knobs.keys() == set(ALIASES.values()):
        return {"cpus": wanted.cpus, "flows": wanted.flows}
    return {"set": wanted.knobs}


def _rule(configuration: Configuration, device: Device) -> dict[str, Any]:
    wanted = configuration.steering(device.role)
    return {
        "role": device.role,
        "namespace": device.namespace,
        "devices": list(device.patterns),
        **_words(wanted),
        "pod": device.pod,
        "generation": device.generation,
        "optional": device.optional,
    }
