"""Drift of a cluster's stack, missing objects and changed steering: the URNs to replace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from experiments.targets.contract import Drift
from experiments.targets.kubernetes import agents
from experiments.targets.kubernetes.shell import Shell, SshShell
from infra import untrusted
from infra.errors import Refusal
from infra.kubernetes import ownership
from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.finalizer import Finalizer
from infra.kubernetes.names import Names, label
from infra.kubernetes.pinned import Pin, connect

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

PROVIDER = "pulumi:providers:kubernetes"
KINDS = ("Namespace", "ServiceAccount", "Service", "Deployment", "Job")

Resource = Mapping[str, Any]
# Kind, namespace (empty for one of the cluster's) and name of an object.
Object = tuple[str, str, str]


def of_cluster(resources: Iterable[Resource]) -> bool:
    """Whether a checkpoint is of a cluster's stack."""
    return any(resource["type"] == PROVIDER for resource in resources)


def drifted(resources: Sequence[Resource]) -> list[Drift]:
    """The drift of a checkpoint's resources. Raises `PrerequisiteMissing` where the API does not answer."""
    api = cluster(resources)
    if api is None:
        return []  # nothing was made yet
    owner = ownership.of_checkpoint(resources)
    own = not (owner and owner.namespace)
    return compare(resources, standing(api, namespaces(resources), own=own), steering_drift)


def cluster(resources: Sequence[Resource]) -> ApiClient | None:
    """A client of the cluster of a checkpoint; None where it has no cluster."""
    for one in resources:
        if one["type"] == PROVIDER:
            inputs = one.get("inputs", {})
            pin = ownership.of_checkpoint(resources) or Pin()
            named = pin.model_copy(update={"context": inputs.get("context") or pin.context})
            return connect(inputs.get("kubeconfig") or "", named)
    return None


def compare(
    resources: Sequence[Resource],
    there: set[Object],
    ask: Callable[[Finalizer], Sequence[str]],
) -> list[Drift]:
    """Missing resources and nodes with changed steering (pure except for `ask`)."""
    found = [
        Drift(urn, f"{kind} {name} no longer exists")
        for urn, (kind, namespace, name) in objects(resources).items()
        if (kind, namespace, name) not in there
    ]
    gone = {drift.name for drift in found}
    by_name = {resource["urn"].rpartition("::")[2]: resource for resource in resources}
    for guard in guards(resources):
        applied = f"steer-{label(guard.node)}"
        # a node without its agent is not steered either: recreating the agent steers it again
        if applied in by_name and applied not in gone and (words := ask(guard)):
            found.append(Drift(by_name[applied]["urn"], "; ".join(words)))
    return found


def objects(resources: Iterable[Resource]) -> dict[str, Object]:
    """The objects in a checkpoint, by URN."""
    found = {}
    for resource in resources:
        kind = resource["type"].rpartition(":")[2]
        if (
            resource["type"].startswith("kubernetes:")
            and kind in KINDS
            and not resource.get("delete")
        ):
            metadata = resource.get("inputs", {}).get("metadata")
            with untrusted.reading(f"the object {resource['urn']} in the checkpoint"):
                one = _Metadata.model_validate(metadata)
            found[resource["urn"]] = (kind, one.namespace, one.name)
    return found


class _Metadata(BaseModel):
    """Name and namespace of an object, and the uid of one that was created."""

    name: str
    namespace: str = ""
    uid: str = ""


def namespaces(resources: Iterable[Resource]) -> set[str]:
    return {namespace for _, namespace, _ in objects(resources).values() if namespace}


def uids(resources: Iterable[Resource]) -> dict[str, str]:
    """The uids of the namespaces that a checkpoint has, by name."""
    found = {}
    for resource in resources:
        if resource["type"] == "kubernetes:core/v1:Namespace" and resource.get("outputs"):
            with untrusted.reading(f"the object {resource['urn']} in the checkpoint"):
                one = _Metadata.model_validate(resource["outputs"].get("metadata"))
            found[one.name] = one.uid
    return found


def guards(resources: Iterable[Resource]) -> list[Finalizer]:
    """The steered nodes of a checkpoint."""
    found = []
    for resource in resources:
        stdin = str(resource.get("inputs", {}).get("stdin") or "")
        if resource["type"] == "command:local:Command" and stdin.startswith('{"guard"'):
            with untrusted.reading(f"the node of {resource['urn']} in the checkpoint"):
                found.append(Finalizer.model_validate(untrusted.parsed(stdin)["guard"]))
    return found


def standing(api: ApiClient, within: Iterable[str], *, own: bool = True) -> set[Object]:
    """The existing objects in these namespaces, and the cluster's namespaces where a stack has its `own`."""
    from kubernetes.client import AppsV1Api, BatchV1Api, CoreV1Api

    core, apps, batch = CoreV1Api(api), AppsV1Api(api), BatchV1Api(api)
    lists = {
        "ServiceAccount": core.list_namespaced_service_account,
        "Service": core.list_namespaced_service,
        "Deployment": apps.list_namespaced_deployment,
        "Job": batch.list_namespaced_job,
    }
    found: set[Object] = set()
    with explained("listing the stack's objects"):
        for one in core.list_namespace(_request_timeout=CALL_S).items if own else ():
            if one.status.phase == "Active":
                found.add(("Namespace", "", one.metadata.name))
        for namespace in within:
            for kind, listed in lists.items():
                names = [o.metadata.name for o in listed(namespace, _request_timeout=CALL_S).items]
                found.update((kind, namespace, name) for name in names)
    return found


def steering_drift(guard: Finalizer) -> list[str]:
    """Changes that the node's agent finds."""
    names = Names(guard.stack, guard.namespace)
    try:
        shell: Shell = (
            SshShell(guard.address, guard.ssh)
            if guard.ssh
            else agents.agent_shell(guard.kubeconfig, guard, names, guard.node)
        )
        words = ("verify", "--owner", names.owner(guard.node), "--saved")
        drift = agents.verb(shell, *words)["drift"]
    except Refusal as error:
        return [str(error)]
    return [one if isinstance(one, str) else one["message"] for one in drift]
