"""Observe: the counters of a node at both ends of a window, and the settings of its devices; writes nothing."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from agent.device_counts import COUNTERS, Watched, watched
from agent.knobs import DEVICE
from agent.machine import Machine
from agent.namespaces import Namespace
from agent.plan import Plan, wanted_values
from agent.procstat import Counters
from agent.survey import Survey
from agent.targets import find_targets, machine_row, report, row_of

# Pods whose connections are counted: the kernel walks the machine's whole table for each of them.
MOST_PODS, MOST_FLOWS = 4, 256


def observe(machine: Machine, plan: Plan, seconds: float) -> dict[str, Any]:
    """Settings of the plan's devices, and what they and the CPUs did in so many seconds.

    Connections are counted in the second half, in the pods that received most in the first one, or in the
    node itself where there is no pod. The hosts' ends of the pods' devices have the same traffic and are left out.
    """
    survey = Survey(machine, (rule.namespace for rule in plan.rules))
    wanted = wanted_values(plan, machine.cpus)
    targets, absent = find_targets(machine, plan, wanted, survey.by_path)
    devices = [one for one in watched(targets, survey.by_path) if one.role != "veth"]
    settings = [
        {"role": one.role, **row_of(held)}
        for one in devices
        if one.role in ("nic", "overlay")
        for held in one.namespace.holdings(one.device, DEVICE)
    ]
    answer = report(machine, plan, targets)
    with ExitStack() as stack:
        counters = Counters(machine.root / "proc", stack)
        edges = [counters.read()]
        first = [one.counters() for one in devices]
        time.sleep(seconds / 2)
        pods = busiest(devices, first)
        diags = [machine.sock_diag_in(namespace) for namespace in pods]
        for diag in diags:
            stack.callback(diag.close)
        before = [diag.received() for diag in diags]
        time.sleep(seconds / 2)
        after = [diag.received() for diag in diags]
        last = [one.counters() for one in devices]
        edges.append(counters.read())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        **answer,
        "plan": plan.document,
        "cpus": machine.cpus._asdict(),
        **machine_row(machine.own().values),
        "devices": settings,
        "edges": [edge.document() for edge in edges],
        "traffic": [
            one.row({name: end[name] - begin[name] for name in COUNTERS})
            for one, begin, end in zip(devices, first, last)
        ],
        "flows": [
            {"namespace": namespace.path, "received": flows(*both)[:MOST_FLOWS]}
            for namespace, *both in zip(pods, before, after)
        ],
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "warnings": [*answer["warnings"], *survey.all_unread(), *(one.words for one in absent)],
    }


def busiest(devices: Sequence[Watched], first: Sequence[Mapping[str, int]]) -> list[Namespace]:
    """The namespaces of the pods that received most since then; that of the NIC if there is no pod."""
    role = "pod" if any(one.role == "pod" for one in devices) else "nic"
    rows = [
        (one.counters()["rx_bytes"] - begin["rx_bytes"], one.namespace)
        for one, begin in zip(devices, first)
        if one.role == role
    ]
    rows.sort(key=lambda row: -row[0])
    found = {namespace.path: namespace for _, namespace in rows}
    return list(found.values())[:MOST_PODS]


def flows(before: Mapping[bytes, int], after: Mapping[bytes, int]) -> list[int]:
    """The bytes that each connection has received meanwhile, most first (pure)."""
    sizes = (size - before.get(identity, 0) for identity, size in after.items())
    return sorted((size for size in sizes if size > 0), reverse=True)
