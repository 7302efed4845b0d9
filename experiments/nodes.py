"""Steering of this node without any experiment: show, apply, restore."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import agent
from infra import configurations, steering
from infra.configurations import Configuration
from infra.refusals import BadInput, Cannot
from infra.steering import Device


@dataclass(frozen=True)
class Choice:
    """What `nodes apply` was asked for."""

    configuration: str
    nic: str = "auto"
    overlay: str = "auto"
    pods: bool = True
    own: str = ""
    lease: str = "none"
    owner: str = "nodes"


def show() -> dict[str, Any]:
    return agent.call("show")


def apply(choice: Choice, *, persist: bool = False) -> dict[str, Any]:
    """Apply a configuration to this node; persisting is not possible yet and says so."""
    if persist:
        raise Cannot("--persist: not available yet")
    known = configurations.load(choice.own or None)
    if choice.configuration not in known:
        raise BadInput(
            f"configuration: {choice.configuration!r} is unknown (known: {', '.join(known)})"
        )
    return agent.call("apply", plan=plan(known[choice.configuration], choice))


def plan(configuration: Configuration, choice: Choice) -> dict[str, Any]:
    """The plan of this node's own devices (pure but for the list of pod namespaces)."""
    devices = [Device("nic", (choice.nic,))]
    if choice.overlay != "none":
        devices.append(Device("overlay", (choice.overlay,), optional=True))
    devices.append(Device("veth", ("auto",), optional=True))
    if choice.pods:
        devices += [
            Device("pod", ("eth0",), str(path), path.name, optional=True)
            for path in sorted(Path("/run/netns").glob("cni-*"))
        ]
    return steering.plan(
        configuration,
        owner=choice.owner,
        devices=devices,
        cores=None,
        queue_core=None,
        lease_seconds=None,
    )


def restore(owner: str) -> dict[str, Any]:
    return agent.call("restore", "--owner", owner)


def text(answer: dict[str, Any]) -> str:
    """One line a queue."""
    lines = [f"rps_sock_flow_entries  {answer.get('sock_flow_entries')}"]
    lines += [
        f"{queue['device']:<16} {queue['queue']:<6} rps_cpus {queue['rps_cpus']:<10}"
        f" rps_flow_cnt {queue['rps_flow_cnt']}"
        for queue in answer.get("queues", [])
    ]
    return "\n".join(lines)
