"""The Kubernetes backend: traffic in its pods, /proc of its nodes, steering by its agents."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from analysis.schema import Confounders, Machine
from experiments.host import machine
from experiments.host.procstat import CounterSample
from experiments.targets.contract import (
    BarrierBroken,
    PairResult,
    Schedule,
    Topology,
    TrafficResult,
    WindowResult,
)
from experiments.targets.kubernetes import agents
from experiments.targets.kubernetes.shell import (
    LOOK,
    Answer,
    PodShell,
    Session,
    Shell,
    SshShell,
    looked,
    run,
)
from experiments.validity import Cause, Reason
from infra import traffic, untrusted
from infra.errors import PrerequisiteMissing
from infra.kubernetes.access import CALL_S, connect, explained
from infra.kubernetes.measurement import ClusterMeasurement, NodeOf
from infra.kubernetes.names import Names
from infra.kubernetes.plan import by_node, node_plan
from infra.settings import cpu_limit
from infra.traffic.contract import GRACE_S, PORT, Failure

# Time in which a command must print `ready`, seconds.
READY_S = 15.0

# The shell prints `ready`, waits for a line, and becomes the client.
_WAIT = 'echo ready; read -r _ || exit 1; exec "$@" </dev/null'


@dataclass(frozen=True)
class Running:
    """A measured pod as it runs now."""

    name: str
    uid: str
    node: str
    address: str
    restarts: int
    cpu_limit: str | None = None


class KubernetesBackend:
    """A converged stack of a cluster."""

    def __init__(self, what: ClusterMeasurement) -> None:
        self._what = what
        self._traffic = traffic.of(what.traffic)
        self._names = Names(what.stack)
        self._connect = cache(lambda: connect(what.kubeconfig, what.context))
        self._shells: dict[str, Shell] = {}
        self._devices: set[str] = set()

    # --- nodes ---

    def _shell(self, node: NodeOf) -> Shell:
        """Where commands of a node run: its agent's pod, or the node itself by SSH."""
        what = self._what
        if node.name not in self._shells:
            self._shells[node.name] = (
                SshShell(node.address, what.ssh)
                if what.ssh
                else agents.agent_shell(what.kubeconfig, what.context, self._names, node.name)
            )
        return self._shells[node.name]

    def _measured(self) -> list[NodeOf]:
        """The server nodes, of those that share a kernel the first alone."""
        first: dict[str, NodeOf] = {}
        for node in self._what.nodes:
            if node.side == "server" or node.steered:
                first.setdefault(node.kernel_id, node)
        return list(first.values())

    def verify(self) -> list[tuple[str, dict[str, Any]]]:
        what = self._what
        pods = by_node(self._listed())
        answers = []
        for node in what.nodes:
            if not node.steered:
                continue
            plan = node_plan(
                what.wanted,
                owner=node.owner,
                overlay_device=what.overlay_device,
                pods=pods.get(node.name, {}),
                owns_flow_table=node.owns_flow_table,
                lease_seconds=what.lease_seconds,
            )
            try:
                said = agents.verb(self._shell(node), "verify", "--renew", plan=plan)
            except Exception:
                self._shells.pop(node.name, None)  # its agent's pod may be another by now
                raise
            answers.append((node.name, said))
            self._devices |= {
                queue["device"] for queue in said["queues"] if queue["role"] in ("nic", "overlay")
            }
        return answers

    def confounders(self) -> Confounders:
        files = looked(self._shell(self._measured()[0]), {"files": machine.CONFOUNDERS})["files"]
        return machine.confounders_in(files)

    def describe(self) -> Machine:
        server = self._measured()[0]
        if not self._devices:
            self.verify()
        devices = sorted(self._devices)
        said = looked(self._shell(server), machine.about(devices))
        return machine.described(said, devices, self._versions())

    def _versions(self) -> dict[str, str]:
        """Of the programs that the first server pod runs."""
        servers, _ = self._pods()
        shell = self._pod_shell(servers[1])
        return {
            tool: machine.version(run(shell, (tool, "--version")).out)
            for tool in self._traffic.tools
        }

    # --- pods ---

    def _listed(self) -> list[Any]:
        from kubernetes.client import CoreV1Api

        with explained(f"listing the pods of {self._names.pods}"):
            listed = CoreV1Api(self._connect()).list_namespaced_pod(
                self._names.pods, _request_timeout=CALL_S
            )
        return list(listed.items)

    def _pods(self) -> tuple[dict[int, Running], dict[int, Running]]:
        """The running servers and clients, by pair."""
        listed = self._listed()
        container = self._traffic.image
        return running(listed, "server", container), running(listed, "client", container)

    def topology(self, pairs: int) -> Topology:
        return topology(self._what, self._pods(), pairs)

    def _pod_shell(self, pod: Running) -> PodShell:
        what = self._what
        return PodShell(
            lambda: connect(what.kubeconfig, what.context),
            self._names.pods,
            pod.name,
            self._traffic.image,
        )

    def _addresses(self, servers: Mapping[int, Running]) -> dict[int, str]:
        """What each client connects to."""
        from kubernetes.client import CoreV1Api

        if self._what.via == "pod":
            return {index: pod.address for index, pod in servers.items()}
        with explained(f"listing the services of {self._names.pods}"):
            listed = CoreV1Api(self._connect()).list_namespaced_service(
                self._names.pods, _request_timeout=CALL_S
            )
        return {
            pair: one.spec.cluster_ip
            for one in listed.items
            if (pair := pair_of(one.metadata.labels)) is not None
        }

    def throttled(self, pairs: int) -> dict[int, int]:
        counts = {}
        for index, pod in self._pods()[0].items():
            if index > pairs or pod.cpu_limit is None:
                continue
            stat = "cat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu.stat"
            answer = run(self._pod_shell(pod), ("sh", "-c", stat))
            if (count := machine.throttled(answer.out)) is not None:
                counts[index] = count
        return counts

    # --- traffic ---

    def switch(self, pairs: int, schedule: Schedule, seconds: int) -> Sequence[WindowResult]:
        del pairs, schedule, seconds
        raise PrerequisiteMissing("method: switchback cannot run on target kubernetes yet")

    def drive(self, pairs: int) -> TrafficResult:
        what = self._what
        servers, clients = self._pods()
        absent = [f"iperf-{role}-{i}" for role, there in (("server", servers), ("client", clients))
                  for i in range(1, pairs + 1) if i not in there]  # fmt: skip
        if absent:
            raise BarrierBroken(f"{absent[0]} does not run in {self._names.pods}")
        addresses = self._addresses(servers)
        measured = [pods[index] for pods in (servers, clients) for index in range(1, pairs + 1)]
        with ExitStack() as stack:
            sessions = {}
            for index in range(1, pairs + 1):
                client = self._traffic.client(addresses[index], PORT, what)
                words, who = ("sh", "-c", _WAIT, "sh", *client), f"the client of pair {index}"
                ready = _ready(self._pod_shell(clients[index]), words, who)
                sessions[index] = stack.enter_context(ready)
            # the readers start later: they look for the processes of the clients' shells
            readers = {}
            for node in self._measured():
                words = ("python3", "-I", "-c", LOOK, self._window(node, measured))
                ready = _ready(self._shell(node), words, f"node {node.name}")
                readers[node.name] = stack.enter_context(ready)
            for session in (*readers.values(), *sessions.values()):
                session.say("go")
            time.sleep(what.omit + what.duration)
            deadline = time.monotonic() + GRACE_S
            results = [self._result(i, one.finish(deadline)) for i, one in sessions.items()]
            answers = {node: one.finish(deadline) for node, one in readers.items()}
        edges, reasons = read_edges(answers)
        reasons += moved((servers, clients), self._pods(), pairs)
        serving = {self._counted(servers[index].node) for index in range(1, pairs + 1)}
        return TrafficResult(
            results,
            edges,
            reasons,
            using=dict.fromkeys(edges),
            serving={node: None if node in serving else () for node in edges},
            nodes={i: (servers[i].node, clients[i].node) for i in range(1, pairs + 1)},
        )

    def _result(self, index: int, answer: Answer | None) -> PairResult:
        if answer is None:
            return PairResult(index, Failure("traffic", "the client did not end in time"))
        out = answer.out.encode()
        outcome = self._traffic.parse(out, answer.err.encode(), answer.status, self._what)
        return PairResult(index, outcome, out)

    def _window(self, node: NodeOf, measured: Iterable[Running]) -> str:
        """Request to a node's reader: the window, and the pods whose processes it counts as ours."""
        uids = [pod.uid for pod in measured if self._counted(pod.node) == node.name]
        return json.dumps({"window": [self._what.omit, self._what.duration, uids]})

    def _counted(self, name: str) -> str:
        """The measured node with the kernel of this node."""
        kernels = {node.name: node.kernel_id for node in self._what.nodes}
        same = (node.name for node in self._measured() if node.kernel_id == kernels.get(name))
        return next(same, name)


def read_edges(
    answers: Mapping[str, Answer | None],
) -> tuple[dict[str, tuple[CounterSample, CounterSample]], list[Reason]]:
    """The counters of each node at both edges, and reasons where there are none (pure)."""
    edges, reasons = {}, []
    for node, answer in answers.items():
        try:
            if answer is None:
                raise PrerequisiteMissing(f"no answer of node {node} in time")
            if answer.status != 0:
                raise PrerequisiteMissing(f"reading /proc of node {node}: {_last(answer)}")
            edges[node] = window_of(answer.out, node)
        except PrerequisiteMissing as error:
            reasons.append(Reason(Cause.WINDOW, str(error)))
    return edges, reasons


def _last(answer: Answer) -> str:
    return answer.err.strip()[-300:] or f"exit {answer.status}"


def topology(
    what: ClusterMeasurement, pods: tuple[Mapping[int, Running], ...], pairs: int
) -> Topology:
    """Nodes and quota of the pods, compared with the measurement (pure).

    A LimitRange of the namespace may set a quota that the stack does not declare.
    """
    texts = []
    limits = {}
    for side, there in zip(("server", "client"), pods, strict=True):
        nodes = {node.name for node in what.nodes if node.side == side}
        for index in range(1, pairs + 1):
            pod = there.get(index)
            if pod is None:
                texts.append(f"pod iperf-{side}-{index} does not run in {what.pods}")
                continue
            limits[cpu_limit(pod.cpu_limit) if pod.cpu_limit else None] = pod.cpu_limit
            if pod.node not in nodes:
                texts.append(
                    f"pod iperf-{side}-{index} runs on node {pod.node}, which is not a {side} node"
                )
    wanted = what.pod_cpu_limit
    found = " and ".join(limit or "none" for limit in limits.values())
    if wanted and limits and set(limits) != {cpu_limit(wanted)}:
        texts.append(f"the pods have a CPU quota of {found}, not {wanted}")
    elif len(limits) > 1:
        texts.append(f"the pods have different CPU quotas: {found}")
    limit = next(iter(limits.values()), wanted)
    return Topology([Reason(Cause.TOPOLOGY, text) for text in texts], limit)


_WINDOW: TypeAdapter[tuple[CounterSample, CounterSample]] = TypeAdapter(
    tuple[CounterSample, CounterSample]
)


def window_of(printed: str, node: str) -> tuple[CounterSample, CounterSample]:
    """Both edges of a window, from the output of `look` (pure). Raises `PrerequisiteMissing`."""
    with untrusted.reading(f"what look prints of /proc of node {node}"):
        return _WINDOW.validate_python(untrusted.parsed(printed[printed.index("[") :]))


def pair_of(labels: Mapping[str, str] | None) -> int | None:
    """The pair of a pod or service, by its label; None for a foreign object."""
    number = (labels or {}).get("steerlab/pair", "")
    return int(number) if re.fullmatch("[0-9]{1,4}", number) else None


@contextmanager
def _ready(shell: Shell, words: Sequence[str], who: str) -> Iterator[Session]:
    """A command that waits for a line. Raises `BarrierBroken` where it is not ready in time."""
    try:
        session = shell.start(words)
    except PrerequisiteMissing as error:
        raise BarrierBroken(f"{who} did not start: {error}") from None
    try:
        if session.await_line(READY_S).strip() != "ready":
            answer = session.finish(time.monotonic() + 1)
            said = (answer.err or answer.out).strip()[-300:] if answer else "no output"
            raise BarrierBroken(f"{who} did not start: {said}")
        yield session
    finally:
        session.close()


def running(listed: Sequence[Any], role: str, container: str) -> dict[int, Running]:
    """The ready pods of one role, by pair, with the quota of their measured container (pure)."""
    found = {}
    for pod in listed:
        labels = pod.metadata.labels or {}
        ready = any(
            one.type == "Ready" and one.status == "True" for one in pod.status.conditions or []
        )
        pair = pair_of(labels)
        if labels.get("steerlab/role") != role or not ready or pod.metadata.deletion_timestamp:
            continue
        if pair is None:
            continue
        found[pair] = Running(
            pod.metadata.name,
            pod.metadata.uid,
            pod.spec.node_name,
            pod.status.pod_ip,
            sum(one.restart_count for one in pod.status.container_statuses or []),
            _limit(pod, container),
        )
    return found


def _limit(pod: Any, name: str) -> str | None:
    """The CPU quota of a container, also one that a LimitRange set."""
    for container in pod.spec.containers or []:
        if container.name == name and container.resources:
            return (container.resources.limits or {}).get("cpu")
    return None


def moved(
    before: tuple[Mapping[int, Running], ...], after: tuple[Mapping[int, Running], ...], pairs: int
) -> list[Reason]:
    """Reasons where pods were deleted, recreated or restarted during a run (pure)."""
    reasons = []
    for role, first, last in zip(("server", "client"), before, after, strict=True):
        for index in range(1, pairs + 1):
            old, new = first[index], last.get(index)
            name = f"pod iperf-{role}-{index}"
            if new is None:
                reasons.append(f"{name} no longer exists or is not ready")
            elif new.uid != old.uid:
                reasons.append(f"{name} was recreated on node {new.node}")
            elif new.restarts != old.restarts:
                reasons.append(f"{name} was restarted")
    return [Reason(Cause.TOPOLOGY, text) for text in reasons]
