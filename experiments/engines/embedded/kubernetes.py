"""Five kinds of Kubernetes objects: server-side apply, waits and deletion, as pulumi-kubernetes does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from experiments.engines.embedded.planning import UNKNOWN, unknown
from experiments.engines.embedded.provider import OperationFailed, OperationInterrupted, Properties
from infra.commands import how_ended
from infra.errors import Refusal, leave
from infra.kubernetes import causes
from infra.kubernetes.access import APPLY, connect, request, words

TYPE = "kubernetes:"
MANAGER = "steerlab"
WAIT_S = 600.0
# An API server that restarts answers again within this time; seconds.
AWAY_S = 30.0
_TICK = 0.25
_SKIP, _TIMEOUT = "pulumi.com/skipAwait", "pulumi.com/timeoutSeconds"
# Endings of conditions that are True in case of a fault.
_FAULTS = ("Failure", "Remaining", "Failed", "FailureTarget", "Suspended")


class Kind(NamedTuple):
    """The API path of a kind, and the property paths that cannot be changed in place."""

    group: str
    plural: str
    namespaced: bool = True
    immutable: tuple[str, ...] = ()


_CORE = "/api/v1"
KINDS = {
    "core/v1:Namespace": Kind(_CORE, "namespaces", namespaced=False),
    "core/v1:ServiceAccount": Kind(_CORE, "serviceaccounts"),
    "core/v1:Service": Kind(_CORE, "services", immutable=("spec.clusterIP",)),
    "apps/v1:Deployment": Kind("/apis/apps/v1", "deployments", immutable=("spec.selector",)),
    "batch/v1:Job": Kind(
        "/apis/batch/v1",
        "jobs",
        immutable=("spec.template", "spec.selector", "spec.completions", "spec.completionMode"),
    ),
}
_ALWAYS = ("apiVersion", "kind", "metadata.name", "metadata.namespace")


def kind_of(type_: str) -> Kind | None:
    """The kind of a resource's type; None where this engine does not support it."""
    return KINDS.get(type_.removeprefix(TYPE)) if type_.startswith(TYPE) else None


def immutable(type_: str) -> tuple[str, ...]:
    """The property paths whose change replaces an object."""
    kind = kind_of(type_)
    return (*_ALWAYS, *kind.immutable) if kind else ()


def problems(inputs: Properties) -> list[str]:
    """Unsupported inputs of an object: names must be given."""
    metadata = inputs.get("metadata")
    if metadata == UNKNOWN or (isinstance(metadata, dict) and metadata.get("name")):
        return []
    return ["metadata.name is missing: the embedded engine generates no names"]


def provider_problems(inputs: Properties) -> list[str]:
    """Unsupported inputs of a provider: the contents of a kubeconfig would be credentials in the state."""
    found = [
        f"provider input {name} is not supported"
        for name in inputs
        if name not in ("kubeconfig", "context", "version")
    ]
    if any(sign in (inputs.get("kubeconfig") or "") for sign in "\n{"):
        found.append("provider input kubeconfig must be the path of a file, not its contents")
    return found


class Objects:
    """The objects of one cluster; `stop` ends what waits."""

    def __init__(
        self, provider: Mapping[str, Any], stop: threading.Event, *, preview: bool
    ) -> None:
        self._preview = preview
        self._stop = stop
        self._connect = cache(
            lambda: connect(provider.get("kubeconfig") or "", provider.get("context") or "")
        )

    def create(self, type_: str, inputs: Properties) -> Properties:
        """Apply an object, wait until it is ready and return its live form."""
        if self._preview:
            return inputs | {"metadata": _foreseen(inputs.get("metadata"))}
        kind, name, namespace = self._place(type_, inputs)
        if kind.plural == "jobs":  # an existing one would not run again
            self.delete(type_, inputs)
        query = [("fieldManager", MANAGER), ("force", "true")]
        body = {key: value for key, value in inputs.items() if key != "status"}
        self._call("PATCH", kind, namespace, name, query=query, body=body)
        return self._stands(kind, namespace, name, inputs)

    def update(self, type_: str, inputs: Properties, recorded: Properties) -> Properties:
        if self._preview:
            if unknown(inputs):
                return self.create(type_, inputs)
            metadata = recorded.get("metadata", {}) | (inputs.get("metadata") or {})
            return recorded | inputs | {"metadata": metadata}
        return self.create(type_, inputs)

    def delete(self, type_: str, recorded: Properties) -> None:
        """Delete an object with its dependents and wait until it no longer exists; a missing object is no failure."""
        if self._preview:
            return
        kind, name, namespace = self._place(type_, recorded)
        before = self._get(kind, namespace, name)
        if before is None:
            return
        body = {"propagationPolicy": "Foreground"}
        self._call("DELETE", kind, namespace, name, body=body, absent=True)
        uid = before["metadata"]["uid"]
        last = before

        def gone() -> bool:
            nonlocal last
            now = self._get(kind, namespace, name)
            if now is None or now["metadata"]["uid"] != uid:
                return True
            last = now
            return False

        self._until(gone, WAIT_S, lambda: f"{kind.plural}/{name} is not deleted: {_state(last)}")

    def new_id(self, _: str, outputs: Properties) -> str:
        if self._preview:
            return ""
        metadata = outputs["metadata"]
        return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))

    def _place(self, type_: str, properties: Properties) -> tuple[Kind, str, str]:
        kind = kind_of(type_)
        assert kind  # noqa: S101 the monitor refuses others
        metadata = properties["metadata"]
        namespace = metadata.get("namespace") or "default"
        return kind, metadata["name"], namespace if kind.namespaced else ""

    # --- waits ---

    def _stands(self, kind: Kind, namespace: str, name: str, inputs: Properties) -> Properties:
        said = inputs["metadata"].get("annotations") or {}
        last: Properties = {}
        waiting = ""
        since = time.monotonic()

        def ready() -> bool:
            nonlocal last, waiting
            live = self._get(kind, namespace, name)
            if live is None:
                raise OperationFailed(f"{kind.plural}/{name} was deleted during the wait")
            last = live
            if live["metadata"].get("deletionTimestamp"):
                raise OperationFailed(
                    f"{kind.plural}/{name} is being deleted ({_state(live)}): wait until it no longer exists"
                )
            if said.get(_SKIP) == "true":
                return True
            match kind.plural:
                case "namespaces":
                    return bool(live["status"].get("phase") == "Active")
                case "deployments":
                    if not (done := rolled_out(live)):
                        labels = live["spec"]["selector"]["matchLabels"]
                        waiting = self._stuck(namespace, live, labels, time.monotonic() - since)
                    return done
                case "jobs":
                    if not (done := self._job_done(namespace, live)):
                        labels = {"job-name": name}
                        waiting = self._stuck(namespace, live, labels, time.monotonic() - since)
                    return done
                case "services":
                    return not live["spec"].get("selector") or self._has_endpoints(namespace, name)
            return True

        seconds = float(said.get(_TIMEOUT, 0)) or WAIT_S

        def late() -> str:
            return f"{kind.plural}/{name} is not ready: {waiting or _state(last)}"

        self._until(ready, seconds, late)
        last.get("metadata", {}).pop("managedFields", None)
        return last

    def _job_done(self, namespace: str, live: Properties) -> bool:
        conditions = {c["type"]: c for c in live["status"].get("conditions") or []}
        failed = conditions.get("Failed", conditions.get("FailureTarget", {}))
        if failed.get("status") == "True":
            name = live["metadata"]["name"]
            code, said = self._end_of(namespace, f"job-name={name}")
            leave(code)
            why = f"{how_ended(code)}: {said}" if code else failed.get("message", "")
            raise OperationFailed(f"Job {name} failed: {why}")
        return bool(conditions.get("Complete", {}).get("status") == "True")

    def _end_of(self, namespace: str, selector: str) -> tuple[int, str]:
        """Exit code and last message of the last failed container of these pods; 0 for none."""
        for pod in reversed(self._pods(namespace, selector)):
            for container in pod["status"].get("containerStatuses") or []:
                ended = container["state"].get("terminated") or {}
                if ended.get("exitCode"):
                    said = (ended.get("message") or ended.get("reason") or "").strip()
                    return int(ended["exitCode"]), said[-2000:]
        return 0, ""

    def _stuck(self, namespace: str, live: Properties, labels: Properties, waited: float) -> str:
        """Why the pods with these labels do not run yet. Raises where waiting does not help."""
        if waited < 1:
            return ""
        pods = self._pods(namespace, ",".join(f"{key}={value}" for key, value in labels.items()))
        # a Job whose pods are refused has no condition
        found = causes.of(live, pods, [] if pods else self._events(namespace, live))
        for cause in found:
            if waited > cause.patience_s:
                raise OperationFailed(cause.text)
        return "; ".join(cause.text for cause in found)

    def _events(self, namespace: str, live: Properties) -> list[Properties]:
        """The warnings of an object; none without the right to list them."""
        of = f"involvedObject.uid={live['metadata'].get('uid')},type=Warning"
        try:
            listed = self._call(
                "GET", Kind(_CORE, "events"), namespace, "", query=[("fieldSelector", of)]
            )
        except OperationFailed:
            return []
        return list((listed or {}).get("items", []))

    def _pods(self, namespace: str, selector: str) -> list[Properties]:
        query = [("labelSelector", selector)]
        listed = self._call("GET", Kind(_CORE, "pods"), namespace, "", query=query)
        return list((listed or {}).get("items", []))

    def _has_endpoints(self, namespace: str, name: str) -> bool:
        found = self._get(Kind(_CORE, "endpoints"), namespace, name) or {}
        return any(subset.get("addresses") for subset in found.get("subsets") or [])

    def _until(self, holds: Callable[[], bool], seconds: float, late: Callable[[], str]) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise OperationFailed(f"{late()} after {seconds:.0f} s")
            self._sleep(_TICK)

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise OperationInterrupted("interrupted while waiting for the cluster")

    # --- calls ---

    def _get(self, kind: Kind, namespace: str, name: str) -> Properties | None:
        return self._call("GET", kind, namespace, name, absent=True)

    def _call(
        self,
        method: str,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Properties | None = None,
        absent: bool = False,
    ) -> Properties | None:
        """One request, repeated while the API server is away; None for a missing object where `absent`."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        within = f"/namespaces/{namespace}" if namespace else ""
        path = f"{kind.group}{within}/{kind.plural}" + (f"/{name}" if name else "")
        end = time.monotonic() + AWAY_S
        while True:
            if self._stop.is_set():
                raise OperationInterrupted("interrupted before the call to the cluster")
            try:
                return request(
                    self._connect(), method, path, query=query or [], body=body, patch=APPLY
                )
            except ApiException as error:
                if error.status == 404 and absent:
                    return None
                if error.status not in (429, 500, 502, 503, 504) or time.monotonic() > end:
                    said = words(error.status, error.reason, error.body)
                    raise OperationFailed(f"{method} {path}: {said}") from None
            except (HTTPError, OSError) as error:
                if time.monotonic() > end:
                    reason = getattr(error, "reason", None) or error
                    raise OperationFailed(f"the API server does not answer: {reason}") from None
            except Refusal as error:
                leave(error.exit_code)
                raise OperationFailed(str(error)) from None
            self._sleep(1.0)


def rolled_out(live: Mapping[str, Any]) -> bool:
    """Whether all pods of a Deployment have its latest template and are available (pure)."""
    status, wanted = live.get("status", {}), live["spec"].get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
    )


def _state(live: Mapping[str, Any]) -> str:
    """Messages of an object's conditions that show a fault (pure)."""
    conditions = live.get("status", {}).get("conditions") or []
    said = [
        c.get("message") or c.get("reason", "")
        for c in conditions
        if (c.get("status") == "True") == _is_fault(c.get("type", ""))
    ]
    return "; ".join(filter(None, said)) or "no reason given"


def _is_fault(condition: str) -> bool:
    """Whether True means a fault for a condition, such as ReplicaFailure (pure)."""
    return condition.endswith(_FAULTS)


def _foreseen(metadata: Any) -> Any:
    """An object's metadata before its creation."""
    return {**metadata, "uid": UNKNOWN} if isinstance(metadata, dict) else UNKNOWN
