"""The measured pods: one server, its Service and one idle client for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.core.v1 import Service

from infra.kubernetes import ownership
from infra.kubernetes.admission import with_options
from infra.kubernetes.names import Names
from infra.kubernetes.nodes import HOSTNAME, Node
from infra.settings import ASSIGNED, StackSettings
from infra.traffic.contract import PORT, Kind

# The first process of a pod ignores SIGTERM unless it has a handler, and would be waited for.
IDLE = ("sh", "-c", "trap exit TERM; sleep infinity & wait")
# Small requests: the scheduler finds room also on busy nodes.
REQUESTS = {"cpu": "10m", "memory": "16Mi"}


def server_spec(state: StackSettings, names: Names, index: int, node: Node) -> dict[str, Any]:
    """The server's Deployment: ready when the server listens."""
    kind = state.pairs[index]
    often = {"periodSeconds": 1, "failureThreshold": 60}
    probe = {"readinessProbe": {"tcpSocket": {"port": PORT}, **often}}
    if not kind.tolerates_probes:  # none after the start
        table, port = f"/proc/net/{kind.protocols[0].lower()}", f"00000000:{PORT:04X} "
        probe = {"startupProbe": {"exec": {"command": ["grep", "-q", port, table]}, **often}}
    container = {
        "command": kind.server(PORT),
        "ports": _ports(kind, {"containerPort": PORT}),
        **probe,
    }
    return _deployment(state, kind, names.labels("server", index), node, container)


def client_spec(state: StackSettings, names: Names, index: int, node: Node) -> dict[str, Any]:
    """The client's Deployment: idle until a run starts the client in it."""
    container = {"command": [*IDLE]}
    return _deployment(state, state.pairs[index], names.labels("client", index), node, container)


def service_spec(state: StackSettings, names: Names, index: int) -> dict[str, Any]:
    ports = _ports(state.pairs[index], {"port": PORT, "targetPort": PORT})
    return {"selector": names.labels("server", index), "ports": ports}


def _ports(kind: Kind, numbers: dict[str, int]) -> list[dict[str, Any]]:
    """The server's port once for each protocol; TCP is the default and not written."""
    return [
        {"name": kind.image, **numbers}
        if protocol == "TCP"
        else {"name": f"{kind.image}-{protocol.lower()}", **numbers, "protocol": protocol}
        for protocol in kind.protocols
    ]


def _deployment(
    state: StackSettings,
    kind: Kind,
    labels: dict[str, str],
    node: Node,
    container: dict[str, Any],
) -> dict[str, Any]:
    limits = {"limits": {"cpu": state.pod_cpu_limit}} if state.pod_cpu_limit else {}
    user = state.kubernetes.pods.run_as_user
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "nodeSelector": {HOSTNAME: node.hostname},
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                **({} if user == ASSIGNED else {"runAsUser": user, "runAsGroup": user}),
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": kind.image,
                    "image": getattr(state.images, kind.image),
                    "imagePullPolicy": "IfNotPresent",
                    # copies the error of a server that does not start to the pod's status
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    **container,
                    "resources": {"requests": REQUESTS, **limits},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
        },
    }
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": with_options(template, state.kubernetes.pods),
    }


class PodPair(pulumi.ComponentResource):
    """One pair: `iperf-server-i`, `iperf-service-i`, `iperf-client-i`."""

    def __init__(
        self,
        state: StackSettings,
        names: Names,
        index: int,
        nodes: tuple[Node, Node],
        *,
        stands_on: Sequence[pulumi.Resource],
        id_: pulumi.Input[str],
        options: pulumi.ResourceOptions,
        parent: pulumi.Resource,
    ) -> None:
        super().__init__(
            "steerlab:kubernetes:PodPair",
            f"pair-{index}",
            None,
            pulumi.ResourceOptions(parent=parent),
        )
        server_node, client_node = nodes
        own = pulumi.ResourceOptions.merge(
            options, pulumi.ResourceOptions(parent=self, depends_on=list(stands_on))
        )

        def metadata(name: str, role: str) -> dict[str, Any]:
            labels = {**names.labels(role, index), ownership.ID: id_}
            return {"name": names.own(name), "namespace": names.pods, "labels": labels}

        def deployed(role: str, spec: dict[str, Any]) -> Deployment:
            name = f"iperf-{role}-{index}"
            return Deployment(name, metadata=metadata(name, role), spec=spec, opts=own)

        self.server = deployed("server", server_spec(state, names, index, server_node))
        self.client = deployed("client", client_spec(state, names, index, client_node))
        service = f"iperf-service-{index}"
        self.service = Service(
            service,
            metadata=metadata(service, "server"),
            spec=service_spec(state, names, index),
            opts=pulumi.ResourceOptions.merge(
                own, pulumi.ResourceOptions(depends_on=[self.server])
            ),
        )
        self.register_outputs({})
