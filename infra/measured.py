"""The last resource of a stack, its measurement: the command, and the outputs that it gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pulumi
from pulumi_command import local

from infra.settings import StackSettings

MEASURE = "./steerlab hook measure"

# Its name, and the outputs that it gives.
NAME = "measurement"
RESULTS = (
    "bitrate_mbps", "bitrate_ci", "idle_percent", "softirq_percent", "valid_runs", "directory",
)  # fmt: skip


def describe(state: StackSettings) -> dict[str, Any]:
    """The stack outputs that are known before anything runs."""
    return {
        "configuration": state.configuration,
        "replicas": state.replicas,
        "path": state.lab.path,
        "target": state.target,
    }


def declare(
    state: StackSettings, of: Callable[[], str], *, stands_on: Sequence[pulumi.Resource]
) -> None:
    """Declare the stack's outputs and, where `runs` asks for one, its measurement.

    `of` gives the measurement's stdin, asked for only where there is one.
    """
    for name, value in describe(state).items():
        pulumi.export(name, value)
    if state.runs == 0:
        return
    measured = local.Command(
        NAME,
        create=MEASURE,
        stdin=of(),
        triggers=[state.digest()],
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(depends_on=stands_on, delete_before_replace=True),
    )
    result = measured.stdout.apply(_parsed)
    for name in RESULTS:
        pulumi.export(name, result[name])


def _parsed(stdout: str) -> dict[str, Any]:
    """All results; one that an earlier version did not give is None."""
    result: dict[str, Any] = json.loads(stdout)
    return {**dict.fromkeys(RESULTS), **result}
