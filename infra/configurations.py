"""Configurations: named sets of settings, read from YAML. The code contains none."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)

from agent.codecs import Count, Switch
from agent.knobs import DEVICE, KNOBS, MACHINE, NAMESPACE, RX_QUEUE, TX_QUEUE, Knob, of_scope
from agent.plan import ALIASES, MACHINE_ALIASES
from agent.values import WORDS, cpus_of, parse_mask
from infra import yaml_files
from infra.complaints import complaint, shown, unknown_key, whole
from infra.errors import InvalidInput

BUILT_IN = Path(__file__).with_name("configurations.yaml")

Role = Literal["nic", "overlay", "veth", "pod"]
ROLES: tuple[Role, ...] = ("nic", "overlay", "veth", "pod")

# Knobs that every configuration sets. All others are left alone where they are not named.
_ALWAYS: dict[str, str | int] = {"rps_cpus": "none", "rps_flow_cnt": 0, "rps_sock_flow_entries": 0}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    aliases: ClassVar[dict[str, str]] = {}  # keys of the first version

    @model_validator(mode="before")
    @classmethod
    def _by_their_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for old, name in cls.aliases.items():
            if name in values and old in values:
                raise ValueError(f"{name} and {old} are one setting: give one of them")
        return {cls.aliases.get(key, key): value for key, value in values.items()}


class Settings(_Model):
    """The knobs of one kind of device, or of the machine, each with its word."""

    aliases: ClassVar[dict[str, str]] = {**ALIASES, **MACHINE_ALIASES}

    @property
    def knobs(self) -> dict[str, str | int]:
        """The word of each knob that is set."""
        return {name: word for name, word in self if word is not None}

    @property
    def masks(self) -> list[str]:
        return [str(word) for name, word in self.knobs.items() if KNOBS[name].codec.is_mask]

    @property
    def named_cpus(self) -> frozenset[int]:
        """The CPUs that explicit masks name; none for a word."""
        bits = [parse_mask(mask) for mask in self.masks if mask not in WORDS]
        return frozenset(cpu for one in bits for cpu in cpus_of(one))


def _field(knob: Knob) -> tuple[Any, Any]:
    """The type of a knob's word and its default; None leaves the knob alone."""
    codec, default = knob.codec, _ALWAYS.get(knob.name)
    if isinstance(codec, Count) and not codec.power:
        return Annotated[int, whole(codec.low, codec.high)], default

    def word(value: object) -> object:
        if not codec.check(value):
            quotes = "in quotes: " if codec.is_mask and not isinstance(value, str) else ""
            raise ValueError(f"must be {quotes}{codec.words}")
        return codec.word(value) if isinstance(codec, Switch) else value

    return Annotated[int if isinstance(codec, Count) else str, BeforeValidator(word)], default


def _settings(name: str, *scopes: str) -> type[Settings]:
    """A key for each knob of some scopes."""
    fields: dict[str, Any] = {knob.name: _field(knob) for knob in of_scope(*scopes)}
    return create_model(name, __base__=Settings, **fields)


if TYPE_CHECKING:
    DeviceSettings = Settings
    NamespaceSettings = Settings
    MachineSettings = Settings
else:
    DeviceSettings = _settings("DeviceSettings", RX_QUEUE, TX_QUEUE, DEVICE)
    # of the one device that each network namespace has
    NamespaceSettings = _settings("NamespaceSettings", RX_QUEUE, TX_QUEUE, DEVICE, NAMESPACE)
    MachineSettings = _settings("MachineSettings", MACHINE)


class Configuration(_Model):
    """One named steering of a node."""

    name: str
    summary: str = ""
    nic: NamespaceSettings = NamespaceSettings()
    overlay: DeviceSettings = DeviceSettings()
    veth: DeviceSettings = DeviceSettings()
    pod: NamespaceSettings = NamespaceSettings()
    machine: MachineSettings = MachineSettings()

    @model_validator(mode="before")
    @classmethod
    def _of_the_machine(cls, values: Any) -> Any:
        """The first version had the machine's one knob beside the devices."""
        old = {key: values[key] for key in MACHINE_ALIASES if key in values}
        if not old:
            return values
        machine = values.get("machine", {})
        if isinstance(machine, dict) and (twice := next(iter(old.keys() & machine.keys()), None)):
            raise ValueError(f"{twice} is given twice, in machine too: remove one of them")
        rest = {key: value for key, value in values.items() if key not in old}
        return {**rest, "machine": {**machine, **old} if isinstance(machine, dict) else machine}

    def settings(self, role: Role) -> Settings:
        device: Settings = getattr(self, role)
        return device

    @property
    def described(self) -> str:
        """The summary, with the settings that not every configuration has."""
        more = [
            f"{role} {name}={word}"
            for role in (*ROLES, "machine")
            for name, word in getattr(self, role).knobs.items()
            if name not in _ALWAYS
        ]
        return "; ".join([self.summary, *more] if self.summary else more)

    @model_serializer
    def _document(self) -> dict[str, Any]:
        """By the keys of the first version: hashes in records and states are of this text."""
        names = {name: old for old, name in Settings.aliases.items()}

        def keyed(settings: Settings) -> dict[str, Any]:
            return {names.get(name, name): word for name, word in settings.knobs.items()}

        devices = {str(role): keyed(self.settings(role)) for role in ROLES}
        head = {"name": self.name, "summary": self.summary}
        return {**head, **devices, **keyed(self.machine)}

    @property
    def definition(self) -> str:
        """Hash of the settings: a user's file may change."""
        document = self.model_dump()
        del document["summary"]
        text = json.dumps(document, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def named_cpus(self) -> frozenset[int]:
        """The CPUs that explicit masks name."""
        every = (*map(self.settings, ROLES), self.machine)
        return frozenset().union(*(settings.named_cpus for settings in every))

    @property
    def needs_cpus(self) -> int:
        """The number of CPUs that a machine must have for every mask and stage to exist."""
        staged = any("last" in self.settings(role).masks for role in ROLES)
        return max(2 if staged else 1, *(cpu + 1 for cpu in self.named_cpus), 1)


def load(own: str | Path | None = None) -> dict[str, Configuration]:
    """The built-in configurations and, over them, those of the user's file.

    Raises `InvalidInput` that names the file, the configuration and the key.
    """
    configurations = dict(_built_in())
    if own:
        configurations |= _read(Path(own))
    return configurations


@cache
def _built_in() -> dict[str, Configuration]:
    return _read(BUILT_IN)


def _read(path: Path) -> dict[str, Configuration]:
    try:
        document = yaml_files.read(path, "configurations")
    except FileNotFoundError:
        raise InvalidInput(f"configurations: there is no file {path}") from None
    if not isinstance(document, dict) or not document:
        raise InvalidInput(
            f"configurations: {path} must map names to steering, as {BUILT_IN.name} does"
        )
    return {name: _configuration(path, name, body) for name, body in document.items()}


def _configuration(path: Path, name: object, body: object) -> Configuration:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"configurations: {path}: the name {shown(name)} must be lower-case words and numbers "
            "joined by dashes (rps-quick), in quotes where YAML reads something else"
        )
    keys = [key for key in Configuration.model_fields if key != "name"]
    known = [*keys, *MACHINE_ALIASES]
    values = {} if body is None else body
    if not isinstance(values, dict):
        raise InvalidInput(
            f"configurations: {path}: {name}: must map {', '.join(keys)}, not {shown(body)}"
        )
    for key in values:
        if key not in known:
            raise InvalidInput(f"configurations: {path}: {name}.{unknown_key(key, known)}")
    try:
        return Configuration.model_validate({**values, "name": name})
    except ValidationError as error:
        raise InvalidInput(
            f"configurations: {path}: {name}.{complaint(error, Configuration)}"
        ) from None
