"""A stack's checkpoint file, as Pulumi's file backend and both engines keep it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import BaseModel, ValidationError

from infra import untrusted
from infra.errors import Refusal


class Damaged(Refusal):
    """A checkpoint that cannot be used; the message has the command that brings its backup back."""


def path_of(home: Path, project: str, stack: str) -> Path:
    """Where it is; `.pulumi` is inside `home`."""
    return home / ".pulumi" / "stacks" / project / f"{stack}.json"


def backup_of(path: Path) -> Path:
    """Where both engines keep the state before the last write."""
    return path.with_name(f"{path.name}.bak")


def read(path: Path) -> dict[str, Any] | None:
    """The document; None where none exists. Raises `Damaged`."""
    try:
        return _document(path)
    except FileNotFoundError:
        _refuse_lost(path)
        return None
    except _FAULTS as error:
        raise damaged(path, _in_words(path, error)) from None


def resources(path: Path) -> list[dict[str, Any]]:
    """Its resources in Pulumi's own form, whichever engine wrote them; empty where none exists."""
    document = read(path)
    return _resources(document) if document else []


def damaged(path: Path, fault: str) -> Damaged:
    """The error for a fault of an existing checkpoint."""
    backup = backup_of(path)
    said = f"the checkpoint {path} is damaged: {fault}"
    if backup.exists():
        return Damaged(
            f"{said}; the state before its last change is in the backup, bring it back with: "
            f"cp -- {quote(str(backup))} {quote(str(path))}"
        )
    return Damaged(f"{said}; there is no backup of it: a lab goes with ./steerlab destroy --lab")


_FAULTS = (OSError, ValueError)
# A lab of 1024 pairs takes 16 MB (243 kB at 16 pairs).
MOST_BYTES = 20 << 20


def _document(path: Path) -> dict[str, Any]:
    """Checked as far as everybody needs it."""
    # a program's numbers may be any float's, which Pulumi writes in digits
    document: dict[str, Any] = untrusted.parsed(
        untrusted.content(path, MOST_BYTES), digits=untrusted.FLOAT_DIGITS, most=MOST_BYTES
    )
    _Document.model_validate(document)
    return document


class _Resource(BaseModel):
    """What every reader takes for granted of a resource, whatever else it has."""

    urn: str
    type: str
    custom: bool
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    parent: str = ""
    provider: str = ""
    dependencies: list[str] | None = None
    propertyDependencies: dict[str, list[str] | None] = {}  # noqa: N815 Pulumi's key


class _Pending(BaseModel):
    type: str
    resource: _Resource


class _Manifest(BaseModel):
    magic: str = ""
    version: str = ""


class _Deployment(BaseModel):
    manifest: _Manifest | None = None
    resources: list[_Resource] | None = None
    pending_operations: list[_Pending] | None = None
    secrets_providers: dict[str, Any] | None = None


class _Checkpoint(BaseModel):
    latest: _Deployment | None = None


class _Document(BaseModel):
    version: int
    features: list[str] = []
    checkpoint: _Checkpoint


def _resources(document: dict[str, Any]) -> list[dict[str, Any]]:
    latest = document["checkpoint"].get("latest") or {}
    return list(latest.get("resources") or [])


def _refuse_lost(path: Path) -> None:
    """Raise `Damaged` where the backup of a missing checkpoint still lists resources."""
    backup = backup_of(path)
    try:
        count = len(_resources(_document(backup)))
    except FileNotFoundError:
        return
    except _FAULTS:
        count = -1
    if count == 0:  # what `pulumi stack rm` leaves
        return
    holds = f"lists {count} resources" if count > 0 else "cannot be read either"
    raise Damaged(
        f"the checkpoint {path} is missing, and its backup {holds}: bring it back with: "
        f"cp -- {quote(str(backup))} {quote(str(path))} (or, where nothing of the stack is left, "
        f"remove it: rm -- {quote(str(backup))})"
    )


def _in_words(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        raise error
    if isinstance(error, OSError):
        return str(error.strerror or error)
    if not path.stat().st_size:
        return "it is empty"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
