"""Stacks of this project and their configuration files, validated before any change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.files import write as atomically
from experiments.engines import StackRef, backend
from infra import checkpoint, config, configurations, keys, yaml_files
from infra.config import PROJECT
from infra.errors import InvalidInput
from infra.settings import StackSettings

ROOT = Path(__file__).resolve().parents[2]
_PREFIX = f"{PROJECT}:"


def load(name: str, changes: Mapping[str, str] | None = None) -> tuple[StackRef, StackSettings]:
    """A stack and its settings, with `changes` (`-c key=value`) over those of its file.

    Raises `InvalidInput` for an unreadable file, a secret, or settings that are not valid.
    """
    file, new = _read(name), _full(changes or {})
    document = keys.document(_own(file))
    keys.document(_own(new))  # refuses contradictions
    for key, value in keys.ordered(_own(new)):
        keys.put(document, keys.path_of(key), value)
    others = {
        key: _text(value) for key, value in (file | new).items() if not key.startswith(_PREFIX)
    }
    texts = _texts(document)
    return StackRef(ROOT, ROOT, name, others | texts), config.state(name, _own(texts))


def named(name: str) -> StackRef:
    """A stack whose configuration is not needed: to destroy it or to read its outputs."""
    return StackRef(ROOT, ROOT, config.checked(name))


def own(directory: Path, name: str, values: Mapping[str, str]) -> tuple[StackRef, StackSettings]:
    """A stack whose state is in `directory` and whose configuration is `values` alone."""
    return ref(directory, name, values), config.state(name, values)


def ref(directory: Path, name: str, values: Mapping[str, str]) -> StackRef:
    """The same without its settings: to destroy it."""
    return StackRef(ROOT, directory, name, _texts(keys.document(values)))


def recorded(name: str) -> list[dict[str, Any]]:
    """The resources of the stack's last checkpoint, whichever engine wrote it."""
    return resources(named(name))


def resources(stack: StackRef) -> list[dict[str, Any]]:
    """The resources of the last checkpoint in Pulumi's form; empty where there is none.

    Raises `Refusal` where it cannot be read.
    """
    if not backend.shared(stack):
        return checkpoint.resources(stack.checkpoint)
    from experiments.engines.choice import choose

    return choose("pulumi").resources(stack)


def save(name: str, changes: Mapping[str, str]) -> None:
    """Write `changes` to the stack's file, as `pulumi up -c` does.

    Comments, order and other keys stay; a file that already has these values is not written.
    An old key in the file moves to its successor when that is changed.
    """
    path, file, new = _path(name), _read(name), _full(changes)
    document = keys.document(_own(file))
    spelled = {_full_key(str(key)): key for key in _section(path)}
    values: dict[tuple[str, ...], Any] = {}
    removed: list[str] = []
    for key, value in keys.ordered(new, _PREFIX):
        if not key.startswith(_PREFIX):
            if file.get(key) is None or _text(file[key]) != value:
                values[(spelled.get(key, key),)] = value
            continue
        place = keys.path_of(key.removeprefix(_PREFIX))
        kept = keys.at(document, place)
        if kept is not None and keys.text(kept) == keys.text(value):
            continue
        first = spelled.get(_PREFIX + place[0], _PREFIX + place[0])
        for old in _own(file):
            old_place = keys.path_of(old)
            if len(old_place) > 1 and place[: len(old_place)] == old_place[: len(place)]:
                removed.append(spelled[_PREFIX + old])
                if len(place) > len(old_place):
                    values[(first, *old_place[1:])] = keys.structure(file[_PREFIX + old])
        values[(first, *place[1:])] = keys.structure(value)
    if values:
        atomically(path, yaml_files.changed(path, "config", values, removed))


def changes(words: list[str]) -> dict[str, str]:
    """`key=value` words of the command line as a mapping; of a repeated key the last counts."""
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidInput(f"-c {word}: write key=value")
        pairs[key.removeprefix(_PREFIX)] = value
    return pairs


def require(name: str, *, up: bool = False) -> None:
    """Raise `InvalidInput` with the known stacks for an unknown one; `up`: for one without a checkpoint."""
    states = checkpoint.path_of(ROOT, PROJECT, name).parent
    up_once = {path.name.partition(".json")[0] for path in states.glob("*.json*")}
    files = {path.name[len("Pulumi.") : -len(".yaml")] for path in ROOT.glob("Pulumi.*.yaml")}
    if name not in up_once | (set() if up else files) and not recorded(name):
        known = ", ".join(sorted(up_once if up else up_once | files)) or "none"
        raise InvalidInput(
            f"stack: {name} {'has never been up' if up else 'is not known'} (known: {known})"
        )


def kept(name: str) -> str:
    """The stack's configuration file with its values; empty where there are none."""
    values = " ".join(f"{key}={_text(value)}" for key, value in _own(_read(name)).items())
    return f"{_path(name).name} ({values})" if values else ""


def renamed(name: str, changes: Mapping[str, str]) -> str:
    """A note on the old keys in the stack's file and in `changes`; empty where there are none."""
    return keys.renamed([*_own(_read(name)), *changes])


def named_otherwise(stack: StackRef) -> list[str]:
    """The settings that differ from the stack's name."""
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


def _read(name: str) -> dict[str, Any]:
    """The values of the stack's file by full key."""
    path = _path(name)
    values: dict[str, Any] = {}
    for key, value in _section(path).items():
        if isinstance(value, dict) and "secure" in value:
            raise InvalidInput(f"{key}: {path.name} has a secret; this project has none")
        full = _full_key(str(key))
        if full in values:
            raise InvalidInput(f"{key}: {path.name} has it twice, with and without {_PREFIX}")
        values[full] = value
    return values


def _text(value: Any) -> str:
    """A YAML value as Pulumi passes it to a program."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _texts(document: Mapping[str, Any]) -> dict[str, str]:
    """A nested document as an engine passes it to the program."""
    return {_full_key(key): keys.text(value) for key, value in document.items()}


def _full(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_full_key(key): value for key, value in values.items()}


def _full_key(key: str) -> str:
    return key if ":" in key else _PREFIX + key


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    """This project's keys without their prefix; keys of other packages are not checked."""
    return {
        key.removeprefix(_PREFIX): value for key, value in values.items() if key.startswith(_PREFIX)
    }
