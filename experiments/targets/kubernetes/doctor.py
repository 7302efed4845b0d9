"""Examines a cluster: properties, missing prerequisites and sources of error.

The objects of a stack, created as `up` creates them in two temporary namespaces, show whether its pods are
admitted and reach each other. Steering is read, never written.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.archive import digest
from agent.knobs import RX_QUEUE
from agent.values import as_list
from analysis.machine import unlike
from experiments.engines.choice import choose
from experiments.engines.embedded.provider import OperationFailed
from experiments.host import machine
from experiments.host.nodes import uppers
from experiments.targets.kubernetes import agents, facts
from experiments.targets.kubernetes.pods import running
from experiments.targets.kubernetes.probes import Pair, Probe, Probes, listed, namespace, pairs
from experiments.targets.kubernetes.shell import PodShell, Shell, SshShell, looked
from experiments.targets.lab.doctor import hints, in_use
from infra import untrusted
from infra.errors import Refusal
from infra.kubernetes import agent, rights
from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.admission import copy, require
from infra.kubernetes.names import DOCTOR, NODE_LEVEL, OVERLAY_LEVEL, Names
from infra.kubernetes.nodes import Node, Nodes, find, owners_of_table
from infra.kubernetes.pinned import Pin, look
from infra.kubernetes.plan import NodePods, by_node, node_plan
from infra.settings import StackSettings, cpu_limit
from infra.traffic.contract import PORT

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# Size of the outer headers over IPv4, bytes: of VXLAN (RFC 7348, section 5) and Geneve, and of tunnels that
# are no Ethernet devices, by the number of their type (linux/if_arp.h): IPIP, sit, GRE, WireGuard.
OVERHEAD = 50
OVERHEAD_OF_TYPE = {"768": 20, "776": 20, "778": 24, "65534": 60}

_ABOUT = (
    "sys/class/net/*/mtu",
    "sys/class/net/*/type",
    "proc/sys/kernel/osrelease",
    *machine.CONFOUNDERS,
)


@dataclass
class NodeFindings:
    """One node; `lacks` are missing prerequisites, `cautions` are possible sources of error."""

    name: str
    side: str
    cpus: int
    kernel: str
    facts: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """The result of an examination; a stack can be set up if all `lacks` are empty."""

    api: str = ""
    rights: str = ""
    nodes: list[NodeFindings] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        return [*self.lacks, *(f"{node.name}: {one}" for node in self.nodes for one in node.lacks)]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "missing": self.missing}

    def text(self) -> str:
        """One row for each subject."""
        rows = [("API", self.api), ("rights", self.rights)]
        for node in self.nodes:
            about = f"{node.side} node, {node.cpus} CPUs, kernel {node.kernel}"
            said = [*node.facts, *(f"caution: {one}" for one in node.cautions)]
            rows += [(node.name, about), *(("", words) for words in said)]
        rows += [("lacks", words) for words in self.missing]
        if not self.missing:
            rows.append(("cluster", "ready for a stack: ./steerlab up -s rfs-plus-4 -c ..."))
        width = max(len(subject) for subject, _ in rows)
        return "\n".join(f"{subject:<{width}} {words}" for subject, words in rows if words)


def examine(state: StackSettings) -> Findings:
    """Examine the cluster of these settings; failed requests are among the missing prerequisites."""
    found = Findings()
    try:
        api, pin = look(state.kubernetes.kubeconfig, state.kubernetes.context)
        of = state.kubernetes.model_copy(update={"context": pin.context})
        state = state.model_copy(update={"kubernetes": of})
        found.api = _version(api)
        wanted = rights.needed(
            state.kubernetes.node_access,
            state.kubernetes.namespace,
            pulumi=choose().name == "pulumi",
        )
        refused = rights.denied(api, wanted)
    except Refusal as refusal:
        found.lacks.append(str(refusal))
        return found
    found.rights = f"{len(wanted) - len(refused)} of the {len(wanted)} required rights"
    found.lacks += [f"the right to {right}, in {right.where}" for right in refused]
    try:
        nodes = find(api, state.kubernetes)
    except Refusal as refusal:
        found.lacks.append(str(refusal))
        return found
    found.nodes = [
        *(NodeFindings(node.name, "server", node.cpus, node.kernel) for node in nodes.servers),
        *(NodeFindings(node.name, "client", node.cpus, node.kernel) for node in nodes.clients),
    ]
    known = [
        *(facts.known_of(node, "server") for node in nodes.servers),
        *(facts.known_of(node, "client") for node in nodes.clients),
    ]
    found.nodes[0].cautions += [
        f"unlike nodes: {words}; results over several of them have no verdict"
        for words in unlike(known)
    ]
    if not refused:
        try:
            _probe(api, state, nodes, {node.name: node for node in found.nodes})
        except Refusal as refusal:
            found.lacks.append(str(refusal))
    return found


def _version(api: ApiClient) -> str:
    from kubernetes.client import VersionApi

    with explained("asking the API server for its version"):
        version = VersionApi(api).get_code(_request_timeout=CALL_S).git_version
    return f"{version} at {api.configuration.host}"


# --- on the nodes ---


def _probe(
    api: ApiClient, state: StackSettings, nodes: Nodes, found: Mapping[str, NodeFindings]
) -> None:
    """Create what a stack has on its nodes, send traffic, examine the nodes, and delete it again."""
    # an earlier one may still be in deletion
    names = Names(f"{DOCTOR}{secrets.token_hex(3)}", state.kubernetes.namespace)
    steered = nodes.steered(state.steer_nodes == "both")
    by_job = state.kubernetes.node_access == "job"
    require(api, state.kubernetes.pods.image_pull_secrets, names.namespace)
    with ExitStack() as stack:
        rooms = {names.pods: OVERLAY_LEVEL, **({names.steering: NODE_LEVEL} if by_job else {})}
        for room, level in rooms.items():
            if not names.namespace:
                stack.enter_context(namespace(api, room, level))
            copy(api, room, state.kubernetes.pods.image_pull_secrets)
        probes = stack.enter_context(Probes(state, names))
        if by_job:
            probes.account(api)
        wanted = pairs(state, nodes)
        agents_of = {node.name: probes.agent(node) for node in steered if by_job}
        standing = [
            *agents_of.values(),
            *(one for pair in wanted for one in (probes.server(pair), probes.client(pair))),
        ]
        jobs = {node.name: probes.job(node) for node in steered if by_job}
        # what takes seconds, at once; each finds on its own, so that the order of findings is always the same
        parts = {
            what: {
                name: replace(one, facts=[], cautions=[], lacks=[]) for name, one in found.items()
            }
            for what in ("jobs", "traffic", "devices")
        }
        made: set[str] = probes.each(
            {
                "standing": partial(_created, probes, found, standing),
                "jobs": partial(_created, probes, parts["jobs"], [*jobs.values()]),
            }
        )["standing"]
        with_agent = [node for node in steered if not by_job or agents_of[node.name].name in made]
        for name in jobs.keys() - {node.name for node in with_agent}:
            parts["jobs"][name].lacks.clear()  # what is wrong with the agent's pod is said of that
        ready = listed(api, names, names.pods)
        placed = by_node(ready)
        probes.each(
            {
                "traffic": partial(_reached, probes, state, wanted, ready, parts["traffic"]),
                "devices": partial(
                    _devices_of, state, names, nodes, with_agent, placed, parts["devices"]
                ),
            }
        )
        for pod in [pod for room in rooms for pod in listed(api, names, room)]:
            measured = pod.spec.containers[0].name != agent.CONTAINER
            words = _limited(pod, state.pod_cpu_limit if measured else "")
            if words and pod.spec.node_name in found:
                parts["traffic"][pod.spec.node_name].cautions.append(words)
        for node, part in ((node, part[node]) for part in parts.values() for node in found):
            of = found[node]
            of.facts += [one for one in part.facts if one not in of.facts]
            of.cautions += [one for one in part.cautions if one not in of.cautions]
            of.lacks += part.lacks


def _created(
    probes: Probes, found: Mapping[str, NodeFindings], wanted: Sequence[Probe]
) -> set[str]:
    """Create objects with pods; the names of those whose pods run."""
    made = probes.each({one.name: one.create for one in wanted})
    for one in wanted:
        node, error = found[one.node.name], made[one.name]
        if isinstance(error, OperationFailed):
            node.lacks.append(f"{one.name} with image {one.image}: {error}")
        elif (words := f"image {one.image} is available") not in node.facts:
            node.facts.append(words)
    return {name for name, one in made.items() if not isinstance(one, OperationFailed)}


def _reached(
    probes: Probes,
    state: StackSettings,
    wanted: Sequence[Pair],
    listed: Sequence[Any],
    found: Mapping[str, NodeFindings],
) -> None:
    """A second of traffic from each client to its server's pod and, if a stack uses it, to the Service."""
    containers = {pair.kind.image for pair in wanted}
    servers, clients = (running(listed, role, containers) for role in ("server", "client"))
    there = {
        f"pair {one.index}": one for one in wanted if one.index in servers and one.index in clients
    }
    hosts = {name: servers[one.index].address for name, one in there.items()}
    senders = {name: clients[one.index] for name, one in there.items()}
    for what in ("pods", "Services")[: 1 + (state.kubernetes.via == "service")]:
        failed: dict[str, str] = {}
        if what == "Services":
            made = probes.each({name: probes.service(there[name]) for name in hosts})
            failed = {n: str(one) for n, one in made.items() if isinstance(one, OperationFailed)}
            hosts = {
                n: made[n].get("spec", {}).get("clusterIP", "") for n in hosts if n not in failed
            }
        failed |= probes.each(
            {n: probes.traffic(there[n], senders[n], host) for n, host in hosts.items()}
        )
        for name, why in failed.items():
            if why:
                hosts.pop(name, None)
                pair = there[name]
                found[pair.client.name].lacks.append(
                    f"no traffic to {what} of node {pair.server.name}, port {PORT}: {why}; network "
                    "policies and firewalls must allow it"
                )
    chosen = probes.each({name: probes.restricted(there[name], senders[name]) for name in hosts})
    for name, words in chosen.items():
        found[there[name].client.name].cautions += [words] if words else []


def _limited(pod: Any, wanted: str) -> str:
    """That a pod's first container has another CPU limit than its template; else empty (pure)."""
    resources = pod.spec.containers[0].resources
    limit = ((resources and resources.limits) or {}).get("cpu", "")
    if cpu_limit(limit) == cpu_limit(wanted):
        return ""
    return (
        f"{pod.spec.containers[0].name} has a CPU limit of {limit or 'none'}, not {wanted or 'none'}: "
        "a LimitRange or a webhook sets it, and it throttles; records have the limit of the pods"
    )


def _devices_of(
    state: StackSettings,
    names: Names,
    nodes: Nodes,
    steered: Sequence[Node],
    placed: Mapping[str, NodePods],
    found: Mapping[str, NodeFindings],
) -> None:
    """What the agents report of nodes that have pods with a peer."""
    of, tables = state.kubernetes, owners_of_table(nodes.steered(state.steer_nodes == "both"))
    for node in steered:
        pods = placed.get(node.name, NodePods())
        if not pods.peers:
            continue  # its pods, or those of all other nodes, do not run
        try:
            shell: Shell = (
                SshShell(node.address, of.ssh)
                if of.node_access == "ssh"
                else agents.agent_shell(of.kubeconfig, Pin(context=of.context), names, node.name)
            )
            _look(
                shell, state, found[node.name], _plan(state, pods, owns_table=node.name in tables)
            )
        except Refusal as refusal:
            found[node.name].lacks.append(str(refusal))


def _plan(state: StackSettings, pods: NodePods, *, owns_table: bool) -> dict[str, Any]:
    """The plan that a stack would have for a node, with its probe pods."""
    return node_plan(
        state.steering,
        owner="doctor",
        nic=state.kubernetes.nic,
        overlay_device=state.kubernetes.overlay_device,
        pods=pods,
        owns_flow_table=owns_table,
        lease_seconds=None,
    )


def _look(shell: Shell, state: StackSettings, found: NodeFindings, plan: Mapping[str, Any]) -> None:
    """Steering as the agent reads it, and other influences on this node."""
    shown = agents.verb(shell, "show")
    meant = agents.verb(shell, "verify", "--owner", "doctor", "--plan", json.dumps(plan))
    names = {queue["device"] for queue in meant["queues"] if queue["role"] in ("nic", "overlay")}
    commands = [["ethtool", "--show-features", name] for name in sorted(names)]
    if isinstance(shell, PodShell):
        commands.append([*agents.HASH])
    said = looked(shell, {"files": _ABOUT, "commands": commands})
    concluded(found, state, shown, meant, said)


def concluded(
    found: NodeFindings,
    state: StackSettings,
    shown: Mapping[str, Any],
    meant: Mapping[str, Any],
    said: Mapping[str, Any],
) -> None:
    """Add to a node's findings what its agent, its files and ethtool report (pure)."""
    with untrusted.reading(f"what node {found.name} reports"):
        _devices(found, shown, meant, said)
        _steering(found, state, shown)
    printed = said["commands"].get(" ".join(agents.HASH))
    if printed is not None and printed.strip() != digest():
        found.lacks.append(f"image {state.images.steering} {agent.OTHER_AGENT}")


def _devices(
    found: NodeFindings, shown: Mapping[str, Any], meant: Mapping[str, Any], said: Mapping[str, Any]
) -> None:
    """The devices that a stack would steer."""
    files = said["files"]
    of_role: dict[str, list[str]] = {"nic": [], "overlay": [], "veth": [], "pod": []}
    for queue in meant["queues"]:
        if queue["queue"].startswith(RX_QUEUE):
            of_role[queue["role"]].append(queue["device"])
    mtu = {
        name: untrusted.whole(files[f"/sys/class/net/{name}/mtu"].strip())
        for name in {*of_role["nic"], *of_role["overlay"]}
    }
    missing = [one["message"] for one in meant["drift"] if one["kind"] == "missing"]
    found.lacks += missing
    found.facts += [
        f"{role} {name}: MTU {mtu[name]}, {of_role[role].count(name)} rx queues"
        for role in ("nic", "overlay")
        for name in dict.fromkeys(of_role[role])
    ]
    if of_role["nic"] and not of_role["overlay"] and not missing:
        found.facts.append("overlay none: pods of other nodes are reached without a tunnel")
    if of_role["pod"] and not of_role["veth"]:
        found.facts.append("pods have no device on the node: their own eth0 is steered alone")
    found.facts += uppers(shown.get("uppers", ()))
    if isolated := shown.get("cpus", {}).get("isolated"):
        found.facts.append(f"CPUs {as_list(isolated)} are isolated: no packets are steered to them")
    found.cautions += dict.fromkeys([*shown.get("warnings", ()), *meant.get("warnings", ())])
    found.facts += hints({name: of_role["nic"].count(name) for name in of_role["nic"]}, found.cpus)
    for overlay in of_role["overlay"]:
        for nic in of_role["nic"]:
            kind = files.get(f"/sys/class/net/{overlay}/type", "").strip()
            headers = OVERHEAD_OF_TYPE.get(kind, OVERHEAD)
            if mtu[overlay] + headers > mtu[nic]:
                found.cautions.append(
                    f"MTU {mtu[overlay]} of {overlay} with {headers} bytes of headers is "
                    f"more than {mtu[nic]} of {nic}: packets are fragmented or lost"
                )
    found.cautions += _confounders(files, said["commands"], mtu)


def _steering(found: NodeFindings, state: StackSettings, shown: Mapping[str, Any]) -> None:
    """The settings that the agent can see, and their owners."""
    wanted = bool(state.steering.machine.knobs["rps_sock_flow_entries"])
    if shown["sock_flow_entries"] is None and not wanted:  # what is wanted is drift
        found.cautions.append(
            "net.core.rps_sock_flow_entries is not visible: rfs configurations end with exit code 3"
        )
    found.facts.append(f"settings in use: {in_use(shown)}")
    for one in shown["snapshots"]:
        found.cautions.append(f"steered by owner {one['owner']}")


def _confounders(
    files: Mapping[str, str], features: Mapping[str, str], devices: Mapping[str, int]
) -> list[str]:
    """Influences other than steering on the cores and the number of packets (pure)."""
    seen = machine.confounders_in(files)
    words = []
    if seen.irqbalance:
        words.append("irqbalance runs: it moves interrupts between cores during runs")
    if (seen.rps_default_mask or "").strip("0,"):
        words.append(f"rps_default_mask is {seen.rps_default_mask}: new devices get this mask")
    for name in sorted(devices):
        offloads = machine.offloads(features[f"ethtool --show-features {name}"])
        off = [what for what, on in offloads.items() if "receive-offload" in what and not on]
        words += [f"{what} is off on {name}: more packets for the same data" for what in off]
    return words
