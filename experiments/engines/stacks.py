"""Stacks of this project: their configuration files, validated before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.files import write as atomically
from experiments.engines import StackRef
from infra import checkpoint, config, configurations, untrusted, yaml_files
from infra.config import PROJECT, StackSettings
from infra.errors import InvalidInput

ROOT = Path(__file__).resolve().parents[2]
_PREFIX = f"{PROJECT}:"


def load(name: str, changes: Mapping[str, str] | None = None) -> tuple[StackRef, StackSettings]:
    """A stack and the state it declares, with `changes` (`-c key=value`) over its file.

    Raises `InvalidInput` for an unreadable file, a secret, or a state that is not valid.
    """
    values = _read(name) | _full(changes or {})
    state = config.state(name, _own(values))
    return StackRef(ROOT, ROOT, name, values), state


def named(name: str) -> StackRef:
    """A stack whose configuration is not asked: to destroy it or to read its outputs."""
    return StackRef(ROOT, ROOT, config.checked(name))


def own(directory: Path, name: str, values: Mapping[str, str]) -> tuple[StackRef, StackSettings]:
    """A stack whose state lives in `directory` and whose configuration is `values` alone."""
    return ref(directory, name, values), config.state(name, values)


def ref(directory: Path, name: str, values: Mapping[str, str]) -> StackRef:
    """The same without its state: to destroy it."""
    return StackRef(ROOT, directory, name, _full(values))


def recorded(name: str) -> list[dict[str, Any]]:
    """The resources of the stack's last checkpoint, whichever engine wrote it."""
    return checkpoint.resources(checkpoint.path_of(ROOT, PROJECT, name))


def save(name: str, changes: Mapping[str, str]) -> None:
    """Keep `changes` in the stack's file, as `pulumi up -c` does.

    Its comments, its order and its other keys stay; a file that has these values is not written.
    """
    path = _path(name)
    kept = _read(name)
    new = {key: value for key, value in _full(changes).items() if not _same(kept.get(key), value)}
    if new:
        spelled = {_full_key(str(key)): key for key in _section(path)}
        values = {spelled.get(key, key): _typed(key, value) for key, value in new.items()}
        atomically(path, yaml_files.changed(path, "config", values))


def changes(words: list[str]) -> dict[str, str]:
    """`key=value` words of the command line as a mapping; a repeated key counts once, the last."""
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidInput(f"-c {word}: write key=value")
        pairs[key.removeprefix(_PREFIX)] = value
    return pairs


def require(name: str, *, up: bool = False) -> None:
    """Raise `InvalidInput`, naming the stacks that are there, for one that is not; `up`: never was up."""
    states = checkpoint.path_of(ROOT, PROJECT, name).parent
    up_once = {path.name.partition(".json")[0] for path in states.glob("*.json*")}
    files = {path.name[len("Pulumi.") : -len(".yaml")] for path in ROOT.glob("Pulumi.*.yaml")}
    if name not in up_once | (set() if up else files):
        known = ", ".join(sorted(up_once if up else up_once | files)) or "none"
        raise InvalidInput(
            f"stack: {name} {'has never been up' if up else 'is not known'} (known: {known})"
        )


def kept(name: str) -> str:
    """The stack's configuration file with its values, where there is one with any."""
    values = " ".join(f"{key}={value}" for key, value in _own(_read(name)).items())
    return f"{_path(name).name} ({values})" if values else ""


def named_otherwise(stack: StackRef) -> list[str]:
    """Where the configuration sets something else than the stack's name says."""
    own = _own(stack.config)
    known = configurations.load(ROOT / own["configurations"] if own.get("configurations") else None)
    try:
        said = zip(("configuration", "replicas"), config.stack_name(stack.name, known), strict=True)
    except InvalidInput:  # the name has two readings
        return []
    return [
        f"{key} is {own[key]}, not {value}"
        for key, value in said
        if value is not None and own.get(key, value) != value
    ]


def _path(name: str) -> Path:
    return ROOT / f"Pulumi.{config.checked(name)}.yaml"


def _section(path: Path) -> dict[Any, Any]:
    """The file's `config`."""
    try:
        document = yaml_files.read(path, "stack")
    except FileNotFoundError:
        return {}
    section = document.get("config") if isinstance(document, dict) else document
    section = {} if section is None else section
    if not isinstance(section, dict):
        raise InvalidInput(f"stack: {path.name} must be a mapping with `config` in it")
    return section


def _read(name: str) -> dict[str, str]:
    path = _path(name)
    values: dict[str, str] = {}
    for key, value in _section(path).items():
        if isinstance(value, dict) and "secure" in value:
            raise InvalidInput(f"{key}: {path.name} has a secret; this project has none")
        full = _full_key(str(key))
        if full in values:
            raise InvalidInput(f"{key}: {path.name} has it twice, with and without {_PREFIX}")
        values[full] = _text(value)
    return values


def _text(value: Any) -> str:
    """A YAML value as Pulumi hands it to a program."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _typed(key: str, value: str) -> Any:
    """A structured value is kept as structure, everything else as the text it is."""
    structured = key.removeprefix(_PREFIX) in config.STRUCTURED
    return untrusted.parsed(value) if structured else value


def _same(kept: str | None, value: str) -> bool:
    """Whether two texts of a key mean one value: JSON can be written in several ways."""
    if kept is None or kept == value:
        return kept == value
    try:
        one, other = (json.dumps(untrusted.parsed(text), sort_keys=True) for text in (kept, value))
    except ValueError:
        return False
    return one == other


def _full(values: Mapping[str, str]) -> dict[str, str]:
    return {_full_key(key): value for key, value in values.items()}


def _full_key(key: str) -> str:
    return key if ":" in key else _PREFIX + key


def _own(values: Mapping[str, str]) -> dict[str, str]:
    """This project's keys without their prefix; those of other packages are not ours to judge."""
    return {
        key.removeprefix(_PREFIX): value for key, value in values.items() if key.startswith(_PREFIX)
    }
