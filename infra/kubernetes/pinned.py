"""The cluster of a stack: recorded at its creation, and refused where a kubeconfig has another one by now."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from infra import untrusted
from infra.commands import quoted
from infra.errors import PrerequisiteMissing
from infra.kubernetes import access

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# The namespace whose uid identifies a cluster: each has it, and nobody can recreate it.
SYSTEM = "kube-system"
_MOST_BYTES = 1 << 16  # of a file with a cluster
_UIDS: dict[tuple[str, str], str] = {}


class Metadata(BaseModel):
    """What this project reads of the metadata of an object in the API."""

    name: str
    uid: str
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    since: datetime | None = Field(default=None, alias="creationTimestamp")
    ending: datetime | None = Field(default=None, alias="deletionTimestamp")


class _Object(BaseModel):
    metadata: Metadata


def metadata(found: Any) -> Metadata:
    """Of an object in JSON (pure). Raises `PrerequisiteMissing`."""
    with untrusted.reading("the metadata of the API server's answer"):
        return _Object.model_validate(found).metadata


class Pin(BaseModel):
    """A cluster: the kubeconfig's context, the URL of its server, and the uid of namespace kube-system.

    A field is empty where it is not known: all but the context in a stack of an earlier version, the
    context in a pod, the uid without the right to read the namespace. `namespace` is an existing one
    that has the whole stack.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: str = ""
    server: str = Field(default="", exclude_if=lambda text: not text)
    cluster: str = Field(default="", exclude_if=lambda text: not text)
    namespace: str = Field(default="", exclude_if=lambda text: not text)

    def bare(self) -> Pin:
        """The cluster alone, without what a subclass adds."""
        return Pin(**{name: getattr(self, name) for name in Pin.model_fields})


UNKNOWN = Pin()


def kept(path: Path) -> Pin | None:
    """The cluster recorded in a file; None where there is none. Raises `PrerequisiteMissing`."""
    if not path.exists():
        return None
    try:
        data = untrusted.content(path, _MOST_BYTES)
    except OSError as error:
        raise PrerequisiteMissing(
            f"the cluster in {path} cannot be read: {error.strerror}"
        ) from None
    with untrusted.reading(f"the cluster in {path}"):
        return Pin.model_validate(untrusted.parsed(data))


def connect(kubeconfig: str, pin: Pin) -> ApiClient:
    """A client of a recorded cluster. Raises `PrerequisiteMissing` where its context has another one by now."""
    if not pin.server:
        return access.connect(kubeconfig, pin.context)
    api, now = look(kubeconfig, pin.context)
    refuse_other(now, pin)
    return api


def look(kubeconfig: str, context: str) -> tuple[ApiClient, Pin]:
    """A client of the cluster that a kubeconfig has now, and that cluster."""
    from kubernetes.client import ApiException

    name = context or access.current_context(kubeconfig)
    api = access.connect(kubeconfig, name)
    known = api.configuration.host, str(api.configuration.ssl_ca_cert)
    if known not in _UIDS:
        with access.explained(f"reading the namespace {SYSTEM}"):
            try:
                found = access.request(api, "GET", f"{access.NAMESPACES}/{SYSTEM}")
                _UIDS[known] = metadata(found).uid
            except ApiException as error:
                if error.status not in (403, 404):
                    raise
                _UIDS[known] = ""
    return api, Pin(context=name, server=api.configuration.host, cluster=_UIDS[known])


def refuse_other(now: Pin, pin: Pin) -> None:
    """Raise `PrerequisiteMissing` where the cluster of now is not the recorded one (pure).

    A cluster may get another URL: it decides only where a uid is not known.
    """
    if not pin.server:
        return
    if now.cluster == pin.cluster if now.cluster and pin.cluster else now.server == pin.server:
        return
    use = f"kubectl config use-context {quoted(pin.context)}, or " if pin.context else ""
    raise PrerequisiteMissing(
        f"kubeconfig: context {now.context or '(none)'} is the cluster at {now.server}, and this stack was "
        f"created on another one, at {pin.server} (context {pin.context or '(none)'}); nothing was changed: "
        f"{use}set kubernetes.kubeconfig and kubernetes.context"
    )
