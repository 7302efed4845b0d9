"""The objects of rollouts in a cluster: the agent on each node that has the label (pure)."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from agent import archive
from infra.kubernetes.agent import AGENT, CONTAINER, RUN
from infra.kubernetes.names import NODE_LEVEL, PROJECT, ROLLOUT, admits

NAME = "steerlab-rollout"  # of the namespace and of each object in it
LABEL = ROLLOUT  # of nodes that have an agent
VERSION = "steerlab/version"  # an annotation of the pods: of the agent and of their template
HOME = "/var/lib/steerlab"

OWN = {**PROJECT, ROLLOUT: ""}  # the namespace's, which no stack's has
NAMESPACE = {"metadata": {"name": NAME, "labels": {**OWN, **admits(NODE_LEVEL)}}}


def files() -> dict[str, Any]:
    """The ConfigMap with the agent."""
    content = base64.b64encode(archive.archive()).decode()
    return {"metadata": {"name": NAME}, "binaryData": {archive.NAME: content}}


def daemonset(image: str) -> dict[str, Any]:
    """The DaemonSet. An agent that ends restores its node; the next one applies the kept plan again."""
    mounts = [
        {"name": "files", "mountPath": AGENT[-1], "subPath": archive.NAME, "readOnly": True},
        {"name": "run", "mountPath": RUN},
        {"name": "home", "mountPath": HOME},
        # new pods are mounted there later
        {"name": "pods", "mountPath": "/run/netns", "mountPropagation": "HostToContainer"},
    ]
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*AGENT, "rollout", "stand", "--node", "$(NODE)"],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": {"privileged": True, "readOnlyRootFilesystem": True, "runAsUser": 0},
        "volumeMounts": mounts,
    }
    paths = {"run": RUN, "home": HOME, "pods": "/run/netns"}
    spec = {
        "nodeSelector": {LABEL: ""},
        "hostNetwork": True,
        "hostPID": True,  # finds a namespace that has lost its name by its processes
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": [
            {"name": "files", "configMap": {"name": NAME}},
            *(
                {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
                for name, path in paths.items()
            ),
        ],
    }
    version = hashlib.sha256(json.dumps([archive.digest(), spec]).encode()).hexdigest()[:16]
    return {
        "metadata": {"name": NAME, "labels": PROJECT},
        "spec": {
            "selector": {"matchLabels": PROJECT},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                # another agent replaces the pods
                "metadata": {"labels": PROJECT, "annotations": {VERSION: version}},
                "spec": spec,
            },
        },
    }
