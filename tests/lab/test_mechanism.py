"""What steering does to the cores, measured: who takes the packets, and that the plan stood."""

from __future__ import annotations

import json
from typing import Any

from lab_project import Project

SETTINGS = ("duration=3", "omit=1")


def _measured(project: Project, stack: str, *settings: str) -> dict[str, Any]:
    project.up(stack, *settings)
    record: dict[str, Any] = json.loads(
        max((project.folder / "results" / stack).glob("*[0-9].json")).read_text()
    )
    return record


def _received(record: dict[str, Any]) -> tuple[int, int]:
    """Remote wake-ups (softnet_stat's received_rps) of the wire's core and of all others."""
    irq = record["machine"]["irq_core"]
    counts = {row["core"]: row["received_rps"] for row in record["softnet"]}
    return counts[irq], sum(count for core, count in counts.items() if core != irq)


def test_the_baseline_loads_one_core_and_rps_spreads_it(project: Project) -> None:
    baseline = _measured(project, "baseline-4", *SETTINGS)
    irq = baseline["machine"]["irq_core"]
    soft = {row["core"]: row["soft"] for row in baseline["cores"]}
    # the other core has the softirqs of the senders: how many depends on the machine
    assert soft.pop(irq) > max(80, *soft.values())
    assert _received(baseline)[1] < 10

    steered = _measured(project, "baseline-4", "configuration=rps")
    assert _received(steered)[1] > 100
