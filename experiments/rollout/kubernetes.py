"""The nodes of a cluster as a fleet: an agent on each, called through the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from agent.plan import ROLES
from experiments.host import procstat
from experiments.host.procstat import CounterSample
from experiments.rollout import manifest
from experiments.rollout.audit import AuditLog
from experiments.rollout.contract import Change, Member, Phase, Reading, Status
from experiments.rollout.run import each
from experiments.targets.kubernetes import agents
from experiments.targets.kubernetes.shell import PodShell, run
from infra import untrusted
from infra.errors import PrerequisiteMissing, Refusal
from infra.kubernetes import nodes
from infra.kubernetes.access import CALL_S, connect, current_context, explained
from infra.kubernetes.agent import CONTAINER
from infra.kubernetes.names import PROJECT
from infra.kubernetes.nodes import Node

START_S = 120.0  # for the agents' pods to start
KUBELET = 10250
# Median time of a TCP handshake with an address, in microseconds; prints nothing where most fail.
_PROBE = """
import socket, sys, time
found = []
for _ in range(40):
    begin = time.monotonic()
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.5).close()
    except OSError:
        continue
    found.append(int(1e6 * (time.monotonic() - begin)))
if len(found) > 20:
    print(sorted(found)[len(found) // 2])
"""


@dataclass(frozen=True)
class Where:
    """A cluster and some of its nodes."""

    kubeconfig: str
    context: str
    selector: str

    @property
    def options(self) -> list[str]:
        """Those of a command for the same nodes (pure)."""
        named = {f"--{name}": value for name, value in asdict(self).items()}
        return [word for option, value in named.items() if value for word in (option, value)]


@dataclass(frozen=True)
class Wanted:
    """The plan of a rollout; a trial of it lasts `seconds`."""

    rollout: str
    plan: Mapping[str, Any]
    seconds: float


class KubernetesFleet:
    """A fleet whose agents run; `opened` makes one."""

    def __init__(self, where: Where, wanted: Wanted | None, log: AuditLog, who: str) -> None:
        # the same cluster to the end, also if another context gets current
        named = where.context or current_context(where.kubeconfig)
        self.where, self._wanted = replace(where, context=named), wanted
        self._log, self._who = log, who
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, str] = {}
        self.staying: set[str] = set()  # nodes whose agent is needed later
        self.silent = False  # events are not permitted

    # --- the contract ---

    def members(self) -> Sequence[Member]:
        self.nodes = {one.name: one for one in nodes.every(self._api(), self.where.selector)}
        return [Member(one.name, one.ready) for one in self.nodes.values()]

    def status(self, node: str) -> Status:
        answer = self._step(node, "status")
        with untrusted.reading(f"the phase of node {node}"):
            return Status(Phase(answer["phase"]), answer["rollout"])

    def preview(self, node: str) -> Sequence[Change]:
        answer = agents.verb(self._shell(node), "preview", plan=self._plan)
        rows = answer["changes"]
        return [
            Change(row["where"], row["knob"], row["found"], row["wanted"], row["stranger"])
            for row in rows
        ]

    def observe(self, node: str, seconds: float) -> Reading:
        if not seconds:
            return Reading(self._ready(node))
        latency = self._latency(node)
        shell = self._shell(node)
        answer = agents.verb(shell, "observe", "--seconds", str(seconds), plan=self._plan)
        before, after = map(CounterSample.of, answer["edges"])
        cores, seconds = procstat.softnet(before, after, node), after.at - before.at
        soft = sum(core.soft or 0.0 for core in procstat.cores(before, after, node))
        return Reading(
            ready=self._ready(node),
            seconds=seconds,
            packets=sum(core.processed for core in cores),
            dropped=sum(core.dropped for core in cores)
            + sum(one["rx_dropped"] for one in answer["traffic"]),
            squeezed=sum(core.squeezed for core in cores),
            softirq_s=soft / 100 * seconds,
            received=first_received(answer["traffic"]),
            latency_ms=latency,
        )

    def attempt(self, node: str) -> None:
        wanted = self._wanted
        assert wanted  # noqa: S101
        words = ("--rollout", wanted.rollout, "--seconds", str(wanted.seconds))
        self._step(node, "try", *words, plan=self._plan)
        self._event(node, "SteeringTrial", f"trial of rollout {wanted.rollout}")

    def keep(self, node: str) -> None:
        assert self._wanted  # noqa: S101
        self._step(node, "keep", "--rollout", self._wanted.rollout)
        self._event(node, "SteeringKept", f"keeps rollout {self._wanted.rollout}")

    def undo(self, node: str) -> None:
        self._step(node, "undo")
        self._event(node, "SteeringUndone", "the trial of a rollout was undone")

    def restore(self, node: str, force: bool) -> Sequence[str]:
        answer = self._step(node, "restore", *(["--force"] if force else []))
        self._event(node, "SteeringRestored", "the values before the first rollout are restored")
        return [f"{node}: {note}" for note in (*answer["left"], *answer["warnings"])]

    # --- the agents ---

    def _step(
        self, node: str, step: str, *words: str, plan: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A step of the node's agent; its audit lines go into the local log, also where it fails."""
        since = ("--node", node, "--who", self._who, "--since", self._log.last(node))
        try:
            answer = agents.verb(self._shell(node), "rollout", step, *since, *words, plan=plan)
        except Refusal:
            if step != "status":
                with suppress(Refusal):
                    self._step(node, "status")
            raise
        self._log.add(node, answer["audit"])
        return answer

    @property
    def _plan(self) -> dict[str, Any]:
        assert self._wanted  # noqa: S101
        return dict(self._wanted.plan)

    def _api(self) -> Any:
        return connect(self.where.kubeconfig, self.where.context)

    def _shell(self, node: str) -> PodShell:
        if node not in self.pods:
            raise PrerequisiteMissing(
                f"its agent does not run: kubectl -n {manifest.NAME} get pods"
            )
        return PodShell(self._api, manifest.NAME, self.pods[node], CONTAINER)

    def _ready(self, node: str) -> bool:
        from kubernetes.client import CoreV1Api

        with explained(f"reading node {node}"):
            found = CoreV1Api(self._api()).read_node(node, _request_timeout=CALL_S)
        return any(one.type == "Ready" and one.status == "True" for one in found.status.conditions)

    def _latency(self, node: str) -> float | None:
        """Measured from another node; None without one that can connect."""
        peer = next((other for other in self.pods if other != node), None)
        if peer is None:
            return None
        words = ("python3", "-I", "-c", _PROBE, self.nodes[node].address, str(KUBELET))
        said = run(self._shell(peer), words).out.strip()
        return latency_ms(said)

    def _event(self, node: str, reason: str, message: str) -> None:
        """An Event of the node. A rollout works without the right to make one."""
        from kubernetes.client import CoreV1Api

        now = datetime.now(UTC)
        body = {
            "metadata": {"generateName": "steerlab-"},
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
            "reason": reason,
            "message": f"{message} ({self._who})",
            "type": "Normal",
            "source": {"component": "steerlab"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            with explained("making an event"):
                api = CoreV1Api(self._api())
                api.create_namespaced_event("default", body, _request_timeout=CALL_S)
        except Refusal:
            self.silent = True

    # --- their pods ---

    def start(self, image: str) -> None:
        """Start an agent on each member that is Ready."""
        wanted = [one.name for one in self.nodes.values() if one.ready]
        made = manifest.daemonset(image)
        version = made["spec"]["template"]["metadata"]["annotations"][manifest.VERSION]
        self._declare(made)
        _, failed = each(lambda node: self._label(node, ""), wanted)
        for node, why in failed.items():
            raise PrerequisiteMissing(f"label {manifest.LABEL} of node {node}: {why}")
        end = time.monotonic() + START_S
        while True:
            self.pods = self.running(version)
            missing = [node for node in wanted if node not in self.pods]
            if not missing or time.monotonic() > end:
                return  # a node without one is refused where it is called
            time.sleep(0.5)

    def labelled(self) -> set[str]:
        """The nodes of the cluster that have an agent."""
        return {one.name for one in nodes.every(self._api(), manifest.LABEL)}

    def stop(self, names: Sequence[str]) -> None:
        """End the agents of some nodes; with the last one, the namespace that this project made."""
        from kubernetes.client import CoreV1Api

        each(lambda node: self._label(node, None), names)
        if not self.labelled() and self._exists():
            with explained(f"deleting namespace {manifest.NAME}"):
                api = CoreV1Api(self._api())
                api.delete_namespace(manifest.NAME, _request_timeout=CALL_S)
            end = time.monotonic() + START_S
            while self._found() and time.monotonic() < end:
                time.sleep(0.5)

    def _exists(self) -> bool:
        """Whether this project's namespace exists. Raises `PrerequisiteMissing` for another's."""
        namespaces = self._found()
        for found in namespaces:
            if not manifest.OWN.items() <= (found.metadata.labels or {}).items():
                raise PrerequisiteMissing(
                    f"namespace {manifest.NAME} was not made by a rollout (a stack named rollout has it too): "
                    "remove it first"
                )
            if found.metadata.deletion_timestamp:
                raise PrerequisiteMissing(
                    f"namespace {manifest.NAME} is being deleted: repeat the command when it is gone"
                )
        return bool(namespaces)

    def _found(self) -> list[Any]:
        from kubernetes.client import CoreV1Api

        with explained("listing the namespaces"):
            listed = CoreV1Api(self._api()).list_namespace(
                field_selector=f"metadata.name={manifest.NAME}", _request_timeout=CALL_S
            )
        return list(listed.items)

    def _declare(self, made: dict[str, Any]) -> None:
        from kubernetes.client import AppsV1Api, CoreV1Api

        core, apps = CoreV1Api(self._api()), AppsV1Api(self._api())
        with explained("starting the agents of the nodes"):
            if not self._exists():
                core.create_namespace(manifest.NAMESPACE, _request_timeout=CALL_S)
            _put(
                core.create_namespaced_config_map,
                core.patch_namespaced_config_map,
                manifest.files(),
            )
            _put(apps.create_namespaced_daemon_set, apps.patch_namespaced_daemon_set, made)

    def _label(self, node: str, value: str | None) -> None:
        from kubernetes.client import CoreV1Api

        with explained(f"labelling node {node}"):
            body = {"metadata": {"labels": {manifest.LABEL: value}}}
            CoreV1Api(self._api()).patch_node(node, body, _request_timeout=CALL_S)

    def running(self, version: str = "") -> dict[str, str]:
        """The running pods of the agents by node; with a version, of that only: others are being replaced."""
        from kubernetes.client import CoreV1Api

        selector = ",".join(f"{key}={value}" for key, value in PROJECT.items())
        with explained("looking for the agents of the nodes"):
            listed = CoreV1Api(self._api()).list_namespaced_pod(
                manifest.NAME, label_selector=selector, _request_timeout=CALL_S
            )
        return {
            pod.spec.node_name: pod.metadata.name
            for pod in listed.items
            if pod.status.phase == "Running"
            and not pod.metadata.deletion_timestamp
            and version in ("", (pod.metadata.annotations or {}).get(manifest.VERSION))
        }


def first_received(traffic: Sequence[Mapping[str, Any]]) -> int:
    """Bytes at the first stage of the path that a plan steers (pure)."""
    for role in ROLES:
        if found := [one["rx_bytes"] for one in traffic if one["role"] == role]:
            return sum(found)
    return 0


def latency_ms(printed: str) -> float | None:
    """The output of `_PROBE` (pure)."""
    with untrusted.reading("the latency of a handshake"):
        return untrusted.whole(printed) / 1000 if printed else None


def _put(create: Callable[..., Any], patch: Callable[..., Any], body: dict[str, Any]) -> None:
    from kubernetes.client import ApiException

    try:
        create(manifest.NAME, body, _request_timeout=CALL_S)
    except ApiException as error:
        if error.status != 409:
            raise
        patch(manifest.NAME, manifest.NAME, body, _request_timeout=CALL_S)


@contextmanager
def opened(
    where: Where, wanted: Wanted, log: AuditLog, who: str, image: str
) -> Iterator[KubernetesFleet]:
    """A fleet with an agent on each node. Agents that are new here end with the block, but for `staying`."""
    fleet = KubernetesFleet(where, wanted, log, who)
    if not fleet.members():
        raise PrerequisiteMissing(
            f"selector: no node has the labels {where.selector}: kubectl get nodes --show-labels"
        )
    had = fleet.labelled()
    try:
        fleet.start(image)
        yield fleet
    finally:
        fleet.stop([node for node in fleet.nodes if node not in had | fleet.staying])


def restored(where: Where, log: AuditLog, who: str, *, force: bool) -> dict[str, Any]:
    """Restore the nodes of a selector that have an agent, and end it; what failed keeps its agent."""
    fleet = KubernetesFleet(where, None, log, who)
    fleet.members()
    names = sorted(fleet.labelled() & fleet.nodes.keys())
    if names:
        fleet.pods = fleet.running()
    done, failed = each(lambda node: fleet.restore(node, force), names)
    fleet.stop(list(done))
    notes = [note for of_node in done.values() for note in of_node]
    return {"restored": list(done), "failed": failed, "notes": notes}
