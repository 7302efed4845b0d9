"""The Kubernetes backend: traffic in its pods, /proc of its nodes, steering by its agents."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, NamedTuple

from agent.plan import POD
from agent.session import LOOK
from analysis.schema import Confounders, Machine
from experiments.host import machine
from experiments.host.procstat import CounterSample
from experiments.targets import leads, roundtrips, windows
from experiments.targets.contract import (
    BarrierBroken,
    EpisodeLost,
    PairResult,
    Schedule,
    Topology,
    TrafficResult,
    WindowResult,
)
from experiments.targets.kubernetes import clients, clocks, facts, sessions
from experiments.targets.kubernetes.counters import read_edges
from experiments.targets.kubernetes.pods import Pods, Running, moved, pair_of, running, topology
from experiments.targets.kubernetes.sessions import Call, NodeAgent
from experiments.targets.kubernetes.shell import Answer, PodShell, Session, run
from experiments.targets.roundtrips import SAME, Clock, Probe
from experiments.validity import Cause, Reason
from infra import traffic
from infra.errors import Refusal
from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.measurement import ClusterMeasurement, NodeOf
from infra.kubernetes.names import Names
from infra.kubernetes.pinned import connect
from infra.kubernetes.plan import NodePods, by_node, node_plan
from infra.traffic.contract import GRACE_S, PORT, Kind

# Seconds in which a client that was told to end must have ended.
_END_S = 5.0


class _Ended(NamedTuple):
    """An episode that has ended: the answers of the agent, of the reader of all processes and of the clients.

    `early` are the clients that ended before the agent did, `clocks` those of clients whose latency is
    measured, where it is another clock than the agent's.
    """

    agent: Mapping[str, Any]
    clocks: Mapping[int, Clock]
    reader: Answer | None
    early: Sequence[int]
    clients: Mapping[int, Answer | None]


class KubernetesBackend:
    """A converged stack of a cluster."""

    def __init__(self, what: ClusterMeasurement) -> None:
        self._what = what
        self._traffic = traffic.of(what.traffic)
        self._names = Names(what.stack, what.namespace)
        self._connect = partial(connect, what.kubeconfig, what)
        self._devices: set[str] = set()

    # --- nodes ---

    def _agent(self, node: NodeOf, use: str = "") -> NodeAgent:
        """The agent of a node, to which the connection stays open."""
        what = self._what
        return sessions.of_node(
            what.kubeconfig, what.bare(), what.stack, node.name, node.address, what.ssh, use
        )

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
            plan = plan_of(what, node, pods.get(node.name, NodePods()))
            said = self._agent(node).verb("verify", "--renew", plan=plan)
            answers.append((node.name, said))
            self._devices |= {
                queue["device"] for queue in said["queues"] if queue["role"] in ("nic", "overlay")
            }
        return answers

    def preview(self, what: ClusterMeasurement) -> list[dict[str, Any]]:
        pods = by_node(self._listed())
        plans = [
            (n, plan_of(what, n, pods.get(n.name, NodePods()))) for n in what.nodes if n.steered
        ]
        answers = [self._agent(node).verb("preview", plan=plan) for node, plan in plans]
        return [change for answer in answers for change in answer["changes"]]

    def confounders(self) -> Confounders:
        asked = {"files": machine.CONFOUNDERS}
        return machine.confounders_in(self._agent(self._measured()[0]).look(asked)["files"])

    def describe(self) -> Machine:
        if not self._devices:
            self.verify()
        devices = sorted(self._devices)
        said = self._agent(self._measured()[0]).look(machine.about(devices))
        servers, clients = self._pods()
        shells = {index: self._pod_shell(pod) for index, pod in servers.items()}
        pods = {pod.node: self._pod_shell(pod) for pod in clients.values()}
        found = machine.described(said, devices, facts.versions(self._kinds(1), shells))
        nodes = facts.of_nodes(self._connect(), self._what, self._agent, pods, devices)
        return found.model_copy(update={"nodes": nodes})

    def _kinds(self, pairs: int) -> dict[int, Kind]:
        """The kind of the first pairs, and of those that always run beside them."""
        return self._traffic.pairs(self._what.replicas, pairs)

    # --- pods ---

    def _listed(self) -> list[Any]:
        from kubernetes.client import CoreV1Api

        with explained(f"listing the pods of {self._names.pods}"):
            listed = CoreV1Api(self._connect()).list_namespaced_pod(
                self._names.pods, label_selector=self._names.selector, _request_timeout=CALL_S
            )
        return list(listed.items)

    def _pods(self, listed: Sequence[Any] | None = None) -> Pods:
        """The running servers and clients, by pair."""
        listed = self._listed() if listed is None else listed
        containers = {kind.image for kind in self._traffic.kinds}
        return running(listed, "server", containers), running(listed, "client", containers)

    def _present(self, pairs: int, listed: Sequence[Any]) -> Pods:
        """The same; raises `BarrierBroken` where one of the first pairs does not run."""
        pods = self._pods(listed)
        for role, there in zip(("server", "client"), pods, strict=True):
            for index in self._kinds(pairs):
                if index not in there:
                    raise BarrierBroken(f"iperf-{role}-{index} does not run in {self._names.pods}")
        return pods

    def topology(self, pairs: int) -> Topology:
        return topology(self._what, self._pods(), pairs)

    def _pod_shell(self, pod: Running) -> PodShell:
        return PodShell(self._connect, self._names.pods, pod.name, pod.container)

    def _addresses(self, servers: Mapping[int, Running]) -> dict[int, str]:
        """What each client connects to."""
        from kubernetes.client import CoreV1Api

        if self._what.via == "pod":
            return {index: pod.address for index, pod in servers.items()}
        with explained(f"listing the services of {self._names.pods}"):
            listed = CoreV1Api(self._connect()).list_namespaced_service(
                self._names.pods, label_selector=self._names.selector, _request_timeout=CALL_S
            )
        return {
            pair: one.spec.cluster_ip
            for one in listed.items
            if (pair := pair_of(one.metadata.labels)) is not None
        }

    def throttled(self, pairs: int) -> dict[int, int]:
        counts = {}
        for index, pod in self._pods()[0].items():
            if index not in self._kinds(pairs) or pod.cpu_limit is None:
                continue
            stat = "cat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu.stat"
            answer = run(self._pod_shell(pod), ("sh", "-c", stat))
            if (count := machine.throttled(answer.out)) is not None:
                counts[index] = count
        return counts

    # --- traffic ---

    def _clients(
        self,
        script: str,
        what: ClusterMeasurement,
        pods: Pods,
        pairs: int,
    ) -> AbstractContextManager[Callable[[], dict[int, Session]]]:
        """The clients of the first pairs, which start and then wait for a line."""
        servers, senders = pods
        addresses = self._addresses(servers)
        commands: dict[int, Callable[[], Session]] = {}
        for index, kind in self._kinds(pairs).items():
            command = kind.lasting if script == clients.UNTIL else kind.client
            client = command(addresses[index], PORT, what)
            words, who = ("sh", "-c", script, "sh", *client), f"the client of pair {index}"
            commands[index] = partial(clients.ready, self._pod_shell(senders[index]), words, who)
        return clients.starting(commands)

    def switch(
        self,
        pairs: int,
        whats: Sequence[ClusterMeasurement],
        schedule: Schedule,
        seconds: int,
    ) -> Sequence[WindowResult]:
        longer = self._what.model_copy(update={"duration": seconds, "omit": 0})
        listed = self._listed()
        pods = self._present(pairs, listed)
        (node,) = (one for one in self._what.nodes if one.steered)
        placed = by_node(listed).get(node.name, NodePods())
        document = schedule(
            {what.configuration: plan_of(what, node, placed) for what in whats},
            [
                f"{POD}{pods[0][index].uid}"
                for index, kind in self._kinds(pairs).items()
                if not windows.probes(kind)
            ],
        )
        ended = self._episode(node, pods, pairs, document, longer)
        return self._windows(node, pods, pairs, ended, longer)

    def _episode(
        self,
        node: NodeOf,
        pods: Pods,
        pairs: int,
        document: dict[str, Any],
        what: ClusterMeasurement,
    ) -> _Ended:
        """The traffic of an episode, under which the agent of a node follows the schedule `document`."""
        with ExitStack() as stack:
            started = stack.enter_context(self._clients(clients.UNTIL, what, pods, pairs))
            try:
                agent = self._agent(node)
                places = self._clocks(node, pods, pairs)
                ask = stack.enter_context(clocks.compared(agent.shell, places))
                start = stack.enter_context(agent.episode(document))
                sessions = started()
                reader = self._reader(stack, node, pods, pairs, (0, None))
                for say in (*(one.say for one in sessions.values()), reader.say):
                    say("go")
                answer = start(what.duration + GRACE_S)
                reader.say("end")
                known = ask()
            except Refusal as error:
                gone = moved(pods, self._pods(), self._kinds(pairs))
                cause = Cause.TOPOLOGY if gone else Cause.AGENT
                raise EpisodeLost([*gone, Reason(cause, f"episode: {error}")]) from None
            read = reader.finish(time.monotonic() + _END_S)
            early = [index for index, session in sessions.items() if not session.running()]
            for session in sessions.values():
                session.say("stop")
            deadline = time.monotonic() + _END_S
            answers = {index: one.finish(deadline) for index, one in sessions.items()}
        return _Ended(answer, known, read, early, answers)

    def _clocks(self, node: NodeOf, pods: Pods, pairs: int) -> dict[int, PodShell]:
        """Where the clock of a client is asked: its latency is measured, and its node has another kernel."""
        return {
            index: self._pod_shell(pods[1][index])
            for index, kind in self._kinds(pairs).items()
            if windows.probes(kind) and self._kernel(pods[1][index].node) != node.kernel_id
        }

    def _windows(
        self, node: NodeOf, pods: Pods, pairs: int, ended: _Ended, what: ClusterMeasurement
    ) -> list[WindowResult]:
        kinds = self._kinds(pairs)
        probing = {index for index in ended.clients if windows.probes(kinds[index])}
        sending = [index for index in ended.clients if index not in probing]
        outcomes = [self._result(i, ended.clients[i], what) for i in ended.early if i in sending]
        probed = []
        for index in sorted(probing):
            trips, _ = clients.outcome(ended.clients[index], roundtrips.read)
            probed.append(Probe(index, trips, ended.clocks.get(index, SAME)))
        read, unread = read_edges({node.name: ended.reader})
        around = {node.name: read[node.name] if read else unread[0].text}
        early = {one.index: windows.last_words(one.outcome) for one in outcomes}
        gone = moved(pods, self._pods(), kinds)

        def measured(
            results: Sequence[PairResult],
            edges: tuple[CounterSample, CounterSample],
            against: Sequence[Reason],
        ) -> TrafficResult:
            return self._traffic_result(results, {node.name: edges}, against, pods, around)

        return windows.results(
            ended.agent, self._what, sending, measured, early, gone, probed=probed
        )

    def drive(self, pairs: int) -> TrafficResult:
        what, kinds = self._what, self._kinds(pairs)
        pods = self._present(pairs, self._listed())
        with ExitStack() as stack:
            sessions = stack.enter_context(self._clients(clients.WAIT, what, pods, pairs))()
            # the readers start later: they look for the processes of the clients' shells
            window = (what.omit, what.duration)
            readers = {
                node.name: self._reader(stack, node, pods, pairs, window)
                for node in self._measured()
            }
            # readers before clients that start with them
            started = [(0.0, reader.say) for reader in readers.values()]
            started += [(kinds[index].lead(what), one.say) for index, one in sessions.items()]
            leads.start((lead, partial(say, "go")) for lead, say in started)
            time.sleep(what.omit + what.duration)
            deadline = time.monotonic() + GRACE_S
            results = [self._result(i, one.finish(deadline), what) for i, one in sessions.items()]
            answers = {node: one.finish(deadline) for node, one in readers.items()}
        edges, reasons = read_edges(answers)
        reasons += moved(pods, self._pods(), self._kinds(pairs))
        return self._traffic_result(results, edges, reasons, pods)

    def _traffic_result(
        self,
        results: Sequence[PairResult],
        edges: Mapping[str, tuple[CounterSample, CounterSample]],
        reasons: Sequence[Reason],
        pods: Pods,
        around: Mapping[str, tuple[CounterSample, CounterSample] | str] = {},
    ) -> TrafficResult:
        servers, senders = pods
        serving = {self._counted(servers[one.index].node) for one in results}
        return TrafficResult(
            results,
            edges,
            reasons,
            using=dict.fromkeys(edges),
            serving={node: None if node in serving else () for node in edges},
            nodes={
                one.index: (servers[one.index].node, senders[one.index].node) for one in results
            },
            around=around,
        )

    def _result(self, index: int, answer: Answer | None, what: ClusterMeasurement) -> PairResult:
        kind = self._kinds(self._what.replicas)[index]
        outcome, out = clients.outcome(answer, partial(kind.parse, window=what))
        return PairResult(index, outcome, out)

    def _reader(
        self,
        stack: ExitStack,
        node: NodeOf,
        pods: Pods,
        pairs: int,
        window: tuple[float, float | None],
    ) -> Call:
        """A reader of a node's counters at both edges of a window (`omit`, `duration`).

        Without a duration the window ends at a line. The processes that the first pairs have now, and
        their children, are the experiment's.
        """
        measured = (one[index] for one in pods for index in self._kinds(pairs))
        uids = [pod.uid for pod in measured if self._counted(pod.node) == node.name]
        request = {"window": [*window, uids, "UDP" in self._traffic.protocols]}
        agent = self._agent(node, "counters")  # beside an episode
        try:
            return stack.enter_context(agent.ready(LOOK, json.dumps(request)))
        except Refusal as error:
            raise BarrierBroken(f"node {node.name} did not start: {error}") from None

    def _counted(self, name: str) -> str:
        """The measured node with the kernel of this node."""
        kernel = self._kernel(name)
        return next((node.name for node in self._measured() if node.kernel_id == kernel), name)

    def _kernel(self, name: str) -> str | None:
        """The identity of the kernel of a node, which other nodes may share."""
        return next((one.kernel_id for one in self._what.nodes if one.name == name), None)


def plan_of(what: ClusterMeasurement, node: NodeOf, pods: NodePods) -> dict[str, Any]:
    """The plan of a measurement for a node (pure)."""
    return node_plan(
        what.wanted,
        owner=node.owner,
        nic=what.nic,
        overlay_device=what.overlay_device,
        pods=pods,
        owns_flow_table=node.owns_flow_table,
        lease_seconds=what.lease_seconds,
    )
