"""The probes of `doctor`: a stack's own Deployments, Services and Jobs, and one second of traffic."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.engines.embedded.kubernetes import TYPE, Objects
from experiments.engines.embedded.provider import OperationFailed
from experiments.targets.kubernetes.pods import Running
from experiments.targets.kubernetes.shell import PodShell, run
from infra.errors import PrerequisiteMissing
from infra.kubernetes import agent, pods
from infra.kubernetes.access import CALL_S, connect, explained
from infra.kubernetes.names import PROJECT, Names, admits, label
from infra.kubernetes.nodes import Node, Nodes
from infra.settings import StackSettings
from infra.traffic.contract import PORT, Failure, Kind
from infra.traffic.stream import SWITCHED, Stream

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# Timeouts of the start of a probe, and of its traffic of a second; seconds.
START_S = 60
TRAFFIC_S = 10.0
# How long a probe must run to count; seconds.
STEADY_S = 2
_AT_ONCE = 8
# What a program without privileges may choose.
ALLOWED = "net.ipv4.tcp_allowed_congestion_control"


@dataclass(frozen=True)
class Pair:
    """A server and a client as a stack would have them; `settings` are those of its traffic alone."""

    settings: StackSettings
    index: int
    server: Node
    client: Node

    @property
    def kind(self) -> Kind:
        return self.settings.pairs[self.index]


def pairs(state: StackSettings, nodes: Nodes) -> list[Pair]:
    """For each image of the measured pods, pairs that use each node (pure)."""
    count = max(len(nodes.servers), len(nodes.clients))
    found: list[Pair] = []
    for kind in {kind.image: kind for kind in state.pairs.values()}.values():
        indices = range(len(found) + 1, len(found) + count + 1)
        own = state.model_copy(update={"traffic": str(kind), "replicas": indices[-1]})
        found += [Pair(own, i, nodes.server_of(i), nodes.client_of(i)) for i in indices]
    return found


@dataclass(frozen=True)
class Probe:
    """An object that has a pod on a node."""

    name: str
    node: Node
    image: str
    create: Callable[[], Any]


class Probes:
    """The objects of a stack for `doctor`, created as the embedded engine creates them."""

    def __init__(self, state: StackSettings, names: Names) -> None:
        of = state.kubernetes
        self._state, self._names, self._stop = state, names, threading.Event()
        self._where = {"kubeconfig": of.kubeconfig, "context": of.context}
        self._objects = Objects(self._where, self._stop, preview=False)
        self._made: list[tuple[str, dict[str, Any]]] = []

    def __enter__(self) -> Probes:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End what waits after an interrupt, and delete what no namespace of its own takes away.

        Raises `PrerequisiteMissing` with what it cannot delete.
        """
        self._stop.set()
        if self._names.namespace:
            objects = Objects(self._where, threading.Event(), preview=False)
            made, self._made = self._made, []
            ended = self.each(
                {
                    one["metadata"]["name"]: partial(objects.delete, type_, one)
                    for type_, one in made
                }
            )
            left = [f"{name}: {one}" for name, one in ended.items() if one is not None]
            if left and kind is not KeyboardInterrupt:
                place = self._names.namespace
                raise PrerequisiteMissing(f"not deleted in namespace {place}: {'; '.join(left)}")

    def each(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """The results of calls by name; of one that fails, its `OperationFailed`."""

        def tried(call: Callable[[], Any]) -> Any:
            try:
                return call()
            except OperationFailed as error:
                return error

        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            running = {name: pool.submit(tried, call) for name, call in calls.items()}
            return {name: one.result() for name, one in running.items()}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def server(self, pair: Pair) -> Probe:
        spec = pods.server_spec(pair.settings, self._names, pair.index, pair.server)
        return self._deployment(f"iperf-server-{pair.index}", self._names.pods, spec, pair.server)

    def client(self, pair: Pair) -> Probe:
        spec = pods.client_spec(pair.settings, self._names, pair.index, pair.client)
        return self._deployment(f"iperf-client-{pair.index}", self._names.pods, spec, pair.client)

    def agent(self, node: Node) -> Probe:
        of = self._state
        spec = agent.watch_spec(self._names, node, of.images.steering, of.kubernetes.pods)
        return self._deployment(f"agent-{label(node.name)}", self._names.steering, spec, node)

    def job(self, node: Node) -> Probe:
        """A Job as those that steer; it only reads."""
        of, name = self._state, f"steer-{label(node.name)}"
        words = ["show"]
        spec = agent.job_spec(self._names, node, of.images.steering, words, of.kubernetes.pods)
        create = self._create("batch/v1", "Job", self._names.steering, self._named(name), spec=spec)
        return Probe(f"Job {name}", node, of.images.steering, create)

    def _deployment(self, name: str, namespace: str, spec: dict[str, Any], node: Node) -> Probe:
        (container,) = spec["template"]["spec"]["containers"]
        # a program that ends at once is ready for a moment
        steady = {**spec, "minReadySeconds": STEADY_S}
        create = self._create("apps/v1", "Deployment", namespace, self._named(name), spec=steady)
        return Probe(f"Deployment {name}", node, container["image"], create)

    def account(self, api: ApiClient) -> None:
        """Create the agents' account where there is none. Raises `PrerequisiteMissing`."""
        from kubernetes.client import CoreV1Api

        name, place = self._names.own(agent.ACCOUNT), self._names.steering
        with explained(f"listing the accounts of {place}"):
            there = CoreV1Api(api).list_namespaced_service_account(
                place, field_selector=f"metadata.name={name}", _request_timeout=CALL_S
            )
        if there.items:
            return  # that of a stack in this namespace
        more = {"automountServiceAccountToken": False}
        try:
            self._create("v1", "ServiceAccount", place, name, **more)()
        except OperationFailed as error:
            raise PrerequisiteMissing(str(error)) from None

    def _named(self, name: str) -> str:
        """The name of an object, which is not that of a stack in the same namespace."""
        return self._names.own(f"{self._names.stack}-{name}") if self._names.namespace else name

    def service(self, pair: Pair) -> Callable[[], Any]:
        spec = pods.service_spec(pair.settings, self._names, pair.index)
        return self._create(
            "v1", "Service", self._names.pods, self._named(f"iperf-service-{pair.index}"), spec=spec
        )

    def _create(
        self, version: str, kind: str, namespace: str, name: str, **more: Any
    ) -> Callable[[], Any]:
        group = version if "/" in version else f"core/{version}"
        waits = {"pulumi.com/timeoutSeconds": str(START_S)}
        metadata = {"name": name, "namespace": namespace, "annotations": waits}
        inputs = {"apiVersion": version, "kind": kind, "metadata": metadata, **more}

        def create() -> Any:
            self._made.append((f"{TYPE}{group}:{kind}", inputs))
            return self._objects.create(f"{TYPE}{group}:{kind}", inputs)

        return create

    def traffic(self, pair: Pair, client: Running, host: str) -> Callable[[], str]:
        """Whether a second of traffic arrives: the reason if it does not, or an empty text.

        A Service reaches a node a moment after it was created, so what fails at once is tried again.
        """
        window = self._state.model_copy(update={"duration": 1, "omit": 0})
        shell = self._shell(client)

        def sent() -> str:
            deadline = time.monotonic() + TRAFFIC_S
            while (why := tried()) and time.monotonic() < deadline and not self._stop.wait(1):
                pass
            return why

        def tried() -> str:
            try:
                answer = run(shell, pair.kind.client(host, PORT, window), TRAFFIC_S)
            except PrerequisiteMissing as error:
                return str(error)
            found = pair.kind.parse(answer.out.encode(), answer.err.encode(), answer.status, window)
            # a busy machine may end late
            return found.text if isinstance(found, Failure) and found.cause != "window" else ""

        return sent

    def restricted(self, pair: Pair, client: Running) -> Callable[[], str]:
        """Whether a sender may not choose the congestion control of switchback: why, or an empty text.

        Only those of net.ipv4.tcp_allowed_congestion_control are for programs without CAP_NET_ADMIN
        (Linux, networking/ip-sysctl).
        """
        kind, shell = pair.kind, self._shell(client)

        def looked() -> str:
            if not isinstance(kind, Stream) or kind.congestion:
                return ""
            answer = run(shell, ["cat", f"/proc/sys/{ALLOWED.replace('.', '/')}"], TRAFFIC_S)
            if answer.status or SWITCHED in answer.out.split():
                return ""
            return (
                f"pods may not choose {SWITCHED}, which sweep and tune use: add it to the node's {ALLOWED} "
                f"({answer.out.strip()}), or name one of these: --traffic {kind.name}:congestion=..."
            )

        return looked

    def _shell(self, client: Running) -> PodShell:
        of = self._state.kubernetes
        return PodShell(
            lambda: connect(of.kubeconfig, of.context),
            self._names.pods,
            client.name,
            client.container,
        )


@contextmanager
def namespace(api: ApiClient, name: str, level: str) -> Iterator[None]:
    from kubernetes.client import CoreV1Api

    core = CoreV1Api(api)
    body = {"metadata": {"name": name, "labels": admits(level) | PROJECT}}
    with explained(f"creating the namespace {name}"):
        core.create_namespace(body, _request_timeout=CALL_S)
    try:
        yield
    finally:
        with explained(f"deleting the namespace {name}"):
            core.delete_namespace(name, _request_timeout=CALL_S)


def listed(api: ApiClient, names: Names, name: str) -> list[Any]:
    """The probe pods in a namespace."""
    from kubernetes.client import CoreV1Api

    with explained("listing the probe pods"):
        found = CoreV1Api(api).list_namespaced_pod(
            name, label_selector=names.selector, _request_timeout=CALL_S
        )
    return list(found.items)
