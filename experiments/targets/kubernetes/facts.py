"""The nodes of a cluster's experiment, as records describe them: kernel, CPU, NIC and instance type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from analysis.schema import NodeFacts
from experiments.host import machine
from experiments.targets.kubernetes.sessions import NodeAgent
from experiments.targets.kubernetes.shell import PodShell, run
from infra import untrusted
from infra.kubernetes import nodes
from infra.kubernetes.measurement import ClusterMeasurement, NodeOf
from infra.kubernetes.nodes import Node
from infra.traffic.contract import Kind

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_ARCHITECTURE = ("uname", "-m")
_CPU = "proc/cpuinfo"
_NIC = ("sys/class/net/{}/device/uevent", "sys/class/net/{}/speed")


def of_nodes(
    api: ApiClient,
    what: ClusterMeasurement,
    agent_of: Callable[[NodeOf], NodeAgent],
    pods: Mapping[str, PodShell],
    devices: Iterable[str],
) -> list[NodeFacts]:
    """The nodes of a measurement, from the API and the node's agent or, where it has none, a measured pod.

    `pods` are by node, `devices` those that are steered. A pod does not show the node's NIC.
    """
    known = {node.name: node for node in nodes.named(api, [one.name for one in what.nodes])}
    found = []
    for one in what.nodes:
        node = known.get(one.name)
        files: Mapping[str, str] = {}
        architecture = ""
        if one.steered:
            patterns = [_CPU, *(path.format(device) for device in devices for path in _NIC)]
            said = agent_of(one).look({"files": patterns, "commands": [_ARCHITECTURE]})
            files, architecture = said["files"], said["commands"][" ".join(_ARCHITECTURE)]
        elif one.name in pods:
            answer = run(pods[one.name], ("sh", "-c", f"uname -m; cat /{_CPU}"))
            architecture, _, cpus = answer.out.partition("\n")
            files = {f"/{_CPU}": cpus} if answer.status == 0 else {}
        cpuinfo = files.get(f"/{_CPU}")
        with untrusted.reading(f"the CPU of node {one.name}"):
            cpu = cpuinfo and machine.cpu_model(cpuinfo, architecture.strip())
        of_api = known_of(node, one.side) if node else NodeFacts(name=one.name, side=one.side)
        found.append(of_api.model_copy(update={"cpu": cpu or None, "nic": nics(files)}))
    return found


def versions(kinds: Mapping[int, Kind], servers: Mapping[int, PodShell]) -> dict[str, str]:
    """Of the programs that the server of a pair of each kind runs."""
    return {
        tool: machine.version(run(servers[index], (tool, "--version")).out)
        for index, kind in kinds.items()
        for tool in kind.tools
    }


def known_of(node: Node, side: Literal["server", "client"]) -> NodeFacts:
    """What the API tells of a node."""
    return NodeFacts(
        name=node.name,
        side=side,
        kernel=node.kernel,
        cores=node.cpus,
        instance_type=node.instance_type or None,
    )


def nics(files: Mapping[str, str]) -> str | None:
    """Driver and speed of the hardware among the devices of these files of /sys (pure): `mlx5_core 25000 Mbit/s`."""
    found = set()
    for path, text in files.items():
        if not path.endswith("/device/uevent"):
            continue
        drivers = [
            row.partition("=")[2] for row in untrusted.lines(text) if row.startswith("DRIVER=")
        ]
        speed = files.get(path.replace("/device/uevent", "/speed"), "").strip()
        known = f" {speed} Mbit/s" if speed.isdecimal() else ""
        found |= {f"{driver}{known}" for driver in drivers}
    return ", ".join(sorted(found)) or None
