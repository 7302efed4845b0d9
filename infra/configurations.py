"""Configurations: steering by name, read as data from YAML; none is known to the code."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from infra.refusals import BadInput

BUILT_IN = Path(__file__).with_name("configurations.yaml")

Role = Literal["nic", "overlay", "veth", "pod"]
ROLES: tuple[Role, ...] = ("nic", "overlay", "veth", "pod")

WORDS = ("none", "all", "first", "middle", "last")
_MASK = re.compile(r"[0-9a-fA-F]+(,[0-9a-fA-F]{1,8})*")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

# The kernel answers ENOMEM one past this.
MAX_FLOWS = 2**30


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceSteering(_Model):
    """`rps_cpus` as a placement word or a mask, and `rps_flow_cnt`, of every queue of a device."""

    cpus: str = "none"
    flows: Annotated[int, Field(ge=0, le=MAX_FLOWS, strict=True)] = 0

    @field_validator("cpus", mode="before")
    @classmethod
    def _word_or_mask(cls, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"write the mask in quotes, as rps_cpus has it, not {value!r}")
        if value not in WORDS and not _MASK.fullmatch(value):
            raise ValueError(
                f"{value!r} is neither one of {', '.join(WORDS)} nor a hexadecimal mask"
            )
        return value


class Configuration(_Model):
    """One named steering of a node."""

    name: str
    summary: str = ""
    nic: DeviceSteering = DeviceSteering()
    overlay: DeviceSteering = DeviceSteering()
    veth: DeviceSteering = DeviceSteering()
    pod: DeviceSteering = DeviceSteering()
    sock_flow_entries: Annotated[int, Field(ge=0, le=MAX_FLOWS, strict=True)] = 0

    def steering(self, role: Role) -> DeviceSteering:
        device: DeviceSteering = getattr(self, role)
        return device

    @cached_property
    def needs_cpus(self) -> int:
        """The number of CPUs that a machine must have for every explicit mask to exist."""
        masks = (self.steering(role).cpus for role in ROLES)
        needed = [
            int(mask.replace(",", ""), 16).bit_length() for mask in masks if mask not in WORDS
        ]
        staged = any(self.steering(role).cpus == "last" for role in ROLES)
        return max([1, *needed, 2 if staged else 1])


def load(own: str | Path | None = None) -> dict[str, Configuration]:
    """The built-in configurations and, over them, those of the user's file.

    Raises `BadInput` that names the file, the configuration and the key.
    """
    configurations = _read(BUILT_IN)
    if own:
        configurations |= _read(Path(own))
    return configurations


def _read(path: Path) -> dict[str, Configuration]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"configurations: there is no file {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"configurations: {path} is not readable YAML: {error}") from None
    if not isinstance(document, dict) or not document:
        raise BadInput(
            f"configurations: {path} must map names to steering, as {BUILT_IN.name} does"
        )
    return {str(name): _configuration(path, name, body) for name, body in document.items()}


def _configuration(path: Path, name: object, body: object) -> Configuration:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadInput(
            f"configurations: {path}: the name {name!r} must be lower-case words joined by dashes"
        )
    if body is not None and not isinstance(body, dict):
        raise BadInput(
            f"configurations: {path}: {name} must map nic, overlay, veth, pod to steering"
        )
    try:
        return Configuration.model_validate({**(body or {}), "name": name})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise BadInput(f"configurations: {path}: {where}: {first['msg']}") from None
