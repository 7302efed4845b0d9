"""Reads the configuration of a stack, also from Pulumi: its name and keys become validated settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from infra import configurations, keys
from infra.complaints import complaint, shown, unknown_key
from infra.configurations import Configuration
from infra.errors import InvalidInput
from infra.settings import ALL_KEYS, KEYS, Kubernetes, StackSettings

PROJECT = "steerlab"

_STACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_ROOT = Path(__file__).resolve().parent.parent


def stack_name(name: str, known: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The parts of a stack's name: (configuration, replicas), each None if it is missing.

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
    try:
        result = StackSettings.model_validate({**fields, "stack": stack, "steering": steering})
    except ValidationError as error:
        raise InvalidInput(complaint(error, StackSettings)) from None
    if result.duration <= result.omit:
        raise InvalidInput(
            f"duration: {result.duration} s must be longer than omit, {result.omit} s"
        )
    if result.streams > (most := result.pairs[1].most_streams):
        raise InvalidInput(
            f"streams: traffic {result.traffic} has {most} connection(s) for each pair: set streams "
            f"to {most}, or remove it"
        )
    result = result.model_copy(update={result.target: result.section.complete(online)})
    result.section.check(result, online)
    _check_lease(result)
    return result


def cluster(values: Mapping[str, Any]) -> Kubernetes:
    """The settings of a cluster alone, which needs no images. Raises `InvalidInput`."""
    fields = keys.document(values)
    for key in fields.keys() - {"kubernetes"}:
        raise InvalidInput(unknown_key(key, [one for one in ALL_KEYS if "kubernetes." in one]))
    try:
        return Kubernetes.model_validate(keys.structure(fields.get("kubernetes", {})))
    except ValidationError as error:
        raise InvalidInput(complaint(error, Kubernetes)) from None


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
    around = state.section.AROUND_A_RUN_S
    needed = state.omit + state.duration + around
    if state.lease_seconds is not None and state.lease_seconds < needed:
        raise InvalidInput(
            f"lease: {state.lease} is shorter than a run: {state.omit} + {state.duration} s of "
            f"traffic (omit, duration) and {around} s to start and end it: give at least "
            f"{needed}s, or none"
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
