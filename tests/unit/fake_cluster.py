"""An API server that keeps objects in memory, and what a cluster's controllers do with a stack's objects."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

from experiments.engines.embedded import kubernetes

Object = dict[str, Any]
CORE = "/api/v1"
KINDS = {
    "namespaces": "Namespace", "nodes": "Node", "pods": "Pod", "services": "Service",
    "endpoints": "Endpoints", "serviceaccounts": "ServiceAccount", "deployments": "Deployment",
    "jobs": "Job", "secrets": "Secret", "leases": "Lease",
}  # fmt: skip
RESTORED = {"owner": "x/n", "restored": 3, "failed": [], "left": [], "warnings": []}


class Refused(Exception):
    """An error of the API."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeCluster:
    """Objects by their paths; `writes` are the requests that were meant to change one, in order.

    `reads` are the others, as they came.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        self.reads: list[str] = []
        self.log = json.dumps(RESTORED)  # of the pod of each Job
        self._turn = threading.RLock()

    # --- what a test asks and prepares ---

    def __getitem__(self, name: str) -> Object:
        """A namespace."""
        return self.objects[f"{CORE}/namespaces/{name}"]

    def named(self, plural: str, namespace: str = "") -> set[str]:
        """The names of all objects of a kind."""
        within = f"/namespaces/{namespace}/" if namespace else ""
        return {
            one["metadata"]["name"]
            for path, one in self.objects.items()
            if path.split("/")[-2] == plural and within in path
        }

    def add_node(
        self, name: str, side: str, ready: str = "True", address: str = "192.0.2.1"
    ) -> None:
        facts = (
            "architecture", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion",
            "machineID", "operatingSystem", "osImage",
        )  # fmt: skip
        info = {**dict.fromkeys(facts, "x"), "bootID": f"boot of {name}", "systemUUID": name}
        self.objects[f"{CORE}/nodes/{name}"] = {
            "metadata": {
                "name": name,
                "labels": {"iperf": side, "kubernetes.io/hostname": f"host-{name}"},
            },
            "spec": {},
            "status": {
                "nodeInfo": info,
                "capacity": {"cpu": "4"},
                "conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "InternalIP", "address": address}],
            },
        }

    def add_namespace(self, name: str, **labels: str) -> None:
        self._create(
            f"{CORE}/namespaces", {"metadata": {"name": name, "labels": {**labels}}}, note=False
        )

    # --- requests ---

    def answer(self, method: str, target: str, kind: str, body: Any) -> Any:
        url = urlsplit(target)
        path, query = url.path, {key: values[0] for key, values in parse_qs(url.query).items()}
        with self._turn:
            if method == "GET":
                self.reads.append(target)
                return self._read(path, query)
            if method == "POST":
                return self._create(path, body)
            self.writes.append((method, path))
            if method == "DELETE":
                return self._delete(path, body or {})
            return self._patch(path, body, applied="apply" in kind)

    def _read(self, path: str, query: Mapping[str, str]) -> Any:
        if path.endswith("/log"):
            return self.log
        if path in self.objects:
            return self.objects[path]
        if path.split("/")[-1] not in KINDS:
            raise Refused(404, f"{path} not found")
        plural = path.rpartition("/")[2]
        found = [one for key, one in self.objects.items() if key.rpartition("/")[0] == path]
        selector = query.get("labelSelector", "")
        key, several, values = selector.rstrip(")").partition(" in (")
        parts = selector.split(",") if selector and not several else []
        wanted = dict(part.split("=") for part in parts if "=" in part)
        keys = {part for part in parts if "=" not in part}
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        items = [
            one
            for one in found
            if wanted.items() <= (one["metadata"].get("labels") or {}).items()
            and keys <= (one["metadata"].get("labels") or {}).keys()
            and (not several or one["metadata"]["labels"].get(key) in values.split(","))
            and name in ("", one["metadata"]["name"])
        ]
        first = int(query.get("continue") or 0)
        end = first + int(query.get("limit") or len(items))
        more = {"continue": str(end)} if end < len(items) else {}
        items = items[first:end]
        return {
            "kind": f"{KINDS[plural]}List", "apiVersion": "v1", "metadata": more, "items": items,
        }  # fmt: skip

    def _create(self, path: str, body: Object, *, note: bool = True) -> Object:
        metadata = {**body["metadata"], "uid": str(uuid.uuid4()), "generation": 1}
        if "generateName" in metadata:
            metadata["name"] = metadata["generateName"] + metadata["uid"][:5]
        metadata["creationTimestamp"] = "2026-01-02T03:04:05Z"
        *_, plural = path.split("/")
        if "/namespaces/" in path:
            room = path.partition("/namespaces/")[2].split("/")[0]
            metadata["namespace"] = room
            if f"{CORE}/namespaces/{room}" not in self.objects:
                raise Refused(404, f"namespaces {room} not found")
        key = f"{path}/{metadata['name']}"
        if note:
            self.writes.append(("POST", key))
        if key in self.objects:
            raise Refused(409, f"{key} already exists")
        self.objects[key] = {**body, "kind": KINDS[plural], "metadata": metadata}
        _CONTROLLERS.get(plural, lambda *_: None)(self, key)
        return self.objects[key]

    def _patch(self, path: str, body: Object, *, applied: bool) -> Object:
        if path not in self.objects:
            if not applied:
                raise Refused(404, f"{path} not found")
            return self._create(path.rpartition("/")[0], body, note=False)
        one = self.objects[path]
        if body["metadata"].get("uid", one["metadata"]["uid"]) != one["metadata"]["uid"]:
            raise Refused(409, "the uid differs")
        for part in ("labels", "annotations"):
            one["metadata"][part] = (one["metadata"].get(part) or {}) | (
                body["metadata"].get(part) or {}
            )
        if "spec" in body:
            one["spec"] = body["spec"]
        return one

    def _delete(self, path: str, body: Object) -> Object:
        if path not in self.objects:
            raise Refused(404, f"{path} not found")
        uid = (body.get("preconditions") or {}).get("uid")
        if uid and uid != self.objects[path]["metadata"]["uid"]:
            raise Refused(409, "the uid differs")
        above, _, name = path.rpartition("/")
        room = f"/namespaces/{name}/" if above == f"{CORE}/namespaces" else "none"
        pod = f"{CORE}{above[above.find('/namespaces/') :].rpartition('/')[0]}/pods/{name}-pod"
        gone = (path, pod, path.replace("/services/", "/endpoints/"))
        deleted = self.objects[path]
        self.objects = {
            key: one for key, one in self.objects.items() if key not in gone and room not in key
        }
        if above.endswith(("/services", "/serviceaccounts")):
            return deleted
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    # --- controllers ---

    def _pod(self, path: str, labels: Object, state: Object, phase: str) -> None:
        """A pod of a Deployment or a Job."""
        owner = self.objects[path]
        room, template = owner["metadata"]["namespace"], owner["spec"]["template"]
        selector = template["spec"]["nodeSelector"]["kubernetes.io/hostname"]
        status = {
            "name": template["spec"]["containers"][0]["name"], "image": "i", "imageID": "i", "ready": True,
            "restartCount": 0, "state": state,
        }  # fmt: skip
        pod = {
            "metadata": {"name": f"{owner['metadata']['name']}-pod", "labels": labels},
            "spec": {**template["spec"], "nodeName": selector.removeprefix("host-")},
            "status": {
                "phase": phase,
                "podIP": "10.0.0.1",
                "hostIP": "192.0.2.1",
                "containerStatuses": [status],
            },
        }
        self._create(f"{CORE}/namespaces/{room}/pods", pod, note=False)

    def _activate(self, path: str) -> None:
        self.objects[path]["status"] = {"phase": "Active"}

    def _roll_out(self, path: str) -> None:
        counts = ("updatedReplicas", "availableReplicas", "replicas", "readyReplicas")
        self.objects[path]["status"] = {"observedGeneration": 1, **dict.fromkeys(counts, 1)}
        labels = self.objects[path]["spec"]["template"]["metadata"]["labels"]
        self._pod(path, labels, {"running": {"startedAt": "2026-01-02T03:04:05Z"}}, "Running")

    def _complete(self, path: str) -> None:
        self.objects[path]["status"] = {
            "succeeded": 1,
            "completionTime": "2026-01-02T03:04:05Z",
            "conditions": [{"type": "Complete", "status": "True"}],
        }
        ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        self._pod(path, {"job-name": path.rpartition("/")[2]}, ended, "Succeeded")

    def _connect(self, path: str) -> None:
        subset = {"addresses": [{"ip": "10.0.0.1"}]}
        above, _, name = path.replace("/services/", "/endpoints/").rpartition("/")
        self.objects[f"{above}/{name}"] = {"metadata": {"name": name}, "subsets": [subset]}


_CONTROLLERS: dict[str, Callable[[FakeCluster, str], None]] = {
    "namespaces": FakeCluster._activate,
    "deployments": FakeCluster._roll_out,
    "jobs": FakeCluster._complete,
    "services": FakeCluster._connect,
}


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # a body does not wait for the acknowledgement of its head
    cluster: FakeCluster
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status: int = 200
        try:
            kind = self.headers.get("Content-Type", "")
            said = self.cluster.answer(self.command, self.path, kind, body)
        except Refused as error:
            status = error.status
            said = {"kind": "Status", "status": "Failure", "message": str(error), "code": status}
        text = (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response(status)
        of = "text/plain" if isinstance(said, str) else "application/json"
        self.send_header("Content-Type", of)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[tuple[FakeCluster, Path]]:
    """A cluster with one node of each side, and the kubeconfig for it."""
    made = FakeCluster()
    made.add_node("s1", "server")
    made.add_node("c1", "client")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": made}))
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, args=(0.02,), daemon=True
    ).start()  # its end is seen soon
    where = f"http://127.0.0.1:{server.server_port}"
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": where}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }  # fmt: skip
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(document))
    try:
        with patch.object(kubernetes, "_TICK", 0.02):  # what stands here is ready at once
            yield made, kubeconfig
    finally:
        server.shutdown()
        server.server_close()
