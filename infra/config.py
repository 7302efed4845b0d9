"""The one place that reads pulumi.Config: the stack's name and keys become a validated state."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from infra import configurations, cores
from infra.configurations import Configuration
from infra.cores import Cores
from infra.refusals import BadInput, Refusal

PROJECT = "steerlab"

_STACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_LEASE = re.compile(r"(\d+)(s|m|h)")
_CPU_LIMIT = re.compile(r"(\d+)m|(\d+(?:\.\d+)?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class State(BaseModel):
    """Everything that an experiment state is; each field is a configuration key in camelCase.

    The defaults are those of Pulumi.yaml. `stack`, `steering` and `online` are not keys: they
    are the stack's name, the configuration that `configuration` names, and this machine's cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    stack: str
    steering: Configuration

    configuration: str
    replicas: Annotated[int, Field(ge=1, le=1024)]
    target: Literal["lab"] = "lab"
    runs: Annotated[int, Field(ge=0, le=10_000)] = 1
    duration: Annotated[int, Field(ge=1, le=86_400)] = 10
    omit: Annotated[int, Field(ge=0, le=60)] = 1
    streams: Annotated[int, Field(ge=1, le=128)] = 1
    path: Literal["overlay", "host"] = "overlay"
    cpus: Cores
    pod_cpu_limit: str = ""
    steer_nodes: Literal["server", "both"] = "server"
    configurations: str = ""
    lease: str = "2h"

    @field_validator("lease")
    @classmethod
    def _lease(cls, value: str) -> str:
        if value != "none" and not (_LEASE.fullmatch(value) and int(value[:-1]) > 0):
            raise ValueError("write a number and s, m or h (2h), or none")
        return value

    @field_validator("pod_cpu_limit")
    @classmethod
    def _limit(cls, value: str) -> str:
        if value and cpu_limit(value) < 0.01:
            raise ValueError("write CPUs as Kubernetes does (200m, 0.5), at least 10m, or nothing")
        return value

    @property
    def lease_seconds(self) -> int | None:
        match = _LEASE.fullmatch(self.lease)
        return int(match[1]) * _SECONDS[match[2]] if match else None

    def digest(self) -> str:
        """Hash of the whole state: the trigger of its measurement."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# What the program works out itself and no key may set.
_NOT_KEYS = {"stack", "steering"}
KEYS = tuple(to_camel(name) for name in State.model_fields if name not in _NOT_KEYS)


def cpu_limit(text: str) -> float:
    """CPUs of a Kubernetes quantity (`200m` is 0.2); 0 where it is not one."""
    match = _CPU_LIMIT.fullmatch(text)
    if not match:
        return 0.0
    return int(match[1]) / 1000 if match[1] else float(match[2])


def stack_name(name: str, known: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What a stack's name says: (configuration, replicas), each `None` where it says nothing.

    `rps-7-16` is rps-7 at 16 pairs. `rps-7` reads as a configuration and as rps at 7 pairs:
    `BadInput` gives both readings.
    """
    configuration, dash, replicas = name.rpartition("-")
    counted = bool(dash) and replicas.isdecimal() and configuration in known
    if name in known and counted:
        raise BadInput(
            f"stack: {name} reads as configuration {name} and as {configuration} at {replicas} "
            f"pairs: add the replicas ({name}-4), or set `configuration` and `replicas`"
        )
    if counted:
        return configuration, replicas
    return (name, None) if name in known else (None, None)


def state(stack: str, values: Mapping[str, str], online: tuple[int, ...] | None = None) -> State:
    """The validated state of a stack from its configuration values (texts, keys in camelCase).

    Raises `BadInput` naming the key, the value and what is allowed; `Cannot` where the machine
    has too few cores. `online` is this machine's cores where the caller knows them.
    """
    if not _STACK.fullmatch(stack):
        raise BadInput(f"stack: {stack!r} must be letters, digits, dots, dashes and underscores")
    for key in values:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise BadInput(f"{key}: unknown key{hint} (known: {', '.join(sorted(KEYS))})")
    known = configurations.load(values.get("configurations"))
    fields: dict[str, Any] = {key: _parsed(key, value) for key, value in values.items()}
    if "configuration" in fields:
        _, dash, last = stack.rpartition("-")
        counted = last if dash and last.isdecimal() and stack not in known else None
        named: tuple[str | None, str | None] = (None, counted)
    else:
        named = stack_name(stack, known)
    for key, value in zip(("configuration", "replicas"), named, strict=True):
        if value is not None:
            fields.setdefault(key, value)
    if "configuration" not in fields:
        raise BadInput(
            f"stack: {stack} does not name a configuration: call it <configuration>-<replicas> "
            f"(rfs-plus-16) or set `configuration` (known: {', '.join(known)})"
        )
    if "replicas" not in fields:
        raise BadInput(
            f"stack: {stack} does not say how many pairs: call it "
            f"{fields['configuration']}-<replicas> or set `replicas`"
        )
    steering = known.get(fields["configuration"])
    if steering is None:
        raise BadInput(
            f"configuration: {fields['configuration']!r} is unknown (known: {', '.join(known)})"
        )
    machine = online or online_cores()
    fields.setdefault("cpus", cores.share(machine).model_dump())
    try:
        result = State.model_validate({**fields, "stack": stack, "steering": steering})
    except ValidationError as error:
        raise _explained(error, fields) from None
    _check_together(result, machine)
    return result


def _parsed(key: str, value: str) -> Any:
    """Structured keys arrive as JSON text, the others as they are."""
    if key != "cpus":
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise BadInput(
            f'{key}: {value!r} is not JSON: write {{"server": [0, 1], "client": [2], "irq": 0}}'
        ) from None


def _explained(error: ValidationError, fields: Mapping[str, Any]) -> BadInput:
    first = error.errors()[0]
    key = str(first["loc"][0])
    where = ".".join(str(part) for part in first["loc"])
    return BadInput(f"{where}: {_message(first['msg'])}, not {fields.get(key)!r}")


def _message(text: str) -> str:
    """Pydantic's sentence without its prefix, to stand in the middle of ours."""
    text = text.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _check_together(state: State, online: tuple[int, ...]) -> None:
    """What no field can say alone."""
    if state.duration <= state.omit:
        raise BadInput(f"duration: {state.duration} s must be longer than omit, {state.omit} s")
    used = {*state.cpus.server, *state.cpus.client, state.cpus.irq}
    if absent := sorted(used - set(online)):
        raise BadInput(f"cpus: core {absent[0]} is not online (online: {_listed(online)})")
    if state.cpus.irq not in state.cpus.server:
        raise BadInput(
            f"cpus: the irq core {state.cpus.irq} is not a server core "
            f"({_listed(state.cpus.server)})"
        )
    if state.steering.needs_cpus > max(online) + 1:
        raise BadInput(
            f"configuration: {state.configuration} needs {state.steering.needs_cpus} CPUs, "
            f"this machine has {_listed(online)}"
        )


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in numbers)


def online_cores() -> tuple[int, ...]:
    """The online CPUs of this machine (/sys/devices/system/cpu/online)."""
    text = Path("/sys/devices/system/cpu/online").read_text().strip()
    cores: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores.extend(range(int(first), int(last or first) + 1))
    return tuple(cores)


def from_pulumi() -> State:
    """The state of the stack that Pulumi runs the program for."""
    import pulumi
    from pulumi.runtime.config import CONFIG

    prefix = f"{pulumi.get_project()}:"
    config = pulumi.Config()
    keys = [name.removeprefix(prefix) for name in CONFIG.get() if name.startswith(prefix)]
    return state(pulumi.get_stack(), {key: config.require(key) for key in sorted(keys)})


__all__ = ["KEYS", "PROJECT", "Refusal", "State", "from_pulumi", "online_cores", "state"]
