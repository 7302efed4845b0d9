"""Examines a cluster: properties, missing prerequisites and sources of error.

Probe pods in two temporary namespaces show whether pods are admitted, images can be pulled and
nodes can be entered. Steering is read, never written.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agent.archive import digest
from agent.knobs import RX_QUEUE
from agent.values import as_list
from experiments.engines.choice import choose
from experiments.host import machine
from experiments.host.nodes import uppers
from experiments.targets.kubernetes import agents
from experiments.targets.kubernetes.probes import (
    listed,
    namespace,
    probed,
    removed,
    started,
    waiting,
)
from experiments.targets.kubernetes.shell import PodShell, Shell, SshShell, looked
from experiments.targets.lab.doctor import hints, in_use
from infra import untrusted
from infra.errors import Refusal
from infra.kubernetes import agent, pods, rights
from infra.kubernetes.access import CALL_S, connect, explained
from infra.kubernetes.names import NODE_LEVEL, OVERLAY_LEVEL, Names
from infra.kubernetes.nodes import Node, Nodes, find, owners_of_table
from infra.kubernetes.plan import NodePods, node_plan
from infra.settings import StackSettings

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
        api = connect(state.kubernetes.kubeconfig, state.kubernetes.context)
        found.api = _version(api)
        wanted = rights.needed(
            state.kubernetes.node_access,
            state.kubernetes.namespace,
            pulumi=choose().name == "pulumi",
        )
        refused = denied(api, wanted)
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


def denied(api: ApiClient, wanted: Sequence[rights.Right]) -> list[rights.Right]:
    """Those of the rights that the API server would refuse (SelfSubjectAccessReview)."""
    from kubernetes.client import AuthorizationV1Api

    reviews = AuthorizationV1Api(api)

    def allowed(right: rights.Right) -> bool:
        resource, _, subresource = right.resource.partition("/")
        asked = {
            "verb": right.verb,
            "group": right.group,
            "resource": resource,
            "subresource": subresource,
            "namespace": right.namespace,
        }
        review = {"spec": {"resourceAttributes": asked}}
        answer = reviews.create_self_subject_access_review(review, _request_timeout=CALL_S)
        return bool(answer.status.allowed)

    with explained("asking which rights there are"), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(allowed, wanted))
    return [right for right, yes in zip(wanted, answers, strict=True) if not yes]


# --- on the nodes ---


def _probe(
    api: ApiClient, state: StackSettings, nodes: Nodes, found: Mapping[str, NodeFindings]
) -> None:
    """Start a pod of each image on the nodes of a stack, examine the nodes, and delete the pods."""
    # an earlier one may still be in deletion
    names = Names(f"doctor-{secrets.token_hex(3)}", state.kubernetes.namespace)
    steered = nodes.steered(state.steer_nodes == "both")
    tables = owners_of_table(steered)
    by_job = state.kubernetes.node_access == "job"
    with ExitStack() as stack:
        shared = bool(names.namespace)
        stack.enter_context(
            removed(api, names) if shared else namespace(api, names.pods, OVERLAY_LEVEL)
        )
        images = {kind.image: index for index, kind in state.pairs.items()}
        wanted = [
            waiting(
                names.pods,
                names.own(f"{names.stack}-{image}-{i}"),
                _measured(state, names, pair, node),
                node,
                image,
                names.labels("probe"),
            )
            for i, node in enumerate((*nodes.servers, *nodes.clients))
            for image, pair in images.items()
        ]
        if by_job:
            if not shared:
                stack.enter_context(namespace(api, names.steering, NODE_LEVEL))
            wanted += [
                waiting(
                    names.steering,
                    names.own(f"{names.stack}-agent-{i}"),
                    _agent(state, names, node),
                    node,
                    agent.CONTAINER,
                    names.labels("agent"),
                )
                for i, node in enumerate(steered)
            ]
        running = started(api, wanted)
        placed = probed(listed(api, names), nodes)
        for pod in wanted:
            if words := running.get(pod.name):
                cure = "build it with docker/build, or set the key kubernetes.images"
                found[pod.node.name].lacks.append(f"image {pod.image}: {words} ({cure})")
            else:
                found[pod.node.name].facts.append(f"image {pod.image} is available")
        for i, node in enumerate(steered):
            shell: Shell = SshShell(node.address, state.kubernetes.ssh)
            if by_job:
                name = names.own(f"{names.stack}-agent-{i}")
                if running.get(name):
                    continue
                shell = PodShell(
                    lambda: connect(state.kubernetes.kubeconfig, state.kubernetes.context),
                    names.steering,
                    name,
                    agent.CONTAINER,
                )
            try:
                plan = _plan(state, placed[node.name], owns_table=node.name in tables)
                _look(shell, state, found[node.name], plan)
            except Refusal as refusal:
                found[node.name].lacks.append(str(refusal))


def _measured(state: StackSettings, names: Names, pair: int, node: Node) -> dict[str, Any]:
    """The specification of a client's pod, which only waits."""
    spec: dict[str, Any] = pods.client_spec(state, names, pair, node)["template"]["spec"]
    return spec


def _agent(state: StackSettings, names: Names, node: Node) -> dict[str, Any]:
    """The specification of an agent's pod, but it only waits and has no service account."""
    spec: dict[str, Any] = agent.pod_template(names, node, state.images.steering, (), job=True)[
        "spec"
    ]
    del spec["serviceAccountName"]
    (container,) = spec["containers"]
    return {**spec, "containers": [{**container, "command": ["sleep", "300"], "args": []}]}


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
        found.lacks.append(f"image {state.images.steering} {agents.OTHER_AGENT}")


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
