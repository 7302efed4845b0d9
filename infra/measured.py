"""The last resource of a stack, its measurement: the command, and the outputs that it gives."""

from __future__ import annotations

import json
from typing import Any

import pulumi

from infra.config import State

MEASURE = "./steerlab measure --declared"

_RESULTS = ("bitrate_mbps", "bitrate_ci", "idle_percent", "softirq_percent", "directory")


def describe(state: State) -> dict[str, Any]:
    """The stack outputs that are known before anything runs."""
    return {
        "configuration": state.configuration,
        "replicas": state.replicas,
        "path": state.path,
        "target": state.target,
    }


def export_result(stdout: pulumi.Output[str]) -> None:
    """Make what the measurement printed stack outputs."""
    result = stdout.apply(_parsed)
    for name in _RESULTS:
        pulumi.export(name, result[name])


def _parsed(stdout: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(stdout)
    return result
