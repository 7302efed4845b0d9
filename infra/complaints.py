"""Messages for invalid input: the key, the allowed values and the given value (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Annotated, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

_WIDTH = 80
_DIGITS = re.compile(r"-?[0-9]{1,18}")


def whole(low: int, high: int) -> BeforeValidator:
    """A whole number or its digits; the message names both bounds."""

    def read(value: object) -> int:
        number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return BeforeValidator(read, json_schema_input_type=Annotated[int, Field(ge=low, le=high)])


def like(pattern: str, words: str) -> BeforeValidator:
    """A text that matches a pattern; `words` is the message for others."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(words)
        return value

    return BeforeValidator(read)


def shown(value: object) -> str:
    """A given value, cut to the length of a line."""
    text = repr(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def unknown_key(key: object, known: Iterable[str]) -> str:
    """`replica: unknown key; did you mean replicas? (known: ...)`."""
    # the last part of a key with dots is enough to be recognised
    names = {name.rpartition(".")[2]: name for name in sorted(known)}
    near = get_close_matches(str(key), names, 1)
    hint = f"; did you mean {names[near[0]]}?" if near else ""
    return f"{str(key)[:_WIDTH]}: unknown key{hint} (known: {', '.join(names.values())})"


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's first complaint about a document: `nic.flows: must be ..., not -1`."""
    found = error.errors()
    # a misspelled key is also missing: the message names the misspelled one
    strange = [one for one in found if one["type"] == "extra_forbidden"]
    first = strange[0] if strange and found[0]["type"] == "missing" else found[0]
    place = [part for part in first["loc"] if isinstance(part, str) and part != "[key]"]
    where = ".".join(place)
    match first["type"]:
        case "extra_forbidden":
            *above, key = place
            return ".".join([*above, unknown_key(key, _keys(model, above)[0])])
        case "missing":
            return f"{where}: is missing (keys: {', '.join(_keys(model, place[:-1])[0])})"
        case "model_type":
            keys, examples = _keys(model, place)
            example = f" ({examples[0]})" if examples else ""
            return f"{where}: must map {', '.join(keys)}{example}, not {shown(first['input'])}"
    said = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return f"{where}: {said[:1].lower()}{said[1:]}, not {shown(first['input'])}"


def _keys(model: type[BaseModel], place: Sequence[str]) -> tuple[list[str], list[object]]:
    """The keys of the model at a place of another, and examples of that place's value."""
    examples: list[object] = []
    for part in place:
        named = model.model_fields
        field = named.get(part) or next(one for one in named.values() if one.alias == part)
        inner, examples = field.annotation, field.examples or []
        kinds = [kind for kind in (inner, *get_args(inner)) if isinstance(kind, type)]
        if row := next((kind for kind in kinds if is_dataclass(kind)), None):
            return [one.name for one in fields(row)], examples
        model = next(kind for kind in kinds if issubclass(kind, BaseModel))
    return [one.alias or name for name, one in model.model_fields.items()], examples
