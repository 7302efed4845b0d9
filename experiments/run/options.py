"""The options of a sweep, a field each: what asks for, keeps or repeats one derives from it.

The command line (`experiments/cli/sweep.py`), YAML matrices, kept plans, `--resume` and the command
that repeats a sweep iterate over `Options`: a new option is a new field, and nothing beside it.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from infra.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
    from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Option:
    """How a field appears. `key` is the key of a stack that it sets, where it sets one.

    With `in_config` that key may be given among the other keys, too. `later` marks what the first
    plans did not have: at its default it is not part of a plan's digest.
    """

    help: str
    metavar: str
    name: str = ""
    key: str = ""
    short: str = ""
    in_config: bool = False
    later: bool = False


@dataclass(frozen=True)
class Reader:
    """Reads what the command line (text) or YAML has, before the field's type is checked."""

    read: Callable[[Any], Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.read, handler(source))


def _list(value: Any) -> Any:
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list, or words with commas between them")
    if not value:
        raise ValueError("name at least one")
    if len(set(map(str, value))) != len(value):
        raise ValueError(f"{', '.join(map(str, value))} names one of them twice")
    return tuple(value)


def _whole(low: int, high: int) -> Reader:
    bounds = f"must be a whole number from {low} to {high}"

    def read(value: Any) -> Any:
        text = isinstance(value, str) and re.fullmatch("-?[0-9]{1,18}", value)
        number = int(value) if text else value
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise ValueError(bounds)
        return number

    return Reader(read)


def _share(value: Any) -> Any:
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.001 <= number <= 1:
        raise ValueError("must be a fraction from 0.001 to 1 (0.05)")
    return number


def _keys(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("must map keys to values")
    for key in value:
        if key in decided():
            raise ValueError(f"{key} is an option of the sweep itself: {decided()[key]}")
    return tuple(
        sorted((str(k), v if isinstance(v, str) else json.dumps(v)) for k, v in value.items())
    )


List = Reader(_list)
Isolation = Literal["incremental", "fresh"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a sweep is asked. `blocks` is its `--runs`, `paths` its `--path`."""

    configurations: Annotated[
        tuple[str, ...], List, Option("Names, comma-separated; the baseline is one.", "NAMES")
    ]
    replicas: Annotated[
        tuple[Annotated[int, _whole(1, 1024)], ...],
        List,
        Option("Pair counts, comma-separated.", "COUNTS"),
    ]
    blocks: Annotated[
        int, _whole(1, 10_000), Option("Runs of each configuration and count.", "N", name="runs")
    ]
    duration: Annotated[int, _whole(1, 86_400), Option("Measured seconds of a run.", "SECONDS")]
    omit: Annotated[
        int, _whole(0, 60), Option("Seconds of traffic before the measured ones.", "SECONDS")
    ]
    streams: Annotated[int, _whole(1, 128), Option("TCP streams of a pair.", "N")] = 1
    paths: Annotated[
        tuple[Literal["overlay", "host"], ...],
        List,
        Option("overlay, host, or overlay,host.", "PATHS", name="path"),
    ] = ("overlay",)
    own: Annotated[
        str, Option("YAML file with further configurations.", "FILE", key="configurations")
    ] = ""
    pod_cpu_limit: Annotated[
        str, Option("CPU quota of each pod (200m).", "QUOTA", key="podCpuLimit")
    ] = ""
    target: Annotated[str, Option("lab or kubernetes.", "TARGET", key="target", in_config=True)] = (
        ""
    )
    config: Annotated[
        tuple[tuple[str, str], ...],
        Reader(_keys),
        Option("Any other key of a stack.", "KEY=VALUE", short="-c"),
    ] = ()
    until_ci: Annotated[
        float | None,
        Reader(_share),
        Option(
            "Stop a configuration when its 95 % interval is within ± this fraction of the ratio (0.05).",
            "FRACTION",
        ),
    ] = None
    isolation: Annotated[
        Isolation,
        Option("incremental: pods stay, steering changes; fresh: a new lab for each run.", "HOW"),
    ] = "incremental"
    seed: Annotated[
        int, _whole(-(10**18), 10**18), Option("Seed of the order; else random.", "NUMBER")
    ]
    baseline: Annotated[
        str,
        Option("Configuration to compare with; none: no comparison.", "NAME", later=True),
    ] = "baseline"

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """The keys of the sweep's stack that are the same for all its runs."""
        keyed = ((option.key, getattr(self, field)) for field, option in declared() if option.key)
        return tuple(sorted([*((key, value) for key, value in keyed if value), *self.config]))


@functools.cache
def declared() -> tuple[tuple[str, Option], ...]:
    """Each field and how it appears."""
    hints = get_type_hints(Options, include_extras=True)
    return tuple(
        (one.name, next(part for part in hints[one.name].__metadata__ if isinstance(part, Option)))
        for one in fields(Options)
    )


def flag(field: str) -> str:
    """`--pod-cpu-limit`, as the command line has the field."""
    option = dict(declared())[field]
    return "--" + (option.name or field).replace("_", "-")


@functools.cache
def decided() -> dict[str, str]:
    """The keys of a stack that the sweep decides by an option, and that option."""
    names = {_spellings(field)[0]: flag(field) for field, _ in declared()}
    keyed = {option.key: flag(field) for field, option in declared() if option.key}
    return names | keyed | {"configuration": flag("configurations")}


def layer(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by field, from any spelling: `podCpuLimit` and `pod_cpu_limit`, `runs` and `blocks`.

    Raises `InvalidInput` for a name that is none of an option.
    """
    from experiments.engines import stacks
    from infra.complaints import unknown_key

    fields_of = {spelling: field for field, _ in declared() for spelling in _spellings(field)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields_of:
            raise InvalidInput(unknown_key(name, [_spellings(field)[0] for field, _ in declared()]))
        found[fields_of[name]] = value
    words = found.get("config")
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        found["config"] = stacks.changes(found["config"])
    if isinstance(found.get("config"), Mapping):
        found["config"] = dict(found["config"])
        for field, option in declared():
            if option.in_config and option.key in found["config"]:
                value = found["config"].pop(option.key)
                if found.setdefault(field, value) != value:
                    raise InvalidInput(f"{option.key}: {flag(field)} and -c {option.key}= differ")
    return found


def _spellings(field: str) -> tuple[str, ...]:
    """As YAML has it (camelCase, as Pulumi's keys), as Python has it, and the field."""
    name = dict(declared())[field].name or field
    first, *more = name.split("_")
    return first + "".join(word.capitalize() for word in more), name, field


def read(given: Mapping[str, Any]) -> Options:
    """The options that a layer gives. Raises `InvalidInput` naming the option and what is allowed."""
    from pydantic import ValidationError

    from infra.complaints import unknown_key

    ours = [field for field, _ in declared()]
    for field in given:
        if field not in ours:
            raise InvalidInput(unknown_key(field, ours))
    try:
        return _adapter().validate_python(dict(given))
    except ValidationError as error:
        raise InvalidInput(_complaint(error)) from None


@functools.cache
def _adapter() -> TypeAdapter[Options]:
    from pydantic import TypeAdapter

    return TypeAdapter(Options)


def _complaint(error: ValidationError) -> str:
    from infra.complaints import shown

    first = error.errors()[0]
    name = _spellings(str(first["loc"][0]))[1]
    if first["type"] == "missing":
        return f"{name}: is missing"
    text = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    given = f", not {shown(first['input'])}" if text.startswith("must be") else ""
    return f"{name}: {text}{given}"


def kept(options: Options) -> dict[str, Any]:
    """The options as a plan keeps them."""
    found = {
        field: getattr(options, field)
        for field, option in declared()
        if not option.key
        and field != "config"
        and not (option.later and _is_default(options, field))
    }
    return {**found, "settings": options.settings}


def of_kept(document: Mapping[str, Any]) -> Options:
    """The options of a kept plan; what else it holds is left alone."""
    settings = dict(document["settings"])
    keyed = {
        field: settings.pop(option.key)
        for field, option in declared()
        if option.key and option.key in settings
    }
    ours = {field: document[field] for field, _ in declared() if field in document}
    return read({**ours, **keyed, "config": settings})


def words(options: Options) -> list[str]:
    """The words of the command line that ask for exactly these options."""
    return [
        word
        for field, option in declared()
        if not _is_default(options, field)
        for text in _texts(getattr(options, field))
        for word in _option(option.short or flag(field), text)
    ]


def _is_default(options: Options, field: str) -> bool:
    default = next(one.default for one in fields(Options) if one.name == field)
    return default is not MISSING and bool(getattr(options, field) == default)


def _texts(value: Any) -> Iterator[str]:
    """One text, or one for each pair of key and value."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        yield from (f"{key}={text}" for key, text in value)
    elif isinstance(value, tuple):
        yield ",".join(map(str, value))
    else:
        yield str(value)


def _option(name: str, text: str) -> list[str]:
    return [f"{name}={text}"] if text.startswith("-") else [name, text]
