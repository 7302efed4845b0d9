"""Declared resources: `__main__.py` calls `deploy`, which reads the settings and declares the target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.settings import StackSettings


def deploy() -> None:
    """Declare the current stack. Invalid input ends the program before any resource is declared."""
    import pulumi

    from infra import config
    from infra.errors import Refusal, leave

    if not Path("agent/__main__.py").is_file():
        raise pulumi.RunError(f"run pulumi from the project's root, not from {Path.cwd()}")
    try:
        settings = config.from_pulumi()
        TARGETS[settings.target](settings)
    except Refusal as refusal:
        leave(refusal.exit_code)
        raise pulumi.RunError(str(refusal)) from None


def _lab(settings: StackSettings) -> None:
    from infra import lab

    lab.declare(settings)


def _kubernetes(settings: StackSettings) -> None:
    from infra.kubernetes import cluster

    cluster.declare(settings)


TARGETS = {"lab": _lab, "kubernetes": _kubernetes}
