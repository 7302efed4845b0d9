"""The settings of a stack: its name and its configuration keys become one validated model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from agent.values import MAX_CPUS
from infra import configurations, cores, keys, lease
from infra.complaints import complaint, like, shown, unknown_key, whole
from infra.configurations import Configuration
from infra.cores import Cores
from infra.errors import InvalidInput

PROJECT = "steerlab"
MOST_REPLICAS = 1024

_STACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_CPU_LIMIT = re.compile(r"([0-9]+)m|([0-9]+(?:\.[0-9]+)?)")
_ROOT = Path(__file__).resolve().parent.parent
_LONGEST_LEASE = 365 * 24 * 3600

JSON = BeforeValidator(keys.structure)  # a mapping, or its JSON text
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
        r"[\w./-]+=[\w.-]*(,[\w./-]+=[\w.-]*)*", "must be labels as key=value, separated by commas"
    ),
]
PathOfFile = Annotated[
    str, like(r'[^"\x00-\x1f\x7f]{0,4096}', "must be a file's path without quotes or line ends")
]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, coerce_numbers_to_str=True
    )


class Images(_Model):
    """The images of the cluster's pods."""

    iperf3: Annotated[Image, Field(description="Image of the measured pods")]
    steering: Annotated[Image, Field(description="Image of the node agent")]


class Ssh(_Model):
    """How nodes are reached by OpenSSH; an empty text leaves the choice to ssh's configuration."""

    model_config = ConfigDict(populate_by_name=True)  # a measurement has them so

    user: Annotated[
        str,
        like(r"|[A-Za-z0-9_][\w.@\\-]{0,63}", "must be a user's name, or empty"),
        Field(description="User on the nodes; other users than root need sudo without a password"),
    ] = ""
    port: Annotated[int, whole(1, 65535), Field(description="Port of sshd")] = 22
    identity_file: Annotated[PathOfFile, Field(description="Private key")] = ""
    known_hosts_file: Annotated[PathOfFile, Field(description="Known host keys")] = ""
    config_file: Annotated[PathOfFile, Field(description="Configuration file of ssh")] = ""


class Lab(_Model):
    """Settings of target lab."""

    AROUND_A_RUN_S: ClassVar = 10

    path: Annotated[
        Literal["overlay", "host"],
        Field(description="Network path: the overlay, or the host's eth1 without it"),
    ] = "overlay"
    cpus: Annotated[
        Cores | None,
        JSON,
        Field(
            description="Cores of the server node, of the client node, and the one that takes the "
            "interrupts; by default this machine's are shared out",
            examples=['{"server": [0, 1], "client": [2], "irq": 0}'],
        ),
    ] = None


class Kubernetes(_Model):
    """Settings of target kubernetes."""

    AROUND_A_RUN_S: ClassVar = 60

    kubeconfig: Annotated[
        str, Field(description="Path of the kubeconfig; empty: $KUBECONFIG or ~/.kube/config")
    ] = ""
    context: Annotated[
        str, Field(description="Context of the kubeconfig; empty: its current context")
    ] = ""
    server_selector: Annotated[
        Selector, Field(description="Labels of the server nodes, which are steered and measured")
    ] = "iperf=server"
    client_selector: Annotated[Selector, Field(description="Labels of the client nodes")] = (
        "iperf=client"
    )
    node_access: Annotated[
        Literal["job", "ssh"],
        Field(description="How nodes are steered: by privileged Jobs, or over OpenSSH"),
    ] = "job"
    ssh: Annotated[
        Ssh,
        JSON,
        Field(
            description="How nodes are reached with nodeAccess ssh",
            examples=['{"user": "root", "identityFile": "/path/to/key"}'],
        ),
    ] = Ssh()
    images: Annotated[
        Images | None,
        JSON,
        Field(
            description="Images of the pods; required, docker/build prints them",
            examples=['{"iperf3": "registry/iperf3:1", "steering": "registry/steering:1"}'],
        ),
    ] = None
    via: Annotated[
        Literal["service", "pod"],
        Field(description="What clients connect to: the pod's Service, or the pod itself"),
    ] = "service"
    overlay_device: Annotated[
        str,
        like(r"auto|[^-/\s][^/\s]{0,14}", "must be auto or a device's name"),
        Field(description="Overlay device of the nodes; auto finds it"),
    ] = "auto"


# What a stack and a sweep have in common.
Target = Annotated[
    Literal["lab", "kubernetes"],
    Field(description="Where to run: lab (namespaces of this machine) or kubernetes (a cluster)"),
]
Replicas = Annotated[int, whole(1, MOST_REPLICAS)]
Seconds = Annotated[int, whole(1, 86_400), Field(description="Measured seconds of a run")]
Omit = Annotated[
    int, whole(0, 60), Field(description="Seconds of traffic before the measured seconds")
]
Streams = Annotated[
    int, whole(1, 128), Field(description="TCP streams of each pair (iperf3 --parallel)")
]
Quota = Annotated[
    str,
    Field(description="CPU quota of each pod as Kubernetes writes it (200m); empty: no quota"),
]


class StackSettings(_Model):
    """The settings of a stack; each field is a configuration key in camelCase.

    `stack` and `steering` are no keys: they are the stack's name and the configuration that
    `configuration` names. The mapping of another target than the stack's is not used.
    """

    stack: str
    steering: Configuration

    configuration: Annotated[
        str, Field(description="Name of a configuration; by default from the stack's name")
    ]
    replicas: Annotated[
        Replicas, Field(description="Number of pairs; by default from the stack's name")
    ]
    target: Target = "lab"
    runs: Annotated[
        int,
        whole(0, 10_000),
        Field(description="Runs that `up` makes after a change; 0 sets up and measures nothing"),
    ] = 1
    duration: Seconds = 10
    omit: Omit = 1
    streams: Streams = 1
    pod_cpu_limit: Quota = ""
    steer_nodes: Annotated[
        Literal["server", "both"],
        Field(description="Nodes that are steered: the server nodes, or both sides"),
    ] = "server"
    configurations: Annotated[
        str,
        Field(
            description="YAML file with further configurations, relative to the project's folder"
        ),
    ] = ""
    lease: Annotated[
        str,
        Field(
            description="Time after which a node restores itself if its steering was not renewed "
            "(90s, 30m, 2h), or none"
        ),
    ] = "2h"
    lab: Annotated[Lab, JSON] = Lab()
    kubernetes: Annotated[Kubernetes, JSON] = Kubernetes()

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
        assert self.lab.cpus is not None  # noqa: S101
        return self.lab.cpus

    @property
    def images(self) -> Images:
        """The images of a cluster's pods, which always has them."""
        assert self.kubernetes.images is not None  # noqa: S101
        return self.kubernetes.images

    @property
    def lease_seconds(self) -> int | None:
        return lease.seconds(self.lease)

    def digest(self) -> str:
        """Hash of the settings: the trigger of the stack's measurement.

        Flat, as the first version had them, so that its stacks are not measured again.
        """
        values = self.model_dump(mode="json")
        flat = values | values.pop("lab") | values.pop("kubernetes")
        text = json.dumps(flat, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# What the program works out itself and no key may set.
_NOT_KEYS = {"stack", "steering"}
KEYS = tuple(to_camel(name) for name in StackSettings.model_fields if name not in _NOT_KEYS)
# The mappings among them, one for each target.
SECTIONS: dict[str, type[_Model]] = {"lab": Lab, "kubernetes": Kubernetes}
# All that can be set, with the mapping's name before a dot.
ALL_KEYS = (
    *(key for key in KEYS if key not in SECTIONS),
    *(
        f"{section}.{field.alias}"
        for section, model in SECTIONS.items()
        for field in model.model_fields.values()
    ),
)


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
    stack: str, values: Mapping[str, Any], online: tuple[int, ...] | None = None
) -> StackSettings:
    """The validated settings of a stack from its configuration values.

    A key is one of `ALL_KEYS` or of the first version, its value a text or what YAML made of it.
    Raises `InvalidInput` naming the key, the value and what is allowed; `PrerequisiteMissing` where
    the machine has too few cores, or lets this process use too few. `online` is this machine's
    cores where the caller knows them.
    """
    checked(stack)
    fields = keys.document(values)
    for key in fields:
        if key not in KEYS:
            raise InvalidInput(unknown_key(key, ALL_KEYS))
    known = configurations.load(_file(fields.get("configurations")))
    for key, value in _from_name(stack, fields.get("configuration"), known).items():
        fields.setdefault(key, value)
    name = fields.get("configuration")
    if name is None:
        raise InvalidInput(
            f"stack: {stack} does not name a configuration: call it <configuration>-<replicas> "
            f"(rfs-plus-16) or set `configuration` (known: {', '.join(known)})"
        )
    if "replicas" not in fields:
        raise InvalidInput(
            f"stack: {stack} does not give the number of pairs: call it {name}-<replicas> or set "
            "`replicas`"
        )
    if (steering := known.get(str(name))) is None:
        raise InvalidInput(f"configuration: {shown(name)} is unknown (known: {', '.join(known)})")
    on_lab = fields.get("target", "lab") == "lab"
    if on_lab and keys.at(fields, ("lab", "cpus")) is None:
        share = cores.share(online or cores.usable())
        keys.put(fields, ("lab", "cpus"), share.model_dump())
    try:
        result = StackSettings.model_validate({**fields, "stack": stack, "steering": steering})
    except ValidationError as error:
        raise InvalidInput(complaint(error, StackSettings)) from None
    if result.duration <= result.omit:
        raise InvalidInput(
            f"duration: {result.duration} s must be longer than omit, {result.omit} s"
        )
    _check_lease(result)
    if on_lab:
        machine = online or cores.online()
        cores.check(result.cores, machine)
        cores.check_masks(result.steering, machine)
        cores.check_allowed(result.cores, online or cores.allowed())
    else:
        _check_cluster(result)
    return result


def _file(own: object) -> Path | None:
    """The user's configurations file, whose path starts at the project's root: Pulumi runs there."""
    return _ROOT / str(own) if own else None


def _from_name(
    stack: str, configuration: object, known: Mapping[str, Configuration]
) -> dict[str, str]:
    """What the stack's name adds to the keys; with `configuration` set, the replicas alone.

    Of a name with two readings the replicas are taken only if its rest is that configuration.
    """
    if configuration is None:
        parts = zip(("configuration", "replicas"), stack_name(stack, known), strict=True)
        return {key: value for key, value in parts if value is not None}
    rest, dash, last = stack.rpartition("-")
    counted = dash and last.isdecimal() and (stack not in known or rest == configuration)
    return {"replicas": last} if counted else {}


def _check_lease(state: StackSettings) -> None:
    """A run renews its lease before and after its traffic, never during it."""
    around: int = getattr(state, state.target).AROUND_A_RUN_S
    needed = state.omit + state.duration + around
    if state.lease_seconds is not None and state.lease_seconds < needed:
        raise InvalidInput(
            f"lease: {state.lease} is shorter than a run: {state.omit} + {state.duration} s of "
            f"traffic (omit, duration) and {around} s to start and end it: give at least "
            f"{needed}s, or none"
        )


def _check_cluster(state: StackSettings) -> None:
    """What the lab has and a cluster has not."""
    if state.lab.path == "host":
        raise InvalidInput(
            "lab.path: host exists on target lab only; on kubernetes it must be overlay"
        )
    if state.lab.cpus is not None:
        raise InvalidInput("lab.cpus: applies to target lab only; remove it for kubernetes")
    if state.kubernetes.images is None:
        raise InvalidInput(
            "kubernetes.images: is missing; there is no default. Build and push the images with "
            "docker/build --repository REGISTRY/NAME --push, and pass what it prints: "
            '-c kubernetes.images=\'{"iperf3": ..., "steering": ...}\''
        )


def from_pulumi() -> StackSettings:
    """The settings of the stack that Pulumi runs the program for."""
    import pulumi
    from pulumi.runtime.config import CONFIG

    prefix = f"{pulumi.get_project()}:"
    config = pulumi.Config()
    names = sorted(name.removeprefix(prefix) for name in CONFIG.get() if name.startswith(prefix))
    if note := keys.renamed(names):
        pulumi.log.warn(f"configuration: {note}")
    return state(pulumi.get_stack(), {name: config.require(name) for name in names})
