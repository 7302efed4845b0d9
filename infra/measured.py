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
LATENCY = ("p50_us", "p99_us")
NODES = ("bitrate_by_node", "unlike_nodes")
RESULTS = (
    "bitrate_mbps", "bitrate_ci", *LATENCY, "idle_percent", "softirq_percent", *NODES, "valid_runs",
    "directory",
)  # fmt: skip


def declare(
    state: StackSettings, of: Callable[[], str], *, stands_on: Sequence[pulumi.Resource]
) -> None:
    """Declare the stack's outputs and, where `runs` asks for one, its measurement.

    `of` returns the stdin of the measurement.
    """
    pulumi.export("configuration", state.configuration)
    pulumi.export("replicas", state.replicas)
    pulumi.export("path", state.lab.path)
    pulumi.export("target", state.target)
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
    metrics = {metric for kind in state.pairs.values() for metric in kind.metrics}
    left_out = {name for name in LATENCY if name not in metrics}
    left_out |= {*NODES} if state.target == "lab" else set()
    for name in RESULTS:
        if name not in left_out:
            pulumi.export(name, result[name])


def _parsed(stdout: str) -> dict[str, Any]:
    """All results; one that an earlier version did not give is None."""
    result: dict[str, Any] = json.loads(stdout)
    return {**dict.fromkeys(RESULTS), **result}
