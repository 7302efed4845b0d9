"""A stack's checkpoint file, in the form of Pulumi's file backend, which both engines use."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import BaseModel, ValidationError

from infra import untrusted
from infra.errors import Refusal


class Damaged(Refusal):
    """A checkpoint that cannot be used; the message has the command that restores its backup."""


def path_of(home: Path, project: str, stack: str) -> Path:
    """Its path; `.pulumi` is inside `home`."""
    return home / ".pulumi" / "stacks" / project / f"{stack}.json"


def backup_of(path: Path) -> Path:
    """The path of the state before the last write, which both engines keep."""
    return path.with_name(f"{path.name}.bak")


def read(path: Path) -> dict[str, Any] | None:
    """The document; None where none exists. Raises `Damaged`."""
    try:
        return _document(path)
    except FileNotFoundError:
        _refuse_lost(path)
        return None
    except _FAULTS as error:
        raise damaged(path, _described(path, error)) from None


def resources(path: Path) -> list[dict[str, Any]]:
    """Its resources in Pulumi's form; empty where no checkpoint exists."""
    document = read(path)
    return _resources(document) if document else []


def damaged(path: Path, fault: str) -> Damaged:
    """The error for a fault of an existing checkpoint."""
    backup = backup_of(path)
    said = f"the checkpoint {path} is damaged: {fault}"
    if backup.exists():
        return Damaged(
            f"{said}; the backup has the state before the last change; restore it with: "
            f"cp -- {quote(str(backup))} {quote(str(path))}"
        )
    return Damaged(f"{said}; it has no backup: remove a lab with ./steerlab destroy --lab")


_FAULTS = (OSError, ValueError)
# A lab of 1024 pairs takes 16 MB (243 kB at 16 pairs).
MOST_BYTES = 20 << 20


def _document(path: Path) -> dict[str, Any]:
    """The document with its common parts checked."""
    # a program's numbers can be any float, and Pulumi writes all digits
    document: dict[str, Any] = untrusted.parsed(
        untrusted.content(path, MOST_BYTES), digits=untrusted.FLOAT_DIGITS, most=MOST_BYTES
    )
    _Document.model_validate(document)
    return document


class _Resource(BaseModel):
    """The fields of a resource that readers depend on; others are kept."""

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
    """Raise `Damaged` where a checkpoint is missing and its backup lists resources."""
    backup = backup_of(path)
    try:
        count = len(_resources(_document(backup)))
    except FileNotFoundError:
        return
    except _FAULTS:
        count = -1
    if count == 0:  # after `pulumi stack rm`
        return
    holds = f"lists {count} resources" if count > 0 else "cannot be read either"
    raise Damaged(
        f"the checkpoint {path} is missing, and its backup {holds}: restore it with: "
        f"cp -- {quote(str(backup))} {quote(str(path))} (or, if no resource of the stack exists any more, "
        f"remove it: rm -- {quote(str(backup))})"
    )


def _described(path: Path, error: Exception) -> str:
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
