"""Generates pages from the model of settings: python -m infra.reference.

It writes `docs/configuration.md` and the section `config` of `Pulumi.yaml`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infra import configurations
from infra.settings import KEYS, SECTIONS, PodOptions, Ssh, StackSettings
from infra.traffic import TRAFFIC
from infra.traffic.contract import Traffic

_ROOT = Path(__file__).resolve().parent.parent
PAGE, PROGRAM = _ROOT / "docs/configuration.md", _ROOT / "Pulumi.yaml"

_HEAD = """# Configuration

Generated from the model by `python -m infra.reference`.

`./steerlab up -s STACK -c key=value` sets a key and keeps it in `Pulumi.STACK.yaml`, as
`pulumi config set key value` does. `sweep -c key=value` and `tune -c key=value` set keys that are not an option of the
command, for its own stack. A stack is called `<configuration>-<replicas>`; another name needs the keys `configuration`
and `replicas`, as the ready stack `lab` has them in `Pulumi.lab.yaml`. Unknown keys and invalid values are refused before
anything is changed.

| key | default | allowed values | description |
|---|---|---|---|
"""
_SECTION = """
## Keys of target {name}

Set them with `-c {name}.{example}`, with `pulumi config set --path {name}.{key} {value}`, or in YAML as a
mapping `{name}:`. The spelling without `{name}.`, of the first version, still works and prints a note.

| key | default | allowed values | description |
|---|---|---|---|
"""
_EXAMPLES = {"lab": ("path", "host"), "kubernetes": ("context", "NAME")}
_TRAFFIC = """
## Traffic

The kinds of `traffic`; options follow as `kind:name=value,name=value`:

| kind | description | metrics | options |
|---|---|---|---|
"""
_CONFIGURATIONS = """
## Configurations

The built-in configurations of [configurations.yaml](../infra/configurations.yaml). That file also describes
the format for your own configurations:

| name | description |
|---|---|
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD, *(_row(StackSettings, key) for key in KEYS if key not in SECTIONS)]
    for name, model in SECTIONS.items():
        key, value = _EXAMPLES[name]
        parts.append(_SECTION.format(name=name, example=f"{key}={value}", key=key, value=value))
        parts += [_row(model, one.alias or "", f"{name}.") for one in model.model_fields.values()]
        if name == "kubernetes":
            mappings: dict[str, type[BaseModel]] = {"ssh": Ssh, "pods": PodOptions}
            for mapping, inner in mappings.items():
                keys = (one.alias or "" for one in inner.model_fields.values())
                parts += [_row(inner, key, f"kubernetes.{mapping}.") for key in keys]
    parts += [_TRAFFIC, *map(_kind, TRAFFIC.values()), _CONFIGURATIONS]
    parts += [f"| `{name}` | {one.summary} |\n" for name, one in configurations.load().items()]
    return "".join(parts)


def _kind(kind: type[Traffic]) -> str:
    metrics = ", ".join(f"`{name}`" for one in kind().kinds for name in one.metrics)
    options = "; ".join(
        f"`{name}`: {field.description}" + (f" (`{field.default}`)" if field.default else "")
        for name, field in kind.model_fields.items()
    )
    return f"| `{kind.name}` | {kind.summary} | {metrics} | {options} |\n"


def _row(model: type[BaseModel], key: str, prefix: str = "") -> str:
    field = _field(model, key)
    default = field.get_default()
    plain = isinstance(default, str | int) and default != ""
    shown = f"`{default}`" if plain else ""
    schema = model.model_json_schema()["properties"][key]
    return f"| `{prefix}{key}` | {shown} | {_allowed(field, schema)} | {_words(field)} |\n"


def _words(field: FieldInfo) -> str:
    return " ".join(str(field.description).split())


def _field(model: type[BaseModel], key: str) -> FieldInfo:
    return next(one for one in model.model_fields.values() if one.alias == key)


def _allowed(field: FieldInfo, schema: dict[str, Any]) -> str:
    if field.examples:
        return f"such as `{field.examples[0]}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    return f"{schema['minimum']} to {schema['maximum']}" if "minimum" in schema else "text"


def program() -> str:
    """`Pulumi.yaml` with its section `config`: the keys that have a default.

    Pulumi has no type for a mapping, and a default would override the stack's name.
    """
    head, mark, _ = PROGRAM.read_text().partition("\nconfig:\n")
    rows = [_declared(key) for key in KEYS if key not in SECTIONS]
    return head + mark + "".join(rows)


def _declared(key: str) -> str:
    field = _field(StackSettings, key)
    if field.is_required():
        return ""
    kind = "integer" if field.annotation is int else "string"
    return (
        f"  {key}:\n    type: {kind}\n    default: {json.dumps(field.default)}\n"
        f"    description: {json.dumps(_words(field))}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    PROGRAM.write_text(program())
