"""What the devices that a plan steers have received, by the kernel's counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.devices import TUNNELS
from agent.namespaces import Namespace

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.targets import Target

COUNTERS = ("rx_bytes", "rx_packets", "rx_dropped")


class Watched(NamedTuple):
    """A device of a plan."""

    role: str
    pod: str | None
    namespace: Namespace
    device: str

    def counters(self) -> dict[str, int]:
        return {name: self.namespace.number(self.device, f"statistics/{name}") for name in COUNTERS}

    def row(self, counters: Mapping[str, int]) -> dict[str, Any]:
        where = {"role": self.role, "pod": self.pod, "namespace": self.namespace.path}
        return {**where, "device": self.device, **counters}


def watched(targets: Iterable[Target], by_path: Mapping[str | None, Namespace]) -> list[Watched]:
    """Each device that a plan steers, once."""
    places = [
        (one.rule.role, one.rule.pod, *one.held.place.names[:2]) for one in targets if one.rule
    ]
    return [
        Watched(role, pod, by_path[path], device)
        for role, pod, path, device in dict.fromkeys(places)
        if device
    ]


def device_counts(
    targets: Iterable[Target], by_path: Mapping[str | None, Namespace]
) -> list[dict[str, Any]]:
    """A row for each steered device, and for each other tunnel beside a steered NIC, since it was made."""
    steered = watched(targets, by_path)
    known = {(one.namespace.path, one.device) for one in steered}
    nodes = {one.namespace.path: one.namespace for one in steered if one.role == "nic"}
    others = [
        Watched("overlay", None, namespace, name)
        for path, namespace in nodes.items()
        for name in namespace.devices()
        if (path, name) not in known and namespace.kind(name) in TUNNELS
    ]
    return [
        {**one.row(one.counters()), "steered": is_steered}
        for devices, is_steered in ((steered, True), (others, False))
        for one in devices
    ]
