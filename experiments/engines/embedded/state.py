"""A stack's checkpoint file, in Pulumi's own format and file layout: read, checked, replaced."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from analysis import files
from experiments.engines import EngineError, StackRef
from experiments.engines.embedded import command, kubernetes, planning
from experiments.engines.embedded.planning import Resource
from infra import checkpoint

Doing = Literal["creating", "updating", "deleting"]

_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - how Pulumi marks a secret value
_PULUMI = "v3.260.0"  # the version whose format is written


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a stack's file; `pending` has the operations of a killed run."""

    resources: list[Resource] = field(default_factory=list)
    pending: list[tuple[Doing, Resource]] = field(default_factory=list)
    secrets_providers: dict[str, Any] | None = None


def load(stack: StackRef) -> Checkpoint:
    """Read and check a stack's file; an unknown stack is empty. Raises `EngineError`, `Damaged`."""
    path = stack.checkpoint
    if not path.exists():
        for compressed in path.parent.glob(f"{path.name}.[gz]*"):
            raise EngineError(f"compressed state is not supported here: {compressed}")
    document = checkpoint.read(path)
    if document is None:
        return Checkpoint()
    if document["version"] != 3:
        features = ", ".join(document.get("features", ())) or f"format {document['version']}"
        raise EngineError(f"{path} needs the Pulumi CLI: {features}")
    latest = document["checkpoint"].get("latest") or {}
    loaded = Checkpoint(
        latest.get("resources") or [],
        [(op["type"], op["resource"]) for op in latest.get("pending_operations") or ()],
        latest.get("secrets_providers"),
    )
    if fault := _fault(latest.get("manifest"), loaded.resources):
        raise checkpoint.damaged(path, fault)
    return loaded


def _fault(manifest: dict[str, str] | None, resources: Iterable[Resource]) -> str:
    """What Pulumi's own integrity check would find; "" where the resources are sound."""
    if manifest and manifest.get("magic", "") != _magic(manifest.get("version", "")):
        return "its magic does not fit its version"
    seen: set[str] = set()
    live: set[str] = set()
    providers: set[str] = set()
    for resource in resources:
        urn, provider = resource["urn"], resource.get("provider", "")
        if not resource["type"] or bool(resource["custom"]) is not bool(resource.get("id")):
            return f"{urn} has no type, or its id is missing or unexpected"
        missing = planning.references(resource) - seen
        if resource.get("pendingReplacement"):
            missing.discard(provider.rpartition("::")[0])
        elif provider and not missing and provider not in providers:
            return f"{urn} names an unknown provider"
        if missing:
            return f"{urn} depends on {', '.join(sorted(missing))}, which does not precede it"
        if urn in live and not resource.get("delete"):
            return f"{urn} appears twice"
        if resource["type"].startswith(planning.PROVIDER):
            providers.add(f"{urn}::{resource['id']}")
        seen.add(urn)
        if not resource.get("delete"):
            live.add(urn)
    return ""


def refuse_unsupported(stack: StackRef, loaded: Checkpoint) -> None:
    """Refuse resources that this engine could neither update nor delete."""
    for resource in [*loaded.resources, *(resource for _, resource in loaded.pending)]:
        urn, kind = resource["urn"], resource["type"]
        if resource["custom"] and not known(kind):
            raise EngineError(
                f"stack {stack.name} contains {urn}: this engine does not support {kind}"
            )
        if resource.get("external"):
            raise EngineError(f"stack {stack.name} contains {urn}, which was imported, not created")
        if _SECRET in json.dumps(resource):
            raise EngineError(f"stack {stack.name} contains a secret value in {urn}")


def known(kind: str) -> bool:
    """Whether this engine can update and delete a custom resource of that type."""
    providers = (f"{planning.PROVIDER}command", f"{planning.PROVIDER}kubernetes")
    return kind in (command.TYPE, *providers) or kubernetes.kind_of(kind) is not None


def render(
    stack: StackRef,
    resources: Sequence[str],
    pending: Sequence[tuple[Doing, str]],
    secrets_providers: dict[str, Any] | None,
) -> str:
    """The file's text, from resources that are JSON text already."""
    manifest = {"time": now(), "magic": _magic(_PULUMI), "version": _PULUMI}
    parts = [f'"manifest":{to_json(manifest)}']
    if secrets_providers:
        parts.append(f'"secrets_providers":{to_json(secrets_providers)}')
    if resources:
        parts.append(f'"resources":[{",".join(resources)}]')
    if pending:
        operations = (f'{{"resource":{text},"type":"{doing}"}}' for doing, text in pending)
        parts.append(f'"pending_operations":[{",".join(operations)}]')
    parts.append('"metadata":{}')
    name = to_json(f"organization/{stack.project}/{stack.name}")
    latest = ",".join(parts)
    return f'{{"version":3,"checkpoint":{{"stack":{name},"latest":{{{latest}}}}}}}'


def to_json(value: Any) -> str:
    """JSON as compact as Pulumi's."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def now() -> str:
    """The time in the form of the checkpoint."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _magic(version: str) -> str:
    return hashlib.sha256(version.encode()).hexdigest() if version else ""


def save(stack: StackRef, text: str) -> None:
    """Replace the stack's file: completely or not at all, durable on return, the last one as `.bak`."""
    path, meta = stack.checkpoint, stack.home / ".pulumi/meta.yaml"
    second_name = path.with_name(f".{path.name}.bak.new")
    try:
        files.folder(path.parent, 0o700)
        if not meta.exists():
            files.write(meta, "version: 1\n", 0o600)
        second_name.unlink(missing_ok=True)
        with suppress(OSError):  # no file yet, or a filesystem without hard links
            os.link(path, second_name)
            second_name.replace(checkpoint.backup_of(path))
        files.write(path, text, 0o600)
    except OSError as error:
        raise EngineError(f"cannot write the checkpoint {path}: {error}") from error
