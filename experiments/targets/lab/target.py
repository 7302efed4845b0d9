"""The lab as a target (`experiments.targets.contract.Target`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from experiments.engines import StackRef
from experiments.host import lock
from experiments.targets.contract import AnyMeasurement, Backend, Drift, Findings
from experiments.targets.lab import drift, requirements, standing
from infra import cores, traffic
from infra.commands import command
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.lab import measurement as measurements
from infra.lab.measurement import Measurement
from infra.lab.plan import steered_nodes
from infra.settings import StackSettings


def made(resources: Iterable[dict[str, Any]]) -> bool:
    return any(one["type"] == "steerlab:lab:Lab" for one in resources)


def require(kind: str = traffic.DEFAULT, *, removal: bool = False) -> None:
    tools = requirements.TOOLS | traffic.of(kind).programs
    requirements.require_lab(tools, removal=removal)


def require_for(state: StackSettings) -> None:
    require(state.traffic)


def busy(stack: str, what: str) -> AbstractContextManager[None]:
    del stack  # one lab for each machine
    return lock.machine(what)


def refuse_foreign(stack: StackRef) -> None:
    standing.refuse_foreign(stack)


def refuse_replaced(stack: StackRef) -> None:
    del stack  # its commands delete nothing of another lab


def pinned(state: StackSettings, directory: Path) -> dict[str, str]:
    del state, directory  # this machine
    return {}


def cpus(state: StackSettings) -> int:
    del state
    return max(cores.online()) + 1


def steered(state: StackSettings) -> int:
    return len(steered_nodes(state))


def nodes(state: StackSettings) -> None:
    del state  # its two nodes have fixed names


def measurement(state: StackSettings, nodes: Any) -> Measurement:
    del nodes
    return measurements.of(state)


def require_up(what: AnyMeasurement) -> None:
    assert isinstance(what, Measurement)  # noqa: S101
    if drift.links_of(what.server_node) is None:
        raise PrerequisiteMissing(
            f"measure: stack {what.stack} is not up: there is no namespace {what.server_node}"
        )


def backend(what: Any) -> Backend:
    from experiments.targets.lab.backend import LabBackend

    return LabBackend(what)


def drifted(resources: Sequence[dict[str, Any]]) -> list[Drift]:
    return drift.drifted(resources)


def restore(found: Iterable[Drift]) -> None:
    drift.restore(found)


def finish(stack: StackRef) -> None:
    standing.finish(stack)


def leftover() -> str:
    if not standing.lab():
        return ""
    return f"the lab is still there: {command('destroy', '--lab')} removes it"


def examine(changes: dict[str, str]) -> Findings:
    from experiments.targets.lab import doctor

    if changes:
        raise InvalidInput("doctor: -c is for --target kubernetes")
    return doctor.examine()
