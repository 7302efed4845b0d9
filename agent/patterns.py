"""Patterns of paths and of names of devices (pure)."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence


def matching(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The names that match a pattern, in the order of the patterns."""
    return [name for pattern in patterns for name in sorted(fnmatch.filter(names, pattern))]


def is_like(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern, part by part: * does not match /."""
    names, parts = path.strip("/").split("/"), pattern.strip("/").split("/")
    return len(names) == len(parts) and all(
        fnmatch.fnmatchcase(name, part) if is_pattern(part) else name == part
        for name, part in zip(names, parts)
    )


def is_pattern(path: str | None) -> bool:
    return path is not None and any(sign in path for sign in "*?[")
