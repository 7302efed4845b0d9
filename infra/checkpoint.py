"""A stack's checkpoint file, as Pulumi's file backend and both engines keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def path_of(home: Path, project: str, stack: str) -> Path:
    """Where it is; `.pulumi` is inside `home`."""
    return home / ".pulumi" / "stacks" / project / f"{stack}.json"


def resources(path: Path) -> list[dict[str, Any]]:
    """Its resources in Pulumi's own form, whichever engine wrote them; empty where none exists."""
    if not path.exists():
        return []
    latest = json.loads(path.read_text())["checkpoint"].get("latest") or {}
    return list(latest.get("resources") or [])
