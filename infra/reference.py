"""The configuration keys as a page of the docs: python -m infra.reference > docs/configuration.md.

What a key may be is the model's, what it is for Pulumi.yaml's; a key that is not declared there
says so itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.alias_generators import to_camel

from infra import configurations
from infra.config import KEYS, STRUCTURED, StackSettings

_ROOT = Path(__file__).resolve().parent.parent

# What Pulumi.yaml does not declare, and why (its first comment).
_OTHERS = {
    "configuration": "Name of a configuration; else the stack's name says it",
    "replicas": "iperf3 pairs, 1 to 1024; else the stack's name says it",
    "cpus": "Cores of the lab: those of the server, of the clients, and the irq core",
    "ssh": "How nodes are reached with `nodeAccess: ssh`: user, port, identityFile, "
    "knownHostsFile, configFile",
    "images": "Images of the measured pods and of the node agent; a cluster's stack must name them "
    "(`docker/build` prints them)",
}

_HEAD = """# Configuration

Made of the model and of Pulumi.yaml by `python -m infra.reference`.

`./steerlab up -s STACK -c key=value` sets and keeps a key, as `pulumi config set key value` does;
`sweep -c key=value` takes those that no option of its own says. A stack is called
`<configuration>-<replicas>`. Unknown keys are refused, and whatever is wrong is said before
anything is touched.

| key | default | allowed | what for |
|---|---|---|---|
"""


def page() -> str:
    """The page, in Markdown."""
    declared = yaml.safe_load((_ROOT / "Pulumi.yaml").read_text())["config"]
    rows = [_row(key, declared.get(key)) for key in KEYS]
    return f"{_HEAD}{''.join(rows)}\n{_configurations()}"


def _row(key: str, declared: dict[str, Any] | None) -> str:
    default = "" if declared is None else str(declared["default"])
    words = _OTHERS[key] if declared is None else str(declared["description"])
    shown = f"`{default}`" if default else ""
    return f"| `{key}` | {shown} | {_allowed(key)} | {words} |\n"


def _allowed(key: str) -> str:
    if key in STRUCTURED:
        return f"as `{STRUCTURED[key]}`"
    field = next(one for name, one in StackSettings.model_fields.items() if to_camel(name) == key)
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    return "whole number" if field.annotation is int else "text"


def _configurations() -> str:
    rows = [f"| `{name}` | {one.summary} |\n" for name, one in configurations.load(None).items()]
    return (
        "## Configurations\n\n"
        "Those that are there ([configurations.yaml](../infra/configurations.yaml) has their masks "
        "and flows, and says how to\nwrite your own):\n\n"
        f"| name | what |\n|---|---|\n{''.join(rows)}"
    )


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
