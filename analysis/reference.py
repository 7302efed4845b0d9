"""The record's fields as a page of the docs: python -m analysis.reference > docs/record.md."""

from __future__ import annotations

from typing import Any

from analysis.metrics import METRICS
from analysis.schema import json_schema

_HEAD = """# The record

Made of the model by `python -m analysis.reference`.

A run leaves two files in `results/.../records`: `run-NAME.json`, described here and by its
[JSON Schema](../analysis/record.schema.json), and `run-NAME.iperf3.json.gz`, what iperf3 itself
said for each pair. A record is written whole or not at all and never changed. `null` is "not
measured", never 0.
"""


_METRICS = """
## Metrics

The values of a run: the columns of report.csv and the names of `--metric`. Two configurations are
compared by the ratio of geometric means, or by the difference of means where values may be 0.

| metric | title | unit | better | compared by | definition |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The page, in Markdown: the record, then what it is made of."""
    schema = json_schema()
    parts = [("Record", schema), *schema["$defs"].items()]
    return _HEAD + "".join(_table(name, part) for name, part in parts) + _metrics()


def _metrics() -> str:
    rows = "".join(
        f"| `{one.name}` | {one.title} | {one.unit} | {one.better} | {one.scale} | {one.about} |\n"
        for one in METRICS.values()
    )
    return f"{_METRICS}{rows}"


def _table(name: str, part: dict[str, Any]) -> str:
    said = part.get("description", "").replace("\n", " ")
    rows = "".join(
        f"| `{field}` | {_type(what)} | {what.get('description', '')} |\n"
        for field, what in part["properties"].items()
    )
    return f"\n## {name}\n\n{said}\n\n| field | type | what |\n|---|---|---|\n{rows}"


def _type(what: dict[str, Any]) -> str:
    """In words: `one of` for a choice, the heading of another table for an object."""
    if "$ref" in what:
        name = what["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in what:
        return " or ".join(map(_type, what["anyOf"]))
    if "enum" in what:
        return "one of " + ", ".join(f"`{value}`" for value in what["enum"])
    if "const" in what:
        return f"`{what['const']}`"
    if what["type"] == "array":
        return f"list of {_type(what['items'])}"
    if what["type"] == "object":
        return f"by name: {_type(what['additionalProperties'])}"
    return str(what.get("format", what["type"]))


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
