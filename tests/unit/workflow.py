"""The project's workflow for GitHub Actions, and its steps as a runner runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / ".github/workflows/ci.yaml"


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(PATH.read_text())["jobs"]
    return found


def scripts(job: str) -> dict[str, str]:
    """The script of each step that has one, by the step's name, in order."""
    return {step["name"]: step["run"] for step in jobs()[job]["steps"] if "run" in step}


def run(
    script: str, folder: Path, environment: Mapping[str, str], seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """A step in a folder, with the shell and the options of `shell: bash`."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
