"""Configuration -> the plan of one node for its agent: which devices get what (pure).

A plan contains kinds of devices and placement words. The agent (`agent/`) finds the devices and
converts the words into masks on the node itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.plan import ALIASES, MACHINE_ALIASES
from infra.configurations import Configuration, Role

NO_PEERS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Device:
    """The receive devices of one kind in one network namespace.

    `namespace` is the path of an nsfs file, `None` the agent's own; `generation` changes when a
    pod is recreated, so that the plan changes too.
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
    queue_cores: Sequence[int] = (),
    owns_flow_table: bool = True,
    lease_seconds: int | None = None,
    peers: Mapping[str, str] = NO_PEERS,
) -> dict[str, Any]:
    """The plan that brings `devices` to `configuration`; every value is written, also a zero.

    `cores` are those that the placement words mean, `None` all of the node's. `queue_core` is that of an
    emulated NIC; one with several queues has `queue_cores`. Of the nodes that share a kernel one alone
    `owns_flow_table`. `peers` are pods on other nodes, by address, and the addresses of their nodes: the
    agent finds devices by the routes to them.
    """
    return {
        "version": 1,
        "owner": owner,
        "cores": None if cores is None else list(cores),
        "queue_core": queue_core,
        **({"queue_cores": list(queue_cores)} if queue_cores else {}),
        **({"peers": dict(peers)} if peers else {}),
        **_machine(configuration.machine.knobs if owns_flow_table else {}),
        "lease_seconds": lease_seconds,
        "rules": [_rule(configuration, device) for device in devices],
    }


def replanned(document: Mapping[str, Any], configuration: Configuration) -> dict[str, Any]:
    """The plan that brings the devices of another plan to `configuration`."""
    devices = [
        Device(
            rule["role"],
            tuple(rule["devices"]),
            rule.get("namespace"),
            rule.get("pod"),
            rule.get("generation"),
            bool(rule.get("optional")),
        )
        for rule in document["rules"]
    ]
    return plan(
        configuration,
        owner=document["owner"],
        devices=devices,
        cores=document.get("cores"),
        queue_core=document.get("queue_core"),
        queue_cores=document.get("queue_cores") or (),
        lease_seconds=document.get("lease_seconds"),
    )


def _machine(knobs: Mapping[str, str | int]) -> dict[str, Any]:
    """The machine's settings. A plan is part of a stack's state, so the keys of the first version stay."""
    first = {old: knobs.get(name) for old, name in MACHINE_ALIASES.items()}
    later = {name: word for name, word in knobs.items() if name not in MACHINE_ALIASES.values()}
    return {**first, **({"machine": later} if later else {})}


def _device(knobs: Mapping[str, str | int]) -> dict[str, Any]:
    """The settings of a rule, by its first keys where there are no others."""
    if knobs.keys() == set(ALIASES.values()):
        return {old: knobs[name] for old, name in ALIASES.items()}
    return {"set": dict(knobs)}


def _rule(configuration: Configuration, device: Device) -> dict[str, Any]:
    return {
        "role": device.role,
        "namespace": device.namespace,
        "devices": list(device.patterns),
        **_device(configuration.settings(device.role).knobs),
        "pod": device.pod,
        "generation": device.generation,
        "optional": device.optional,
    }
