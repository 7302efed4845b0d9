"""Why pods do not run: the cause from the objects of the API, its remedy, and when it is final."""

from __future__ import annotations

from typing import Any

import pytest

from infra.kubernetes import causes


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def waiting(reason: str, message: str = "", ended: str = "") -> dict[str, Any]:
    last = {"terminated": {"exitCode": 255, "message": ended}} if ended else {}
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(phase="Running", containerStatuses=[{"state": state, "lastState": last}])


def owner(*conditions: tuple[str, str, str]) -> dict[str, Any]:
    names = ("type", "status", "message")
    return {"status": {"conditions": [dict(zip(names, one, strict=True)) for one in conditions]}}


QUOTA = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4'


@pytest.mark.parametrize(
    ("of", "pods", "events", "words"),
    [
        (owner(("ReplicaFailure", "True", QUOTA)), [], [], ("exceeded quota", "ResourceQuota")),
        ({}, [], [{"reason": "FailedCreate", "message": QUOTA}], ("exceeded quota", "ResourceQuota")),
        ({}, [waiting("ErrImagePull", "not found")], [], ("pod p: ErrImagePull: not found", "docker/build")),
        (
            {},
            [waiting("CrashLoopBackOff", "back-off 10s", "exec /usr/bin/iperf3: exec format error")],
            [],
            ("pod p: CrashLoopBackOff", "exec format error", "architecture"),
        ),
        (
            {},
            [pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}])],
            [],
            ("pod p: 0/3 nodes",),
        ),
        ({}, [], [{"reason": "FailedMount", "message": "no such folder"}], ("FailedMount: no such",)),
    ],
)  # fmt: skip
def test_a_cause_has_its_remedy_and_time_to_end(
    of: dict[str, Any], pods: list[Any], events: list[Any], words: tuple[str, ...]
) -> None:
    (cause,) = causes.of(of, pods, events)
    assert all(one in cause.text for one in words)
    assert 0 < cause.patience_s < 60


def test_what_no_time_changes_is_final_at_once() -> None:
    for reason in ("InvalidImageName", "CreateContainerConfigError"):
        (cause,) = causes.of({}, [waiting(reason)])
        assert cause.patience_s == 0


def test_pods_that_are_starting_or_running_have_no_cause() -> None:
    running = pod(containerStatuses=[{"state": {"running": {}}}], conditions=[
        {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False", "message": "x"},
    ])  # fmt: skip
    several = owner(("ReplicaFailure", "False", "x"), ("Available", "False", "no minimum"))
    assert causes.of(several, [running, waiting("ContainerCreating"), pod()]) == []
