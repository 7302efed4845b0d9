"""Finding a stack's nodes among 1,000 more, and `doctor` beside them: fake Node objects in a real API server.

    .venv/bin/python -m benchmarks.nodes KUBECONFIG -c kubernetes.images=... > benchmarks/nodes.json

The kubeconfig is that of a cluster with nodes of both labels; words after it are options of `doctor`. Seconds:
`select` finds the nodes (median of 5), `doctor` is the whole command with its probe pods (median of 3),
`decode_all` is a list of all nodes in one answer, as it was before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any

from kubernetes.client import ApiClient, CoreV1Api

from benchmarks import ROOT, machine, show
from infra.kubernetes.access import connect
from infra.kubernetes.nodes import find
from infra.settings import Kubernetes

COUNT, LABEL = 1000, "steerlab.test/fake"
# What makes a node of a cloud large: names of images.
IMAGES = 50


def main(kubeconfig: str, words: list[str]) -> None:
    """Measure and print the figures."""
    api = connect(kubeconfig, "")
    few = _measured(api, kubeconfig, words)
    with crowd(api, COUNT):
        many = _measured(api, kubeconfig, words)
    show({"machine": machine(), "nodes": COUNT, "seconds": {"without": few, "with": many}})


@contextmanager
def crowd(api: ApiClient, count: int) -> Iterator[None]:
    """Fake nodes, of the size of a cloud's, that no kubelet is behind; deleted at the end."""
    core = CoreV1Api(api)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(core.create_node, map(_node, range(count))))
        yield
    finally:
        core.delete_collection_node(label_selector=LABEL)


def _node(number: int) -> dict[str, Any]:
    name = f"fake-{number:04}"
    images = [
        {"names": [f"registry.example/team/{name}-{i}@sha256:{i:064x}"], "sizeBytes": i}
        for i in range(IMAGES)
    ]
    address = f"198.18.{number // 250}.{number % 250 + 1}"
    status = {
        "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"},
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "images": images,
    }
    labels = {LABEL: "", "kubernetes.io/hostname": name}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": True}, "status": status,
    }  # fmt: skip


def _measured(api: ApiClient, kubeconfig: str, words: list[str]) -> dict[str, float]:
    of = Kubernetes()
    command = [str(ROOT / "steerlab"), "doctor", "--target", "kubernetes",
               "-c", f"kubernetes.kubeconfig={kubeconfig}", *words]  # fmt: skip
    return {
        "select": _seconds(lambda: find(api, of), 5),
        "decode_all": _seconds(CoreV1Api(api).list_node, 3),
        "doctor": _seconds(
            lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), 3
        ),
    }


def _seconds(work: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        began = time.monotonic()
        work()
        found.append(time.monotonic() - began)
    return round(median(found), 3)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
