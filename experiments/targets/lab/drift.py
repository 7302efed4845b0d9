"""Drift of a lab, missing or changed parts: the URNs to replace.

Pulumi compares inputs, not the machine. Each lab command prints what it created; the checkpoint keeps
this output, and it is compared with the machine here.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from agent.knobs import KNOBS, EthtoolFeature
from analysis.schema import Machine
from experiments.host import calls, machine
from experiments.targets.contract import Drift
from infra import untrusted
from infra.lab import layout
from infra.lab.layout import netns
from infra.settings import Form

Describe = Callable[[str, Sequence[str]], Machine]

OFFLOADS = {name for name, knob in KNOBS.items() if isinstance(knob.access, EthtoolFeature)}
_CLONE_NEWNET = 0x40000000


def drifted(
    resources: Iterable[Mapping[str, Any]],
    links: Callable[[str], set[str] | None] | None = None,
    verify: Callable[[str], Sequence[str]] | None = None,
    devices: Describe = machine.of_node,
) -> list[Drift]:
    """The drift of the resources of a checkpoint.

    `links` lists the devices of a namespace (None: it does not exist), `verify` the drift of an
    owner's steering, `devices` describes devices of a namespace; the defaults look at this machine.
    """
    look = links or links_of
    ask = verify or _steering_drift
    facts = {resource["urn"]: _facts(resource) for resource in resources}
    steering = {urn: one for urn, one in facts.items() if isinstance(one, _Steered)}
    # the agent verifies what it has set
    set_by_agent = {place for one in steering.values() for place in one.with_offloads}
    found: list[Drift] = []
    rebuilt = False
    for urn, one in facts.items():
        if isinstance(one, _Steered):
            continue
        if why := _missing(one, look):
            found.append(Drift(urn, why))
            rebuilt = rebuilt or bool(one.namespaces)
        elif why := _altered(one, set_by_agent, devices):
            found.append(Drift(urn, why))
    if not rebuilt:
        # recreated devices are steered with their namespaces
        for urn, one in steering.items():
            if words := ask(one.owner):
                found.append(Drift(urn, "; ".join(words), one.owner))
    return found


def _facts(resource: Mapping[str, Any]) -> _Created | _Steered:
    stdout = resource.get("outputs", {}).get("stdout")
    if resource.get("type") != "command:local:Command" or resource.get("delete") or not stdout:
        return _Created()
    try:
        return _FACTS.validate_python(untrusted.parsed(str(stdout)))
    except ValueError:
        return _Created()


class _Created(BaseModel):
    """Output of a lab command: the created parts, and the receive queues of devices with several."""

    namespaces: dict[str, list[str]] = {}
    queues: dict[str, dict[str, int]] = {}
    form: Form = "study"
    process: str | None = None
    file: str | None = None


class _Steered(BaseModel):
    """Output of the agent: whose steering it applied, and to which queues."""

    owner: str
    queues: list[Any]
    devices: list[dict[str, Any]] = []

    @property
    def with_offloads(self) -> set[tuple[Any, Any]]:
        """The namespaces and devices of which it has set an offload."""
        return {
            (row.get("namespace"), row.get("device"))
            for row in self.devices
            if OFFLOADS & row.keys()
        }


_FACTS: TypeAdapter[_Steered | _Created] = TypeAdapter(_Steered | _Created)


def _missing(facts: _Created, look: Callable[[str], set[str] | None]) -> str:
    for namespace, devices in facts.namespaces.items():
        standing = look(namespace)
        if standing is None:
            return f"namespace {namespace} no longer exists"
        if absent := set(devices) - standing:
            return f"{sorted(absent)[0]} of {namespace} no longer exists"
    if facts.process and not alive(Path(facts.process)):
        return "the server of the pair has ended"
    if facts.file and not Path(facts.file).exists():
        return f"{facts.file} no longer exists"
    return ""


def _altered(facts: _Created, set_by_agent: Collection[tuple[Any, Any]], describe: Describe) -> str:
    """Why devices are no longer those of the form of the lab, or have another number of queues."""
    offloads = layout.OFFLOADS[facts.form]
    for namespace, names in facts.namespaces.items():
        if not (own := offloads.keys() & {*names}):
            continue
        now = describe(namespace, sorted(own))
        for device in sorted(own):
            wanted = facts.queues.get(namespace, {}).get(device)
            if wanted and now.queues[device] != wanted:
                return (
                    f"{device} of {namespace} has {now.queues[device]} receive queues, not {wanted}"
                )
            if (netns(namespace), device) in set_by_agent:
                continue
            for name, on in offloads[device].items():
                if now.offloads[device][name] != on:
                    state = "on" if now.offloads[device][name] else "off"
                    return (
                        f"{name} of {device} in {namespace} is {state}: not the form {facts.form}"
                    )
    return ""


def alive(pidfile: Path) -> bool:
    """Whether the process of a pid file, `pid start-time`, still runs."""
    try:
        pid, start = untrusted.words(pidfile).split()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return False
    # fields 3 and 22 of proc_pid_stat(5): the state and the start time
    return fields[0] not in "ZX" and fields[19] == start


def links_of(namespace: str) -> set[str] | None:
    """The devices of a named network namespace; None where it does not exist."""
    with ThreadPoolExecutor(max_workers=1) as visitor:
        # setns affects one thread, which ends afterwards
        return visitor.submit(_visit, netns(namespace)).result()


def _visit(path: str) -> set[str] | None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            return None
        return {name for _, name in socket.if_nameindex()}
    finally:
        os.close(descriptor)


def restore(drift: Iterable[Drift]) -> None:
    """Restore drifted steering before it is applied again, also values that others have written.

    The restore of the replacement keeps such values, and the next snapshot would record them as the
    original ones. Raises `Refusal` where the agent fails.
    """
    for found in drift:
        if found.owner:
            calls.call("restore", "--owner", found.owner, "--force")


def _steering_drift(owner: str) -> list[str]:
    try:
        answer = calls.call("verify", "--owner", owner, "--saved")
    except calls.AgentFailed as error:
        return [str(error)]
    return [drift if isinstance(drift, str) else drift["message"] for drift in answer["drift"]]
