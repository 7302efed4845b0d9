"""Steering kept on every node of a cluster: the manifest of a DaemonSet that runs the agent."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import yaml

from agent.archive import NAME as ARCHIVE
from agent.archive import archive

NAME = "steerlab-steering"
_FILES = "/etc/steerlab"

# The shell hears SIGTERM while it sleeps, and lets an apply end first.
_LOOP = """\
steer() {{ python3 -I {files}/steer.pyz "$@" >/dev/null; }}
trap 'steer restore --owner {owner}; exit $?' TERM INT
while :; do
  steer apply --plan @{files}/plan.json
  sleep 60 &
  wait $!
done
"""


def manifest(plan: dict[str, Any], configuration: str, image: str) -> str:
    """YAML for `kubectl apply -f -`; deleting it gives every node back what it had.

    No lease: its watchdog would end with the container. A pod that was killed is made anew and
    goes on with the node's first snapshot.
    """
    head = (
        f"# Packet steering {configuration} on every Linux node that takes pods, applied again\n"
        "# each minute for the devices that came since. kubectl delete restores the nodes.\n"
    )
    data = {"plan.json": json.dumps(plan, indent=1) + "\n"}
    binary = {ARCHIVE: base64.b64encode(archive()).decode()}
    both = json.dumps([data, binary], sort_keys=True)
    digest = hashlib.sha256(both.encode()).hexdigest()[:16]
    parts = [_namespace(), _config_map(data, binary), _daemon_set(plan["owner"], image, digest)]
    return head + yaml.dump_all(parts, Dumper=_Blocks, sort_keys=False, width=1000)


def _namespace() -> dict[str, Any]:
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAME, "labels": labels},
    }


def _config_map(data: dict[str, str], binary: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAME},
        "data": data,
        "binaryData": binary,
    }


def _daemon_set(owner: str, image: str, digest: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": NAME}
    agent = ["python3", "-I", f"{_FILES}/{ARCHIVE}"]
    container = {
        "name": "steer",
        "image": image,
        "command": ["sh", "-c", _LOOP.format(files=_FILES, owner=owner)],
        "readinessProbe": {
            "exec": {"command": [*agent, "verify", "--owner", owner, "--saved"]},
            "periodSeconds": 60,
            "timeoutSeconds": 30,
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "128Mi"},
        },
        # Privileged, for /proc/sys is read-only in any other container.
        "securityContext": {"privileged": True, "readOnlyRootFilesystem": True, "runAsUser": 0},
        "volumeMounts": [
            {"name": "files", "mountPath": _FILES, "readOnly": True},
            {"name": "snapshots", "mountPath": "/run/steerlab"},
            {
                "name": "namespaces",
                "mountPath": "/run/netns",
                # pods that come later are mounted there later
                "mountPropagation": "HostToContainer",
                "readOnly": True,
            },
        ],
    }
    pod = {
        "hostNetwork": True,
        # a namespace that has lost its name is found by a process of it, and so restored
        "hostPID": True,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": [
            {"name": "files", "configMap": {"name": NAME}},
            _host("snapshots", "/run/steerlab"),
            _host("namespaces", "/run/netns"),
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAME, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                # another plan rolls the pods
                "metadata": {"labels": labels, "annotations": {"steerlab/digest": digest}},
                "spec": pod,
            },
        },
    }


def _host(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}


class _Blocks(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a person can read the loop and the plan."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Blocks.add_representer(str, _text)
