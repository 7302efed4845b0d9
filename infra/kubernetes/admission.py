"""What a cluster demands of pods, written into their templates; and copies of the Secrets of registries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from infra.errors import PrerequisiteMissing
from infra.kubernetes.access import CALL_S, explained
from infra.settings import PodOptions

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


def with_options(template: Mapping[str, Any], options: PodOptions) -> dict[str, Any]:
    """A pod's template with what users set for all pods; what it has itself stays (pure)."""
    metadata, spec = template["metadata"], template["spec"]
    annotations = {**options.annotations, **metadata.get("annotations", {})}
    more = {
        "imagePullSecrets": [{"name": split(one)[1]} for one in options.image_pull_secrets],
        "priorityClassName": options.priority_class,
        "tolerations": [
            one.model_dump(exclude_defaults=True) | {"operator": one.operator}
            for one in options.tolerations
        ],
    }
    return {
        "metadata": {
            **metadata,
            "labels": {**options.labels, **metadata["labels"]},
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": {**{key: value for key, value in more.items() if value}, **spec},
    }


def options_of(template: Any, namespace: str) -> PodOptions:
    """The options that the template of an agent has, from the client's model (pure)."""
    spec, metadata = template.spec, template.metadata

    def own(found: Mapping[str, str] | None) -> dict[str, str]:
        return {
            key: value
            for key, value in (found or {}).items()
            if not key.startswith(("steerlab/", "app.kubernetes.io/name"))
        }

    return PodOptions(
        image_pull_secrets=tuple(
            f"{namespace}/{one.name}" for one in spec.image_pull_secrets or ()
        ),
        labels=own(metadata.labels),
        annotations=own(metadata.annotations),
        priority_class=spec.priority_class_name or "",
    )


def split(secret: str) -> tuple[str, str]:
    """Namespace and name of a Secret (pure)."""
    namespace, _, name = secret.partition("/")
    return namespace, name


class PullSecrets(BaseModel):
    """Secrets to copy to a namespace of a stack: stdin of `hook secrets`, which has no credential."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kubeconfig: str
    context: str
    namespace: str
    secrets: tuple[str, ...]


def require(api: ApiClient, secrets: tuple[str, ...], namespace: str) -> None:
    """Raise `PrerequisiteMissing` where one of the Secrets cannot be read, or is not in the existing `namespace`."""
    from kubernetes.client import CoreV1Api

    for place, name in map(split, secrets):
        if namespace and place != namespace:
            raise PrerequisiteMissing(
                f"kubernetes.pods.imagePullSecrets: {place}/{name} is not in kubernetes.namespace, "
                f"{namespace}, to which nothing is copied: create it there"
            )
        with explained(f"kubernetes.pods.imagePullSecrets: reading {place}/{name}"):
            CoreV1Api(api).read_namespaced_secret(name, place, _request_timeout=CALL_S)


def copy(api: ApiClient, namespace: str, secrets: tuple[str, ...]) -> None:
    """Copy the Secrets of registries to a namespace, over older copies. Raises `PrerequisiteMissing`."""
    from kubernetes.client import ApiException, CoreV1Api

    core = CoreV1Api(api)
    for place, name in map(split, secrets):
        if place == namespace:
            continue
        with explained(f"kubernetes.pods.imagePullSecrets: copying {place}/{name} to {namespace}"):
            found = core.read_namespaced_secret(name, place, _request_timeout=CALL_S)
            body = {"metadata": {"name": name}, "type": found.type, "data": found.data}
            try:
                core.create_namespaced_secret(namespace, body, _request_timeout=CALL_S)
            except ApiException as error:
                if error.status != 409:
                    raise
                core.patch_namespaced_secret(name, namespace, body, _request_timeout=CALL_S)
