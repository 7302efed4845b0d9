"""The owner of a stack's namespaces: the stack's id, and the user and the folder that it was created from.

A namespace is created by one caller only, so it is the claim on a stack's name: its labels and
annotations have the owner, and all other objects of the stack have its id. No other namespace is
changed or deleted. In an existing namespace a Lease is the claim instead, on the whole namespace.
"""

from __future__ import annotations

import os
import pwd
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict

from infra import untrusted
from infra.commands import command
from infra.errors import PrerequisiteMissing
from infra.kubernetes import pinned
from infra.kubernetes.access import NAMESPACES, explained, request
from infra.kubernetes.names import OVERLAY_LEVEL, PROJECT, ROLLOUT, Names, admits, label
from infra.kubernetes.pinned import UNKNOWN, Pin

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# A label of all objects of a stack, and annotations of its namespaces.
ID = "steerlab/id"
STACK, USER, FOLDER = "steerlab/stack", "steerlab/user", "steerlab/folder"
# The claim on an existing namespace.
LEASE = "steerlab"
# Of the output of a claim, which has a few short texts.
MOST_BYTES = 1 << 16
_CLAIM = "command:local:Command::claim"


class Holder(BaseModel):
    """Who created a stack, and where its state was: a folder, or the URL of a backend."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str = ""
    folder: str = ""

    def __str__(self) -> str:
        return f"{self.user} in {self.folder}"


class Owner(Holder, Pin):
    """The holder of a stack with the stack's id and cluster: the output of `hook claim`."""

    id: str


class Claim(Pin):
    """A stack and its cluster: stdin of `hook claim`, `release` and `check`."""

    stack: str
    kubeconfig: str
    id: str = ""  # of a stack that has claimed its name


@dataclass(frozen=True)
class Namespace:
    """A namespace of the cluster and its owner, whose fields are empty where they are not known.

    Those of the first version have no id. `made` is whether this project created it for a stack. Where it has a
    Lease (`leased`), all but its name is of the Lease.
    """

    name: str
    uid: str
    made: bool
    id: str
    stack: str
    holder: Holder
    since: str
    ending: bool
    leased: bool = False


def holder(backend: str) -> Holder:
    """This process's user on this machine, with the place of a state."""
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Holder(user=f"{user}@{socket.gethostname()}", folder=place(backend))


def place(backend: str) -> str:
    """The folder of a backend's URL; of another backend its URL without credentials."""
    parts = urlsplit(backend)
    if parts.scheme in ("", "file"):
        path = Path(unquote(backend.removeprefix("file://")))
        return str(path.expanduser().resolve())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def metadata(names: Names, name: str, level: str, owner: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a stack's namespace (pure)."""
    said = _of_owner(names, owner)
    return {"name": name, **said, "labels": admits(level) | said["labels"]}


def _of_owner(names: Names, owner: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "labels": PROJECT | {STACK: label(names.stack), ID: owner["id"]},
        "annotations": {STACK: names.stack, USER: owner["user"], FOLDER: owner["folder"]},
    }


def recorded(stdout: str) -> Owner | None:
    """The owner in the output of `hook claim`; None without an output. Raises `PrerequisiteMissing`."""
    if not stdout:
        return None
    with untrusted.reading("the output of the stack's claim"):
        return Owner.model_validate(untrusted.parsed(stdout, most=MOST_BYTES))


def of_checkpoint(resources: Iterable[Mapping[str, Any]]) -> Owner | None:
    """The owner in a checkpoint; None for a stack of the first version. Raises `PrerequisiteMissing`."""
    outputs = (one.get("outputs", {}) for one in resources if one["urn"].endswith(_CLAIM))
    return next((recorded(str(one.get("stdout") or "")) for one in outputs), None)


def namespace_of(found: Any) -> Namespace:
    """From a namespace in JSON, or from the Lease in one (pure). Raises `PrerequisiteMissing`."""
    live = pinned.metadata(found)
    made = PROJECT.items() <= live.labels.items() and ROLLOUT not in live.labels
    said = live.annotations
    return Namespace(
        name=live.namespace or live.name,
        uid=live.uid,
        made=made,
        id=live.labels.get(ID, "") if made else "",
        stack=said.get(STACK, ""),
        holder=Holder(user=said.get(USER, ""), folder=said.get(FOLDER, "")),
        since=f"{live.since:%Y-%m-%d %H:%M} UTC" if live.since else "",
        ending=live.ending is not None,
        leased=bool(live.namespace),
    )


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"


def _path(name: str, *, leased: bool) -> str:
    """Of the namespace of that name, or of the Lease in it."""
    return f"{_leases(name)}/{LEASE}" if leased else f"{NAMESPACES}/{quote(name)}"


def find(api: ApiClient, name: str, *, leased: bool = False) -> Namespace | None:
    """The namespace of that name, or the Lease in it; None where there is none."""
    from kubernetes.client import ApiException

    with explained(f"reading the {'Lease' if leased else 'namespace'} {name}"):
        try:
            return namespace_of(request(api, "GET", _path(name, leased=leased)))
        except ApiException as error:
            if error.status != 404:
                raise
            return None


def listed(api: ApiClient) -> list[Namespace]:
    """All namespaces with the label of this project."""
    selector = ",".join(f"{key}={value}" for key, value in PROJECT.items())
    with explained("listing the namespaces of steerlab"):
        found = request(api, "GET", NAMESPACES, query=[("labelSelector", selector)])
    return [namespace_of(one) for one in found.get("items", ())]


def taken(found: Namespace, stack: str) -> PrerequisiteMissing:
    """The error for a namespace that does not belong to this stack (pure)."""
    other = "use another stack name"
    if found.leased:
        remove = command("destroy", "--cluster", "-s", found.stack)
        return PrerequisiteMissing(
            f"namespace {found.name} has stack {found.stack} of {found.holder}, since {found.since}, and "
            f"a namespace has one: destroy that stack there (from any machine: {remove} "
            f"-c kubernetes.namespace={found.name}), or use another namespace"
        )
    if not found.made:
        return PrerequisiteMissing(
            f"namespace {found.name} was not created by steerlab for a stack, and is not changed: {other}"
        )
    remove = command("destroy", "--cluster", "-s", found.stack or stack)
    if not found.id:
        return PrerequisiteMissing(
            f"namespace {found.name} was created by an earlier version, which recorded no owner: "
            f"continue with {command('up', '-s', stack)} where it was created, {other}, or remove "
            f"it: {remove}"
        )
    return PrerequisiteMissing(
        f"namespace {found.name} belongs to stack {found.stack} of {found.holder}, since "
        f"{found.since}: {other}, or destroy that stack there (from any machine: {remove})"
    )


def claim(
    api: ApiClient, names: Names, holder: Holder, known: str = "", pin: Pin = UNKNOWN
) -> Owner:
    """Create the namespace of the measured pods, or find that it belongs to this stack.

    `known` is the id of an earlier claim. Without one, a namespace with the same holder is that of
    a claim that was interrupted. Raises `PrerequisiteMissing` where it belongs to another stack.
    """
    from kubernetes.client import ApiException

    mine = Owner(**holder.model_dump(), **pin.model_dump(), id=known or secrets.token_hex(8))
    leased = bool(names.namespace)
    with explained(f"creating the {'Lease in ' * leased}namespace {names.pods}"):
        try:
            if leased:
                lease = {
                    "metadata": {"name": LEASE, **_of_owner(names, mine.model_dump())},
                    "spec": {"holderIdentity": f"{holder}"},
                }
                request(api, "POST", _leases(names.namespace), body=lease)
            else:
                body = {"metadata": metadata(names, names.pods, OVERLAY_LEVEL, mine.model_dump())}
                request(api, "POST", NAMESPACES, body=body)
            return mine
        except ApiException as error:
            if error.status != 409:
                raise
    found = find(api, names.pods, leased=leased)
    if found is None or found.ending:
        raise PrerequisiteMissing(
            f"namespace {names.pods} is being deleted: wait until it no longer exists"
        )
    if not claims(found, names, holder, known):
        raise taken(found, names.stack)
    return Owner(**found.holder.model_dump(), **pin.model_dump(), id=found.id)


def claims(found: Namespace, names: Names, holder: Holder, known: str) -> bool:
    """Whether a namespace belongs to a stack, from its id or, without an earlier claim, its holder (pure)."""
    if not found.id or known:
        return bool(found.id) and found.id == known
    return (found.stack, found.holder) == (names.stack, holder)


def mark(api: ApiClient, found: Namespace, names: Names, owner: Owner) -> None:
    """Write the owner to an existing namespace of this stack."""
    # with its uid: another one of this name is refused
    said = {**_of_owner(names, owner.model_dump()), "uid": found.uid}
    with explained(f"changing the namespace {found.name}"):
        request(api, "PATCH", _path(found.name, leased=False), body={"metadata": said})


def check(api: ApiClient, names: Names, id_: str) -> None:
    """Raise `PrerequisiteMissing` where a namespace of this stack belongs to another one."""
    if found := foreign(api, names, id_):
        raise taken(found, names.stack)


def foreign(api: ApiClient, names: Names, id_: str) -> Namespace | None:
    """The first namespace with a name of this stack that has not this id."""
    leased = bool(names.namespace)
    there = (find(api, name, leased=leased) for name in {names.pods: 0, names.steering: 0})
    return next((found for found in there if found and found.id != id_), None)


def release(api: ApiClient, names: Names, holder: Holder, known: str) -> None:
    """Delete the claimed namespace of a stack that was not set up further; that of others is not touched."""
    found = find(api, names.pods, leased=bool(names.namespace))
    if found and claims(found, names, holder, known):
        delete(api, found)


def delete(api: ApiClient, found: Namespace) -> None:
    """Delete a namespace with all that is in it, or its Lease alone; not another one of the same name."""
    from kubernetes.client import ApiException

    body = {"preconditions": {"uid": found.uid}}
    with explained(f"deleting the {'Lease in ' * found.leased}namespace {found.name}"):
        try:
            request(api, "DELETE", _path(found.name, leased=found.leased), body=body)
        except ApiException as error:
            if error.status not in (404, 409):  # gone, or being deleted
                raise
