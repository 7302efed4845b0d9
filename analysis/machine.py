"""What the runs ran on: described in words, and compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.schema import Machine, Record

Conditions = dict[str, frozenset[str]]


def conditions(records: Iterable[Record]) -> Conditions:
    """The values that each condition takes over the records; alike runs have one value each."""
    found: dict[str, set[str]] = {}
    for record in records:
        machine = record.machine
        values = {
            "target": record.target,
            "kernel": machine.kernel if machine else "not recorded",
            "CPU": machine.cpu if machine else "not recorded",
            "cores": str(machine.cores) if machine else "not recorded",
            "server cores": _listed(machine.server_cores) if machine else "not recorded",
            "client cores": _listed(machine.client_cores) if machine else "not recorded",
            "MTU": _mtus(machine) if machine else "not recorded",
            "offloads": _offloads(machine) if machine else "not recorded",
            "duration": f"{record.duration:g} s",
            "omit": f"{record.omit:g} s",
            "streams": str(record.streams),
            "pod CPU limit": record.pod_cpu_limit or "none",
        }
        for name, value in values.items():
            found.setdefault(name, set()).add(value)
    return {name: frozenset(values) for name, values in found.items()}


def differences(a: Conditions, b: Conditions) -> list[str]:
    """The conditions that are not the same in both, in words."""
    return [
        f"{name}: {_either(a[name])} against {_either(b[name])}" for name in a if a[name] != b[name]
    ]


def mixtures(found: Conditions) -> list[str]:
    """The conditions that take several values, in words."""
    return [f"{name}: {_either(values)}" for name, values in found.items() if len(values) > 1]


def describe(records: Sequence[Record]) -> list[str]:
    """Sentences on what the runs ran on and what their figures stand for."""
    lines: list[str] = []
    found = conditions(records)
    for target in sorted(found.get("target", ())):
        some = [record for record in records if record.target == target]
        own = conditions(some)
        if target == "lab":
            lines.append(
                f"The lab is one kernel ({_either(own['kernel'])}) on {_either(own['cores'])} "
                f"cores ({_either(own['CPU'])}), server on {_either(own['server cores'])}, client "
                f"on {_either(own['client cores'])}, with an emulated single-queue NIC. The "
                "magnitudes are the lab's; the mechanisms are the kernel's."
            )
        elif target == "kubernetes":
            lines.append(
                f"A Kubernetes cluster: kernel {_either(own['kernel'])}, {_either(own['CPU'])}, "
                f"{_either(own['cores'])} cores a node."
            )
        else:
            lines.append("Imported from published raw text, which does not record its machine.")
        lines.append(
            f"Each run measured {_either(own['duration'])} after {_either(own['omit'])} omitted, "
            f"{_either(own['streams'])} stream(s) a pair, pod CPU limit "
            f"{_either(own['pod CPU limit'])}."
        )
        lines += _versions(some)
    return lines


def _versions(records: Sequence[Record]) -> list[str]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in (record.machine.versions if record.machine else {}).items():
            found.setdefault(name, set()).add(version)
    if not found:
        return []
    parts = [f"{name} {_either(frozenset(values))}" for name, values in sorted(found.items())]
    ticks = {record.machine.irq_time_accounting for record in records if record.machine}
    by_tick = ticks == {False}
    note = " Softirq time is sampled at the tick (no IRQ_TIME_ACCOUNTING)." if by_tick else ""
    return [f"Versions: {', '.join(parts)}.{note}"]


def _mtus(machine: Machine) -> str:
    return ", ".join(f"{device} {mtu}" for device, mtu in sorted(machine.mtu.items()))


def _offloads(machine: Machine) -> str:
    """The offloads that are on, by device."""
    return "; ".join(
        f"{device} {'+'.join(sorted(name for name, on in which.items() if on)) or 'none'}"
        for device, which in sorted(machine.offloads.items())
    )


def _either(values: Iterable[str]) -> str:
    return " or ".join(sorted(values))


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers) or "not recorded"
