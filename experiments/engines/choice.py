"""The choice of the engine: the Pulumi CLI where it is on PATH, else the embedded one."""

from __future__ import annotations

import shutil
from typing import Literal

from experiments.engines import Engine
from infra.errors import InvalidInput, PrerequisiteMissing

Name = Literal["auto", "pulumi", "embedded"]


def choose(name: str = "auto") -> Engine:
    """The engine of that name; `auto` is the Pulumi CLI if it is on PATH, else embedded."""
    found = shutil.which("pulumi") is not None
    if name == "embedded" or (name == "auto" and not found):
        from experiments.engines.embedded import Embedded

        return Embedded()
    if name in ("auto", "pulumi"):
        if not found:
            raise PrerequisiteMissing(
                "engine: there is no `pulumi` on PATH: install the Pulumi CLI "
                "(./steerlab setup --pulumi) or use --engine embedded"
            )
        from experiments.engines.pulumi_cli import PulumiCli

        return PulumiCli()
    raise InvalidInput(f"engine: {name!r} is none of auto, pulumi, embedded")
