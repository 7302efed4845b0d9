"""Configurations: steering by name, read as data from YAML; none is known to the code."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    create_model,
    model_validator,
)

from agent.knobs import KNOBS, MACHINE, MAX_FLOWS, MAX_SOCK_FLOWS
from agent.values import MASK, MAX_CPUS, WORDS, cpus_of, parse_mask
from infra import yaml_files
from infra.complaints import complaint, shown, unknown_key, whole
from infra.errors import InvalidInput

BUILT_IN = Path(__file__).with_name("configurations.yaml")

Role = Literal["nic", "overlay", "veth", "pod"]
ROLES: tuple[Role, ...] = ("nic", "overlay", "veth", "pod")

_WORDS_OR_MASK = f"{', '.join(WORDS)} or a hexadecimal mask as rps_cpus has it (7 or 1,00000000)"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _word_or_mask(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"must be in quotes: one of {_WORDS_OR_MASK}")
    if value in WORDS:
        return value
    if not re.fullmatch(MASK, value):
        raise ValueError(f"must be one of {_WORDS_OR_MASK}")
    if parse_mask(value).bit_length() > MAX_CPUS:
        raise ValueError(f"must be a mask of at most {MAX_CPUS} CPUs")
    return value


Mask = Annotated[str, BeforeValidator(_word_or_mask)]
# The first two knobs have had keys of their own, and are always written.
_OLD = {"rps_cpus": "cpus", "rps_flow_cnt": "flows"}
_LATER = {name: knob for name, knob in KNOBS.items() if name not in _OLD and knob.scope != MACHINE}


class _DeviceSteering(_Model):
    """What every queue of a device is to have: `rps_cpus` and `rps_flow_cnt` always, others where named."""

    cpus: Mask = "none"
    flows: Annotated[int, whole(0, MAX_FLOWS)] = 0

    @model_validator(mode="before")
    @classmethod
    def _names_of_the_kernel(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name, old in _OLD.items():
            if name in values and old in values:
                raise ValueError(f"{name} and {old} are one setting: give either")
        return {_OLD.get(key, key): value for key, value in values.items()}

    @property
    def knobs(self) -> dict[str, str | int]:
        """The word of each knob that is set."""
        later = {name: getattr(self, name, None) for name in _LATER}
        both = {"rps_cpus": self.cpus, "rps_flow_cnt": self.flows, **later}
        return {name: word for name, word in both.items() if word is not None}

    @property
    def masks(self) -> list[str]:
        return [str(word) for name, word in self.knobs.items() if KNOBS[name].codec.is_mask]

    @property
    def named_cpus(self) -> frozenset[int]:
        """The CPUs that explicit masks name; none for a word."""
        bits = [parse_mask(mask) for mask in self.masks if mask not in WORDS]
        return frozenset(cpu for one in bits for cpu in cpus_of(one))


_fields: dict[str, Any] = {
    name: ((Mask if knob.codec.is_mask else Annotated[int, whole(0, MAX_FLOWS)]) | None, None)
    for name, knob in _LATER.items()
}
if TYPE_CHECKING:
    DeviceSteering = _DeviceSteering
else:  # the same with a key for each further knob
    DeviceSteering = create_model("DeviceSteering", __base__=_DeviceSteering, **_fields)


class Configuration(_Model):
    """One named steering of a node."""

    name: str
    summary: str = ""
    nic: DeviceSteering = DeviceSteering()
    overlay: DeviceSteering = DeviceSteering()
    veth: DeviceSteering = DeviceSteering()
    pod: DeviceSteering = DeviceSteering()
    sock_flow_entries: Annotated[int, whole(0, MAX_SOCK_FLOWS)] = 0

    def steering(self, role: Role) -> DeviceSteering:
        device: DeviceSteering = getattr(self, role)
        return device

    @property
    def definition(self) -> str:
        """Hash of what the name stands for: a user's file may change."""
        text = self.model_dump_json(exclude={"summary"}, exclude_none=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def named_cpus(self) -> frozenset[int]:
        """The CPUs that explicit masks name."""
        return frozenset().union(*(self.steering(role).named_cpus for role in ROLES))

    @property
    def needs_cpus(self) -> int:
        """The number of CPUs that a machine must have for every mask and stage to exist."""
        staged = any("last" in self.steering(role).masks for role in ROLES)
        return max(2 if staged else 1, *(cpu + 1 for cpu in self.named_cpus), 1)


def load(own: str | Path | None = None) -> dict[str, Configuration]:
    """The built-in configurations and, over them, those of the user's file.

    Raises `InvalidInput` that names the file, the configuration and the key.
    """
    configurations = _read(BUILT_IN)
    if own:
        configurations |= _read(Path(own))
    return configurations


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
    values = {} if body is None else body
    if not isinstance(values, dict):
        raise InvalidInput(
            f"configurations: {path}: {name}: must map {', '.join(keys)}, not {shown(body)}"
        )
    for key in values:
        if key not in keys:
            raise InvalidInput(f"configurations: {path}: {name}.{unknown_key(key, keys)}")
    try:
        return Configuration.model_validate({**values, "name": name})
    except ValidationError as error:
        raise InvalidInput(
            f"configurations: {path}: {name}.{complaint(error, Configuration)}"
        ) from None
