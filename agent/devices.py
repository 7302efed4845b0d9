"""Finds the devices of a plan by itself: by their kind, by the routes to the peers, by the pods' own devices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agent.namespaces import OPEN_VSWITCH, Namespace
from agent.patterns import is_like, is_pattern, matching
from agent.plan import Plan, Rule

TUNNELS = (
    "vxlan", "geneve", "wireguard", "ipip", "ip6tnl", "sit", "gre", "ip6gre", "gretap", "ip6gretap",
)  # fmt: skip
# Tunnels that a program (BPF, Open vSwitch) may put packets into, which no route shows.
ENCAPSULATING = ("vxlan", "geneve")
RTF_UP, RTF_REJECT = 0x1, 0x200  # linux/route.h
VETHS = "cali* veth* lxc* azv* eni*"  # for a plan that names no pod


class Path(NamedTuple):
    """The devices that receive for the measured pods of a namespace, and the peers without a route."""

    nics: list[str]
    overlays: list[str]
    lost: list[str]


class Finder:
    """The devices of a plan; looks at each namespace once."""

    def __init__(self, plan: Plan, by_path: Mapping[str | None, Namespace]) -> None:
        self._plan = plan
        self._by_path = by_path
        self._paths: dict[str, Path] = {}

    def chosen(self, namespace: Namespace, rule: Rule) -> list[str]:
        """The devices that match a rule; `auto` matches none that other rules name."""
        names = namespace.devices()
        found = set(matching([one for one in rule.devices if one != "auto"], names))
        if "auto" in rule.devices:
            found |= {*self._auto(namespace, rule.role, names)} - named_elsewhere(self._plan, rule)
        return sorted(found)

    def lost(self, namespace: Namespace) -> list[str]:
        """The peers without a route from a namespace."""
        return self._path(namespace).lost if self._plan.peers else []

    def _auto(self, namespace: Namespace, role: str, names: Sequence[str]) -> list[str]:
        if role == "veth":
            return self._host_ends(namespace) if self._pods() else matching(VETHS.split(), names)
        if not self._plan.peers:
            return by_kind(namespace, role, names)
        path = self._path(namespace)
        return path.overlays if role == "overlay" else path.nics

    def _pods(self) -> list[tuple[Namespace, str]]:
        """The devices of the plan's pods, each with its namespace."""
        return [
            (namespace, device)
            for rule in self._plan.rules
            if rule.role == "pod"
            for namespace in meant(rule.namespace, self._by_path)
            for device in matching(rule.devices, namespace.devices())
        ]

    def _host_ends(self, namespace: Namespace) -> list[str]:
        known = by_index(namespace)
        ends = (host_end(namespace, known, pod, device) for pod, device in self._pods())
        return [end for end in ends if end]

    def _path(self, namespace: Namespace) -> Path:
        if namespace.cookie not in self._paths:
            found = path_of(namespace, self._plan.peers, self._pods())
            self._paths[namespace.cookie] = found
        return self._paths[namespace.cookie]


def meant(path: str | None, by_path: Mapping[str | None, Namespace]) -> list[Namespace]:
    """The namespaces of a rule's path or pattern."""
    if path is None or not is_pattern(path):
        return [by_path[path]] if path in by_path else []
    return [ns for known, ns in by_path.items() if known and is_like(known, path)]


def named_elsewhere(plan: Plan, rule: Rule) -> set[str]:
    rules = (r for r in plan.rules if r is not rule and r.namespace == rule.namespace)
    return {name for other in rules for name in other.devices}


def by_index(namespace: Namespace) -> dict[int, str]:
    return {namespace.number(name): name for name in namespace.devices()}


def host_end(
    namespace: Namespace, known: Mapping[int, str], pod: Namespace, device: str
) -> str | None:
    """The other end of a pod's device in a namespace; None where it is not there.

    Each end of a pair has the number of the other one. By chance this may hold for a NIC, whose
    link is itself, and for a device below a pod's macvlan or ipvlan: these are no pairs.
    """
    end = known.get(pod.number(device, "iflink"))
    if end is None or namespace.number(end, "iflink") != pod.number(device):
        return None
    return end if namespace.kind(end) in ("veth", "netkit") else None


def path_of(
    namespace: Namespace, peers: Mapping[str, str], pods: Sequence[tuple[Namespace, str]]
) -> Path:
    """The devices on the routes from the pods of a node to `peers`: pods, each with the address of its node.

    Packets from the peer arrive by the same devices, unless routing is asymmetric.
    """
    known = by_index(namespace)
    nics: list[str] = []
    overlays: list[str] = []
    lost = []
    for peer, node in peers.items():
        outer = leaving(namespace, known, node)
        used = routed(namespace, known, peer, pods)
        if not used:
            lost.append(peer)
        for device in used:
            if namespace.kind(device) in TUNNELS:
                overlays.append(device)
                nics += below(namespace, known, device) or outer
            elif device in outer or leads_out(namespace, device):
                nics.append(device)
            else:
                overlays += [one for one in encapsulating(namespace) if namespace.is_up(one)]
                nics += outer
    return Path(list(dict.fromkeys(nics)), list(dict.fromkeys(overlays)), lost)


def leads_out(namespace: Namespace, device: str) -> bool:
    """Whether packets leave the machine by a device; otherwise a program or a switch handles them.

    A veth leads out if its other end is in another namespace: the node is a container.
    """
    if namespace.kind(device) == "veth":
        try:
            return bool(namespace.fib and namespace.fib.leads_elsewhere(namespace.number(device)))
        except OSError:
            return False
    return namespace.kind(device) != OPEN_VSWITCH and namespace.on_hardware(device)


def routed(
    namespace: Namespace,
    known: Mapping[int, str],
    peer: str,
    pods: Sequence[tuple[Namespace, str]],
) -> list[str]:
    """The devices by which packets of the pods to a peer leave, also under policy routing."""
    own = leaving(namespace, known, peer)  # of the node's own packets
    found: list[str] = []
    for pod, device in pods:
        end = host_end(namespace, known, pod, device)
        source = source_of(pod, peer) if end else ""
        by = (
            leaving(namespace, known, peer, source, namespace.number(end)) if end and source else []
        )
        found += by or own
    return list(dict.fromkeys(found or own))


def source_of(pod: Namespace, peer: str) -> str:
    """The address of a pod that a peer sees; empty where it is not known."""
    try:
        return pod.fib.source(peer) if pod.fib else ""
    except OSError:
        return ""


def leaving(
    namespace: Namespace, known: Mapping[int, str], address: str, source: str = "", arrives: int = 0
) -> list[str]:
    """The devices by which packets to an address leave a namespace; empty where there is no route."""
    if namespace.fib is None:
        return []
    try:
        indexes = namespace.fib.devices(address, source, arrives)
    except OSError:
        return []
    return [known[index] for index in indexes if index in known]


def below(namespace: Namespace, known: Mapping[int, str], device: str) -> list[str]:
    """The device that a tunnel is on, where it is bound to one."""
    link = known.get(namespace.number(device, "iflink"))
    return namespace.lower(device) or ([link] if link not in (None, device) else [])


def encapsulating(namespace: Namespace) -> list[str]:
    """Devices of overlays, with those that are up first: a removed CNI may leave its device."""
    found = [name for name in namespace.devices() if namespace.kind(name) in ENCAPSULATING]
    return sorted(found, key=lambda name: not namespace.is_up(name))


def by_kind(namespace: Namespace, role: str, names: Iterable[str]) -> list[str]:
    """The overlay, or the NIC below it, of a plan without peers."""
    overlay = encapsulating(namespace)[:1]
    if role == "overlay":
        return overlay
    under = [one for name in overlay for one in below(namespace, by_index(namespace), name)][:1]
    if under and namespace.is_up(overlay[0]):
        return under
    return [name for name in names if name == default_route_device(namespace.routes)] or under


def other_overlays(plan: Plan, by_path: Mapping[str | None, Namespace]) -> list[str]:
    """Warnings about further overlays, of which `auto` chose one without peers."""
    words = []
    for rule in plan.rules:
        if plan.peers or "auto" not in rule.devices or rule.role not in ("nic", "overlay"):
            continue
        named = {*rule.devices, *named_elsewhere(plan, rule)}
        for namespace in meant(rule.namespace, by_path):
            overlays = encapsulating(namespace)
            others = [
                f"{name} ({'up' if namespace.is_up(name) else 'down'})"
                for name in overlays[1:]
                if name not in named
            ]
            if others:
                words.append(
                    f"the overlay of {namespace} is {overlays[0]} by auto, {', '.join(others)} left "
                    "out: name the device if another is meant"
                )
    return list(dict.fromkeys(words))


def default_route_device(routes: str) -> str | None:
    """The device of the default route of least metric in the text of /proc/net/route.

    Reject routes do not count. If there is no default route, the lower half of one in two halves
    counts: a VPN adds such halves and keeps the default route.
    """
    # a device's name may contain characters that Python treats as white space or line ends
    row = (
        r"^([^ \t\n]+)[ \t]+00000000[ \t]+[^ \t\n]+[ \t]+([0-9A-Fa-f]{1,8})[ \t]+"
        r"(?:[^ \t\n]+[ \t]+){2}([0-9]{1,10})[ \t]+(0{8}|0{6}80|80{7})[ \t]"
    )
    defaults = [
        (int(mask, 16) != 0, int(metric), device)
        for device, flags, metric, mask in re.findall(row, routes, re.M | re.A)
        if int(flags, 16) & (RTF_UP | RTF_REJECT) == RTF_UP
    ]
    return min(defaults)[2] if defaults else None
