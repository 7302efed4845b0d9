"""The settings of a stack, as models: allowed values, default and purpose of each key.

`docs/configuration.md`, `Pulumi.yaml` and the options of a sweep are derived from them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from agent.values import MAX_CPUS
from infra import cores, keys, lease, traffic
from infra.complaints import like, whole
from infra.configurations import Configuration
from infra.cores import Cores
from infra.errors import InvalidInput
from infra.traffic import DEFAULT, Named
from infra.traffic.contract import MOST_STREAMS, Kind

MOST_REPLICAS = 1024
MOST_PAIRS = MOST_REPLICAS + 1  # with one of another kind beside them
MOST_QUEUES = 64

_CPU_LIMIT = re.compile(r"([0-9]+)m|([0-9]+(?:\.[0-9]+)?)")
_LONGEST_LEASE = 365 * 24 * 3600
_FIRST_IMAGES = {"iperf3": "steerlab/iperf3:1", "steering": "steerlab/steering:1"}

JSON = BeforeValidator(keys.structure)  # a mapping, or its JSON text
_IMAGE = r"[a-z0-9][\w./:@-]*[:@][\w.:-]+(?<!:latest)"
_LABELS = r"[\w./-]+=[\w.-]*(,[\w./-]+=[\w.-]*)*"
_DNS = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_NAME = r"[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?"
Image = Annotated[str, like(_IMAGE, "must name an image and its tag or digest, never latest")]
Selector = Annotated[str, like(_LABELS, "must be labels as key=value, separated by commas")]
PathOfFile = Annotated[
    str, like(r'[^"\x00-\x1f\x7f]{0,4096}', "must be a file's path without quotes or line ends")
]

# Keys of labels and annotations; those with these prefixes are the stack's own.
_Key = Annotated[
    str,
    like(
        rf"(?!steerlab/|app\.kubernetes\.io/name$)({_DNS}/)?{_NAME}",
        "must be a key as Kubernetes has them, which steerlab does not set itself",
    ),
]
ASSIGNED = "assigned"  # a user id that is not the stack's choice
_LAST_UID = 2**31 - 1
_UID = TypeAdapter(Annotated[int, whole(1, _LAST_UID)])

DeviceName = Annotated[str, like(r"auto|[^-/\s][^/\s]{0,14}", "must be auto or a device's name")]

Form = Literal["study", "stock"]  # of the lab
Pairing = Literal["round-robin", "mesh"]  # of server and client nodes


class _Model(BaseModel):
    """The text below a field is its description in the docs and in `Pulumi.yaml`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        coerce_numbers_to_str=True,
        use_attribute_docstrings=True,
    )


class Images(_Model):
    """The images of the cluster's pods."""

    iperf3: Image
    steering: Image
    rr: Image | None = Field(default=None, exclude_if=lambda image: image is None)


class Ssh(_Model):
    """How nodes are reached by OpenSSH; an empty text leaves the choice to ssh's configuration."""

    model_config = ConfigDict(populate_by_name=True)  # a measurement has them so

    user: Annotated[
        str, like(r"|[A-Za-z0-9_][\w.@\\-]{0,63}", "must be a user's name, or empty")
    ] = ""
    """User on the nodes; other users than root need sudo without a password"""
    port: Annotated[int, whole(1, 65535)] = 22
    """Port of sshd"""
    identity_file: PathOfFile = ""
    """Private key"""
    known_hosts_file: PathOfFile = ""
    """Known host keys"""
    config_file: PathOfFile = ""
    """Configuration file of ssh"""


class Toleration(_Model):
    """A toleration as Kubernetes writes it; an empty effect tolerates all effects."""

    key: Annotated[str, like(rf"|({_DNS}/)?{_NAME}", "must be the key of a taint, or empty")] = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: Annotated[str, like(rf"|{_NAME}", "must be the value of a taint, or empty")] = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    @model_validator(mode="after")
    def _is_complete(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError(
                "has a value, which operator Exists does not compare: remove one of them"
            )
        if self.operator == "Equal" and not self.key:
            raise ValueError("needs a key, or operator Exists for all taints")
        return self


def _user(value: object) -> int | str:
    """The key `runAsUser`."""
    if value == ASSIGNED:
        return ASSIGNED
    try:
        return _UID.validate_python(value)
    except ValidationError:
        raise ValueError(f"must be a whole number from 1 to {_LAST_UID}, or {ASSIGNED}") from None


class PodOptions(_Model):
    """What a cluster demands of pods; `tolerations` and `run_as_user` are of the measured pods alone."""

    model_config = ConfigDict(populate_by_name=True)  # a finalizer has them so

    tolerations: tuple[Toleration, ...] = Field(
        default=(), examples=['[{"key": "dedicated", "value": "net", "effect": "NoSchedule"}]']
    )
    """Tolerations of the measured pods; agents tolerate all taints"""
    image_pull_secrets: tuple[
        Annotated[str, like(rf"{_DNS}/{_DNS}", "must be a Secret as NAMESPACE/NAME")], ...
    ] = Field(default=(), examples=['["default/registry"]'])
    """Secrets for the images, as NAMESPACE/NAME; copied to the stack's own namespaces, not to an existing one"""
    labels: dict[_Key, Annotated[str, like(rf"|{_NAME}", "must be a label's value")]] = Field(
        default={}, examples=['{"team": "net"}']
    )
    """More labels of all pods"""
    annotations: dict[_Key, str] = Field(
        default={}, examples=['{"sidecar.istio.io/inject": "false"}']
    )
    """More annotations of all pods"""
    priority_class: Annotated[str, like(rf"|{_DNS}", "must be a PriorityClass, or empty")] = ""
    """PriorityClass of all pods"""
    run_as_user: Annotated[int | str, BeforeValidator(_user)] = 65532
    """User id of the measured pods, or assigned: the cluster (OpenShift) or the image chooses it"""


class Lab(_Model):
    """Settings of target lab."""

    AROUND_A_RUN_S: ClassVar = 10

    path: Literal["overlay", "host"] = "overlay"
    """Network path: the overlay, or the host's eth1 without it"""
    cpus: Annotated[Cores | None, JSON] = Field(
        default=None, examples=['{"server": [0, 1], "client": [2], "irq": 0}']
    )
    """Cores of the server node and of the client node, and that of the interrupts; default: a division of all"""
    form: Form = Field(default="study", exclude_if=lambda form: form == "study")
    """study: segmentation offloads and GRO are off on eth1, GRO is off on the overlay; stock: offloads and
    GRO are the kernel's defaults"""
    queues: Annotated[int, whole(1, MOST_QUEUES)] = Field(
        default=1, exclude_if=lambda number: number == 1
    )
    """Receive queues of the server's eth1, each on a core of its own; flows spread over them by hash (RSS)"""

    def complete(self, online: tuple[int, ...] | None) -> Lab:
        """With the default cores of this machine; `online` where the caller knows its cores."""
        default = self.cpus or cores.share(online or cores.usable())
        return self.model_copy(update={"cpus": default})

    def check(self, settings: StackSettings, online: tuple[int, ...] | None) -> None:
        """Raise `InvalidInput` for cores that the machine lacks, `PrerequisiteMissing` for others' cores."""
        machine = online or cores.online()
        cores.check(settings.cores, machine)
        if self.queues > (most := len(settings.cores.server)):
            raise InvalidInput(
                f"lab.queues: {self.queues} queues need as many server cores, and there are {most}: set "
                "lab.queues to at most that, or lab.cpus"
            )
        if self.queues > 1:
            _check_queues(settings)
        cores.check_masks(settings.steering, machine)
        cores.check_allowed(settings.cores, online or cores.allowed())


def _check_queues(settings: StackSettings) -> None:
    """Raise `InvalidInput` for a configuration that changes how flows spread over the queues of the lab's NIC."""
    knobs, name = settings.steering.nic.knobs, settings.configuration
    if settings.steer_nodes == "both" and "xps_cpus" in knobs:
        raise InvalidInput(
            f"lab.queues: XPS of the client's eth1 chooses the queues of the server, and configuration "
            f"{name} sets it: set steerNodes to server, or lab.queues to 1"
        )
    if "rx_queues" in knobs:
        raise InvalidInput(
            "lab.queues: each queue of the server's eth1 is an entry of the NIC's table of hashes, and "
            f"configuration {name} sets rx_queues: remove that from it, or set lab.queues to 1"
        )


class Kubernetes(_Model):
    """Settings of target kubernetes."""

    AROUND_A_RUN_S: ClassVar = 60

    kubeconfig: str = ""
    """Path of the kubeconfig; empty: $KUBECONFIG or ~/.kube/config"""
    context: str = ""
    """Context of the kubeconfig; empty: its current context"""
    namespace: Annotated[
        str, like(r"|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "must be a namespace's name, or empty")
    ] = Field(default="", exclude_if=lambda name: not name)
    """An existing namespace for all objects of the stack, which keeps it; empty: namespaces of the stack's own"""
    server_selector: Selector = "iperf=server"
    """Labels of the server nodes, which are steered and measured"""
    client_selector: Selector = "iperf=client"
    """Labels of the client nodes"""
    pairing: Pairing = Field(default="round-robin", exclude_if=lambda one: one == "round-robin")
    """How pairs are spread over nodes: round-robin on each side; mesh: every server node with every client node"""
    node_access: Literal["job", "ssh"] = "job"
    """How nodes are steered: by privileged pods (job), or over OpenSSH (ssh)"""
    ssh: Annotated[Ssh, JSON] = Field(
        default=Ssh(), examples=['{"user": "root", "identityFile": "/path/to/key"}']
    )
    """How nodes are reached with nodeAccess ssh"""
    images: Annotated[Images | None, JSON] = Field(
        default=None,
        examples=['{"iperf3": "registry/iperf3:1", "steering": "registry/steering:1"}'],
    )
    """Images of the measured pods and the node agent, as docker/build prints them; `rr` for traffic rr and mixed"""
    via: Literal["service", "pod"] = "service"
    """What clients connect to: the pod's Service, or the pod itself"""
    nic: DeviceName = Field(default="auto", exclude_if=lambda name: name == "auto")
    """NIC of the nodes, or a bond, VLAN or bridge on it; auto finds it by the routes to the other nodes' pods"""
    overlay_device: DeviceName = "auto"
    """Tunnel device of the nodes, or none; auto finds it by the same routes, where there may be none"""
    pods: Annotated[PodOptions, JSON] = Field(
        default=PodOptions(),
        exclude_if=lambda options: options == PodOptions(),
        examples=['{"runAsUser": "assigned", "priorityClass": "batch"}'],
    )
    """What the cluster demands of pods"""

    def complete(self, online: tuple[int, ...] | None) -> Kubernetes:
        del online  # a cluster's nodes use all of their cores
        return self

    def check(self, settings: StackSettings, online: tuple[int, ...] | None) -> None:
        """Raise `InvalidInput` for settings of the lab, and where the images are missing."""
        del online
        if settings.lab.path == "host":
            raise InvalidInput(
                "lab.path: host exists on target lab only; on kubernetes it must be overlay"
            )
        for field in settings.lab.model_fields_set - {"path"}:
            if getattr(settings.lab, field) != Lab.model_fields[field].default:
                raise InvalidInput(
                    f"lab.{field}: applies to target lab only; remove it for kubernetes"
                )
        if self.images is None:
            raise InvalidInput(
                "kubernetes.images: is missing; there is no default. Build and push the images "
                "with docker/build --repository REGISTRY/NAME --push, and pass what it prints: "
                '-c kubernetes.images=\'{"iperf3": ..., "steering": ...}\''
            )
        for kind in settings.pairs.values():
            if not getattr(self.images, kind.image):
                raise InvalidInput(
                    f"kubernetes.images: has no {kind.image}, the image for traffic {kind.name}: "
                    "docker/build builds it, and prints it with the others"
                )


# What a stack and a sweep have in common.
Replicas = Annotated[int, whole(1, MOST_REPLICAS)]
Seconds = Annotated[int, whole(1, 86_400), Field(description="Measured seconds of a run")]
Omit = Annotated[int, whole(0, 60), Field(description="Seconds of traffic before the measurement")]
Streams = Annotated[int, whole(1, MOST_STREAMS), Field(description="Connections of each pair")]
Quota = Annotated[
    str, Field(description="CPU quota of each pod as Kubernetes writes it (200m); empty: no quota")
]


class StackSettings(_Model):
    """The settings of a stack; each field is a configuration key in camelCase.

    `stack` and `steering` are no keys: they are the stack's name and the configuration that
    `configuration` names. The mapping of another target than the stack's is not used.
    """

    stack: str
    steering: Configuration

    configuration: str
    """Name of a configuration; by default from the stack's name"""
    replicas: Replicas
    """Number of pairs; by default from the stack's name"""
    target: Literal["lab", "kubernetes"] = "lab"
    """Where to run: lab (namespaces of this machine) or kubernetes (a cluster)"""
    runs: Annotated[int, whole(0, 10_000)] = 1
    """Runs that `up` makes after a change; 0 sets up and measures nothing"""
    duration: Seconds = 10
    omit: Omit = 1
    streams: Streams = 1
    traffic: Named = DEFAULT
    pod_cpu_limit: Quota = ""
    steer_nodes: Literal["server", "both"] = "server"
    """Nodes that are steered: the server nodes, or server and client nodes"""
    configurations: str = ""
    """YAML file with further configurations, relative to the project's folder"""
    lease: str = "2h"
    """Time after which a node restores itself, unless its steering is renewed: 90s, 30m, 2h, or
    none"""
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
    def pairs(self) -> Mapping[int, Kind]:
        """The kind of traffic of each pair, by index."""
        return traffic.of(self.traffic).pairs(self.replicas)

    @property
    def section(self) -> Lab | Kubernetes:
        """The settings of the target."""
        section: Lab | Kubernetes = getattr(self, self.target)
        return section

    @property
    def cores(self) -> Cores:
        """The cores of the lab, which always has them."""
        assert self.lab.cpus is not None  # noqa: S101
        return self.lab.cpus

    @property
    def queue_cores(self) -> tuple[int, ...]:
        """The core of each receive queue of the lab's NIC."""
        return self.cores.of_queues(self.lab.queues)

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

        Of the form that they had in the first version, so that its stacks are not measured again:
        without a mapping for each target, with images also for the lab, with no later knobs.
        """
        values = self.model_dump(mode="json")
        flat = {**values.pop("lab"), **values.pop("kubernetes"), **values}
        flat["images"] = flat["images"] or _FIRST_IMAGES
        flat["steering"] = self.steering.model_dump(mode="json", exclude_none=True)
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
    if not (match := _CPU_LIMIT.fullmatch(text)):
        return 0.0
    return float(match[1]) / 1000 if match[1] else float(match[2])
