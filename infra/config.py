"""The one place that reads pulumi.Config: the stack's name and keys become a validated state."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from agent.values import MAX_CPUS
from infra import configurations, cores, lease, untrusted
from infra.complaints import complaint, like, shown, unknown_key, whole
from infra.configurations import Configuration
from infra.cores import Cores
from infra.errors import InvalidInput, PrerequisiteMissing, Refusal

PROJECT = "steerlab"
MOST_REPLICAS = 1024

_STACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_CPU_LIMIT = re.compile(r"([0-9]+)m|([0-9]+(?:\.[0-9]+)?)")
Image = Annotated[
    str,
    like(
        r"[a-z0-9][\w./:@-]*[:@][\w.:-]+(?<!:latest)",
        "must name an image and its tag or digest, never latest",
    ),
]
Selector = Annotated[
    str,
    like(
        r"[\w./-]+=[\w.-]*(,[\w./-]+=[\w.-]*)*", "must be labels as key=value, with commas between"
    ),
]
PathOfFile = Annotated[
    str, like(r'[^"\x00-\x1f\x7f]{0,4096}', "must be a file's path without quotes or line ends")
]
_LONGEST = 1 << 16  # characters of a structured key
_CPUS = Path("/sys/devices/system/cpu")
_ROOT = Path(__file__).resolve().parent.parent
_LONGEST_LEASE = 365 * 24 * 3600


class Images(BaseModel):
    """The images of the cluster's pods; there is no default, for they run on people's nodes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iperf3: Image
    steering: Image


class Ssh(BaseModel):
    """How nodes are reached by OpenSSH; files are named, never read or kept.

    An empty word leaves the choice to ssh and its own configuration.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )

    user: Annotated[
        str, like(r"|[A-Za-z0-9_][\w.@\\-]{0,63}", "must be a user's name, or empty")
    ] = ""
    port: Annotated[int, whole(1, 65535)] = 22
    identity_file: PathOfFile = ""
    known_hosts_file: PathOfFile = ""
    config_file: PathOfFile = ""


class StackSettings(BaseModel):
    """Everything that an experiment state is; each field is a configuration key in camelCase.

    The defaults are those of Pulumi.yaml. `stack` and `steering` are not keys: they are the
    stack's name and the configuration that `configuration` names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    stack: str
    steering: Configuration

    configuration: str
    replicas: Annotated[int, whole(1, MOST_REPLICAS)]
    target: Literal["lab", "kubernetes"] = "lab"
    runs: Annotated[int, whole(0, 10_000)] = 1
    duration: Annotated[int, whole(1, 86_400)] = 10
    omit: Annotated[int, whole(0, 60)] = 1
    streams: Annotated[int, whole(1, 128)] = 1
    path: Literal["overlay", "host"] = "overlay"
    cpus: Cores | None = None
    pod_cpu_limit: str = ""
    steer_nodes: Literal["server", "both"] = "server"
    configurations: str = ""
    lease: str = "2h"
    kubeconfig: str = ""
    context: str = ""
    server_selector: Selector = "iperf=server"
    client_selector: Selector = "iperf=client"
    node_access: Literal["job", "ssh"] = "job"
    ssh: Ssh = Ssh()
    images: Images | None = None
    via: Literal["service", "pod"] = "service"
    overlay_device: Annotated[
        str, like(r"auto|[^-/\s][^/\s]{0,14}", "must be auto or a device's name")
    ] = "auto"

    @field_validator("lease")
    @classmethod
    def _lease(cls, value: str) -> str:
        if (lease.seconds(value) or 0) > _LONGEST_LEASE:
            raise ValueError(f"must be at most a year ({_LONGEST_LEASE // 3600}h), or none")
        return value

    @field_validator("pod_cpu_limit")
    @classmethod
    def _limit(cls, value: str) -> str:
        if value and not 0.01 <= cpu_limit(value) <= MAX_CPUS:
            raise ValueError(
                "must be CPUs as Kubernetes writes them (200m, 0.5), from 10m "
                f"to {MAX_CPUS}, or empty for no limit"
            )
        return value

    @property
    def cores(self) -> Cores:
        """The cores of the lab, which always has them."""
        assert self.cpus is not None  # noqa: S101
        return self.cpus

    @property
    def pod_images(self) -> Images:
        """The images of a cluster's pods, which always has them."""
        assert self.images is not None  # noqa: S101
        return self.images

    @property
    def lease_seconds(self) -> int | None:
        return lease.seconds(self.lease)

    def digest(self) -> str:
        """Hash of the whole state: the trigger of its measurement."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# What the program works out itself and no key may set.
_NOT_KEYS = {"stack", "steering"}
# Keys whose value is a mapping, with an example of it.
STRUCTURED = {
    "cpus": '{"server": [0, 1], "client": [2], "irq": 0}',
    "ssh": '{"user": "root", "identityFile": "/path/to/key"}',
    "images": '{"iperf3": "registry/iperf3:1", "steering": "registry/steering:1"}',
}
KEYS = tuple(to_camel(name) for name in StackSettings.model_fields if name not in _NOT_KEYS)


def cpu_limit(text: str) -> float:
    """CPUs of a Kubernetes quantity (`200m` is 0.2); 0 where it is not one."""
    match = _CPU_LIMIT.fullmatch(text)
    if not match:
        return 0.0
    return float(match[1]) / 1000 if match[1] else float(match[2])


def stack_name(name: str, known: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What a stack's name says: (configuration, replicas), each `None` where it says nothing.

    `rps-7-16` is rps-7 at 16 pairs. `rps-7` reads as a configuration and as rps at 7 pairs:
    `InvalidInput` gives both readings.
    """
    configuration, dash, replicas = name.rpartition("-")
    counted = bool(dash) and replicas.isdecimal() and configuration in known
    if name in known and counted:
        raise InvalidInput(
            f"stack: {name} reads as configuration {name} and as {configuration} at {replicas} "
            f"pairs: add the replicas ({name}-4), or set `configuration` and `replicas`"
        )
    if counted:
        return configuration, replicas
    return (name, None) if name in known else (None, None)


def checked(stack: str) -> str:
    """A stack's name, which becomes that of files. Raises `InvalidInput`."""
    if not _STACK.fullmatch(stack):
        raise InvalidInput(
            f"stack: {shown(stack)} must be letters, digits, dots, dashes and underscores, "
            "at most 100, a letter or digit first"
        )
    return stack


def state(
    stack: str, values: Mapping[str, str], online: tuple[int, ...] | None = None
) -> StackSettings:
    """The validated state of a stack from its configuration values (texts, keys in camelCase).

    Raises `InvalidInput` naming the key, the value and what is allowed; `PrerequisiteMissing` where the machine
    has too few cores, or lets this process use too few. `online` is this machine's cores where
    the caller knows them.
    """
    checked(stack)
    for key in values:
        if key not in KEYS:
            raise InvalidInput(unknown_key(key, KEYS))
    known = _known(values.get("configurations"))
    fields: dict[str, Any] = {key: _parsed(key, value) for key, value in values.items()}
    for key, value in _said_by(stack, fields.get("configuration"), known).items():
        fields.setdefault(key, value)
    if "configuration" not in fields:
        raise InvalidInput(
            f"stack: {stack} does not name a configuration: call it <configuration>-<replicas> "
            f"(rfs-plus-16) or set `configuration` (known: {', '.join(known)})"
        )
    if "replicas" not in fields:
        raise InvalidInput(
            f"stack: {stack} does not say how many pairs: call it "
            f"{fields['configuration']}-<replicas> or set `replicas`"
        )
    steering = known.get(fields["configuration"])
    if steering is None:
        raise InvalidInput(
            f"configuration: {shown(fields['configuration'])} is unknown "
            f"(known: {', '.join(known)})"
        )
    on_lab = fields.get("target", "lab") == "lab"
    machine = online or online_cores()
    if on_lab and "cpus" not in fields:
        fields["cpus"] = cores.share(online or _usable_cores()).model_dump()
    try:
        result = StackSettings.model_validate({**fields, "stack": stack, "steering": steering})
    except ValidationError as error:
        raise InvalidInput(complaint(error, StackSettings)) from None
    if result.duration <= result.omit:
        raise InvalidInput(
            f"duration: {result.duration} s must be longer than omit, {result.omit} s"
        )
    _check_lease(result)
    if not on_lab:
        _check_cluster(result)
    elif result.cpus is None:
        raise InvalidInput(f"cpus: must map {', '.join(Cores.model_fields)}, not None")
    else:
        _check_cores(result, result.cpus, machine)
        check_allowed(result.cpus, online or allowed_cores())
    return result


def _known(own: str | None) -> dict[str, Configuration]:
    """All configurations; the user's file is named from the project's root, as Pulumi runs there."""
    return configurations.load(_ROOT / own if own else None)


def _said_by(
    stack: str, configuration: str | None, known: Mapping[str, Configuration]
) -> dict[str, str]:
    """What the stack's name adds to the keys; with `configuration` set, the replicas alone.

    Of a name with two readings the replicas are taken only if its rest is that configuration.
    """
    if configuration is None:
        said = zip(("configuration", "replicas"), stack_name(stack, known), strict=True)
        return {key: value for key, value in said if value is not None}
    rest, dash, last = stack.rpartition("-")
    counted = dash and last.isdecimal() and (stack not in known or rest == configuration)
    return {"replicas": last} if counted else {}


def _parsed(key: str, value: str) -> Any:
    """Structured keys arrive as JSON text, the others as they are."""
    if key not in STRUCTURED:
        return value
    try:
        return untrusted.parsed(value if len(value) < _LONGEST else "")
    except ValueError:
        raise InvalidInput(f"{key}: {shown(value)} is not JSON: write {STRUCTURED[key]}") from None


def _check_lease(state: StackSettings) -> None:
    """A run renews its lease before and after its traffic, never during it."""
    around = lease.AROUND_A_RUN[state.target]
    needed = state.omit + state.duration + around
    if state.lease_seconds is not None and state.lease_seconds < needed:
        raise InvalidInput(
            f"lease: {state.lease} ends before a run does: {state.omit} + {state.duration} s of "
            f"traffic (omit, duration) and {around} s to start and end it: give at least "
            f"{needed}s, or none"
        )


def _check_cluster(state: StackSettings) -> None:
    """What the lab has and a cluster has not."""
    if state.path == "host":
        raise InvalidInput(
            "path: host is a path of the lab alone: on kubernetes it must be overlay"
        )
    if state.cpus is not None:
        raise InvalidInput("cpus: it chooses the lab's cores; a cluster's nodes use all of theirs")
    if state.images is None:
        raise InvalidInput(
            "images: is missing: target kubernetes has no default images. Build and push them with "
            "docker/build --repository REGISTRY/NAME --push, and give what it prints: "
            '-c images=\'{"iperf3": ..., "steering": ...}\''
        )


def _check_cores(state: StackSettings, cpus: Cores, online: tuple[int, ...]) -> None:
    """What no field can say alone."""
    used = {*cpus.server, *cpus.client, cpus.irq}
    if absent := sorted(used - set(online)):
        raise InvalidInput(f"cpus: core {absent[0]} is not online (online: {_listed(online)})")
    if cpus.irq not in cpus.server:
        raise InvalidInput(
            f"cpus: the irq core {cpus.irq} is not a server core ({_listed(cpus.server)})"
        )
    if state.steering.needs_cpus > max(online) + 1:
        raise InvalidInput(
            f"configuration: {state.configuration} needs {state.steering.needs_cpus} CPUs, "
            f"this machine has {_listed(online)}"
        )
    if absent := sorted(state.steering.named_cpus - set(online)):
        raise InvalidInput(
            f"configuration: {state.configuration} has a mask with core {absent[0]}, which is "
            f"not online (online: {_listed(online)})"
        )


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in numbers)


def online_cores() -> tuple[int, ...]:
    """The online CPUs of this machine (/sys/devices/system/cpu/online)."""
    return tuple(cores.listed(untrusted.words(_CPUS / "online")))


def allowed_cores() -> tuple[int, ...]:
    """The online CPUs that the kernel lets this process use: those of its cpuset.

    Its affinity may be narrower: of a process that taskset started, or where CPUs are isolated. A
    thread asks for all CPUs to see what it gets, for what the lab starts is bound in the same way.
    """

    def widest() -> set[int]:
        with suppress(OSError):
            os.sched_setaffinity(0, online_cores())
        return os.sched_getaffinity(0)

    with ThreadPoolExecutor(1) as other:
        return tuple(sorted(other.submit(widest).result()))


def check_allowed(cpus: Cores, allowed: tuple[int, ...]) -> None:
    """Raise `PrerequisiteMissing` for cores to which the kernel would not bind what the lab starts."""
    if absent := sorted({*cpus.server, *cpus.client, cpus.irq} - set(allowed)):
        raise PrerequisiteMissing(
            f"cpus: this process may not use core {absent[0]} (allowed: {_listed(allowed)}): choose "
            "others, or widen its cpuset (systemd AllowedCPUs=, docker --cpuset-cpus, cpuset.cpus)"
        )


def _usable_cores() -> tuple[int, ...]:
    """The CPUs of this process' affinity that nobody has isolated for other work."""
    files = [_CPUS / name for name in ("isolated", "nohz_full")]
    isolated = {
        core for one in files if one.exists() for core in cores.listed(untrusted.words(one))
    }
    mine = os.sched_getaffinity(0)
    return tuple(core for core in online_cores() if core in mine and core not in isolated)


def from_pulumi() -> StackSettings:
    """The state of the stack that Pulumi runs the program for."""
    import pulumi
    from pulumi.runtime.config import CONFIG

    prefix = f"{pulumi.get_project()}:"
    config = pulumi.Config()
    keys = [name.removeprefix(prefix) for name in CONFIG.get() if name.startswith(prefix)]
    return state(pulumi.get_stack(), {key: config.require(key) for key in sorted(keys)})


__all__ = ["KEYS", "PROJECT", "Refusal", "StackSettings", "from_pulumi", "online_cores", "state"]
