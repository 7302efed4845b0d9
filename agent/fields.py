"""Checks of values that come as JSON (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.errors import BAD_PLAN, SteerError, shortened

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    Check = Callable[[Any], bool]


def whole(low: int, high: int) -> Check:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def like(pattern: str) -> Check:
    return lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None


def each(check: Check, least: int = 1, most: int = 2**16) -> Check:
    return lambda v: isinstance(v, list) and least <= len(v) <= most and all(map(check, v))


class Field(NamedTuple):
    """Check of a key's value, its description, and whether null (or no key) is allowed."""

    fits: Check
    words: str
    nullable: bool = False


def read_fields(
    document: Any, fields: Mapping[str, Field], where: str, what: str = "plan"
) -> dict[str, Any]:
    """The values of a JSON object, every key present; the error names the key and the value."""
    if not isinstance(document, dict):
        raise SteerError(f"{what}: {where or 'it'} must be a JSON object", BAD_PLAN)
    for key in document:
        if key not in fields:
            known = ", ".join(fields)
            raise SteerError(f"{what}: {where}{key} is unknown; the keys are {known}", BAD_PLAN)
    for key, field in fields.items():
        value = document.get(key)
        if not field.fits(value) and not (value is None and field.nullable):
            said = shortened(json.dumps(value)) if key in document else "missing"
            words = f"{field.words} or null" if field.nullable else field.words
            raise SteerError(f"{what}: {where}{key} is {said}: it must be {words}", BAD_PLAN)
    return {key: document.get(key) for key in fields}
