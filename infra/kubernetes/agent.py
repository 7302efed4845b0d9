"""Pods with the node agent, with the privileges that it needs and no others (pure).

The agent enters the network namespaces of other pods, so its pod shares the node's processes and
network and is privileged. It needs no right in the cluster's API and has no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.archive import digest
from infra.kubernetes.admission import with_options
from infra.kubernetes.names import Names, label
from infra.kubernetes.nodes import HOSTNAME, Node
from infra.settings import PodOptions

CONTAINER = "steer"
ACCOUNT = "steering"
# The agent in the image, and the node's directory of snapshots.
AGENT = ("python3", "-I", "/steer.pyz")
RUN = "/run/steerlab"
OTHER_AGENT = (
    "contains another node agent than this project: run docker/build --push, and set the key "
    "kubernetes.images to its output"
)
# Runs the agent only if its SHA-256 is as given; in any image, also an older one.
_CHECKED = (
    "sh", "-c",
    'echo "$1  $0" | sha256sum -c --status || '
    f'{{ echo "steer: the image {OTHER_AGENT}" >&2; exit 3; }}; shift; exec python3 -I "$0" "$@"',
    AGENT[-1],
)  # fmt: skip

DEFAULT_OPTIONS = PodOptions()

# Longest argument on Linux (MAX_ARG_STRLEN, 32 pages).
LONGEST_ARGUMENT = 131_071


def pod_template(
    names: Names,
    node: Node,
    image: str,
    words: Sequence[str],
    *,
    job: bool,
    options: PodOptions = DEFAULT_OPTIONS,
) -> dict[str, Any]:
    """The template of a pod on `node` that runs the agent with `words`."""
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*_CHECKED, digest()] if "apply" in words[:1] else list(AGENT),
        "args": list(words),
        # copies the agent's error from stderr to the pod's status
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "run", "mountPath": RUN}],
    }
    template = {
        "metadata": {
            "labels": names.labels("job" if job else "agent") | {"steerlab/node": label(node.name)},
            # a reboot removes the steering: the boot id then replaces the Job
            "annotations": {"steerlab/boot-id": node.boot_id},
        },
        "spec": {
            "nodeSelector": {HOSTNAME: node.hostname},
            "serviceAccountName": names.own(ACCOUNT),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostPID": True,
            "hostNetwork": True,
            "restartPolicy": "Never" if job else "Always",
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 30,
            "containers": [container],
            "volumes": [{"name": "run", "hostPath": {"path": RUN, "type": "DirectoryOrCreate"}}],
        },
    }
    return with_options(template, options)


def watch_spec(
    names: Names, node: Node, image: str, options: PodOptions = DEFAULT_OPTIONS
) -> dict[str, Any]:
    """The Deployment that watches a node's lease and reads steering back.

    When it ends, it restores the node.
    """
    words = ["watch", "--owner", names.owner(node.name)]
    template = pod_template(names, node, image, words, job=False, options=options)
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": template["metadata"]["labels"]},
        "template": template,
    }


def job_spec(
    names: Names,
    node: Node,
    image: str,
    words: Sequence[str],
    options: PodOptions = DEFAULT_OPTIONS,
) -> dict[str, Any]:
    """A Job that runs one verb of the agent; complete only after verification."""
    return {
        "backoffLimit": 0,
        "activeDeadlineSeconds": 120,
        "template": pod_template(names, node, image, words, job=True, options=options),
    }
