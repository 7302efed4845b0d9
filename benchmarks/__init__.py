"""Figures of steerlab as JSON; run as `.venv/bin/python -m benchmarks.NAME` in the checkout."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def show(figures: Any) -> None:
    print(json.dumps(figures, indent=1))  # noqa: T201


def machine() -> dict[str, Any]:
    return {"kernel": platform.release(), "cores": os.cpu_count()}
