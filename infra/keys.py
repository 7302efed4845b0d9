"""Configuration keys as text -> one nested document: `kubernetes.context=x`, JSON, old flat keys (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from infra import untrusted
from infra.complaints import shown
from infra.errors import InvalidInput

_LONGEST = 1 << 16  # characters of a structure

# Keys of the first version, which had no mapping for each target, and the mapping that has them now.
MOVED = {
    **dict.fromkeys(("path", "cpus"), "lab"),
    **dict.fromkeys(
        (
            "kubeconfig", "context", "serverSelector", "clientSelector", "nodeAccess", "ssh",
            "images", "via", "overlayDevice",
        ),
        "kubernetes",
    ),
}  # fmt: skip


def path_of(key: str) -> tuple[str, ...]:
    """Where a key's value is in the document: `context` and `kubernetes.context` are one place."""
    first, *rest = key.split(".")
    return (MOVED[first], first, *rest) if first in MOVED else (first, *rest)


def ordered(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Mappings first: what a longer key names is part of them."""
    return sorted(values.items(), key=lambda item: len(path_of(item[0].removeprefix(prefix))))


def renamed(names: Iterable[str]) -> str:
    """A note that names the successor of each old key among these; empty where there is none."""
    old = [name for name in dict.fromkeys(names) if len(path_of(name)) > len(name.split("."))]
    return ", ".join(f"{name} is now {'.'.join(path_of(name))}" for name in old)


def document(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested document of keys in any spelling.

    Raises `InvalidInput` where two spellings of one setting have different values.
    """
    found: dict[str, Any] = {}
    for key, value in ordered(values):
        path = path_of(key)
        kept = at(found, path)
        if kept is not None and text(kept) != text(value):
            raise InvalidInput(
                f"{key}: is given twice, as {shown(text(value))} and, in {path[0]}, as "
                f"{shown(text(kept))}: remove one of them"
            )
        put(found, path, value)
    return found


def at(found: Any, path: tuple[str, ...]) -> Any:
    """The value at a path; None where there is none."""
    for part in path:
        found = structure(found).get(part) if isinstance(structure(found), dict) else None
    return found


def put(found: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the value at a path. Raises `InvalidInput` where something above it is not a mapping."""
    *above, last = path
    for depth, part in enumerate(above, 1):
        inner = structure(found.setdefault(part, {}))
        if not isinstance(inner, dict):
            raise InvalidInput(f"{'.'.join(path[:depth])}: must be a mapping, not {shown(inner)}")
        found[part] = inner = dict(inner)
        found = inner
    found[last] = structure(value) if above else value


def structure(value: Any) -> Any:
    """The value of a JSON mapping or list; any other value as it is."""
    if not isinstance(value, str) or value[:1] not in ("{", "[") or len(value) > _LONGEST:
        return value
    try:
        return untrusted.parsed(value)
    except ValueError:
        return value


def text(value: Any) -> str:
    """A value as Pulumi passes it to a program: text, or JSON."""
    value = structure(value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
