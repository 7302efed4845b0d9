"""Decisions on resources and their order: pure functions of recorded and declared resources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from experiments.engines import Operation

# A resource in the form of Pulumi's checkpoint.
Resource = dict[str, Any]
Path = tuple[str | int, ...]

PROVIDER = "pulumi:providers:"
# The placeholder for a value that is not known yet, as in Pulumi's wire format.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

# Longest text that a line of a preview shows.
_SHORT = 60


def compact(resource: Resource) -> Resource:
    """The resource without empty fields, as in the checkpoint."""
    return {k: v for k, v in resource.items() if v or k in ("urn", "custom", "type")}


@dataclass(frozen=True)
class Decision:
    """The operation on a resource; `changed` has the inputs that differ, or another reason."""

    operation: Operation
    changed: tuple[str, ...] = ()


def decide(
    old: Resource | None,
    wanted: Resource,
    reason: str = "",
    interrupted: str = "",
    immutable: Iterable[str] = ("triggers",),
) -> Decision:
    """Create, update, replace or keep a resource.

    A `reason` forces a replacement, and so does a change of an input whose path is `immutable`.
    `interrupted` is the operation of a killed run: the record may then be wrong.
    """
    if old is None:
        return Decision("create")
    if old.get("pendingReplacement"):
        return Decision("replace", ("already deleted",))
    if interrupted == "deleting":
        reason = "interrupted while deleting"
    if reason:
        return Decision("replace", (reason,))
    paths = list(differences(old.get("inputs", {}), wanted.get("inputs", {})))
    changed = tuple(dict.fromkeys(str(path[0]) for path in paths))
    # a change above an immutable input changes it too, such as a `spec` that is not known yet
    fixed = [tuple(text.split(".")) for text in immutable]
    if wanted["custom"] and any(
        _covers(f, path) or _covers(path, f) for f in fixed for path in paths
    ):
        return Decision("replace", changed)
    if interrupted and not paths:
        changed = (f"interrupted while {interrupted}",)
    return Decision("update", changed) if changed else Decision("same")


def in_words(changed: Iterable[str], old: Resource | None, wanted: Resource) -> str:
    """The inputs that differ; for a map its entries with both texts, where these are short."""
    before, after = ((one or {}).get("inputs", {}) for one in (old, wanted))
    said = [_entries(before.get(name), after.get(name)) or [name] for name in changed]
    return ", ".join(word for words in said for word in words)


def _entries(before: Any, after: Any) -> list[str]:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    words = []
    for key in dict.fromkeys((*before, *after)):
        texts = before.get(key), after.get(key)
        if texts[0] == texts[1]:
            continue
        if not all(isinstance(text, str) and text and len(text) <= _SHORT for text in texts):
            return []
        words.append(f"{key}: {texts[0]} -> {texts[1]}")
    return [] if unknown(after) else words


def in_the_way(old: Resource | None, wanted: Resource) -> bool:
    """Whether a replacement has the name of the old object, which must be deleted first."""
    names = [(one or {}).get("inputs", {}).get("metadata") for one in (old, wanted)]
    before, after = ((m["name"], m.get("namespace")) if isinstance(m, dict) else m for m in names)
    return before is not None and before == after


def differences(old: Any, new: Any, at: Path = ()) -> Iterator[Path]:
    """The paths at which two values differ; an absent key and a null are the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            before, after = old.get(key), new.get(key)
            if before is None or after is None:
                if before is not after:
                    yield (*at, key)
            else:
                yield from differences(before, after, (*at, key))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            if index >= len(old) or index >= len(new):
                yield (*at, index)
            else:
                yield from differences(old[index], new[index], (*at, index))
    elif isinstance(old, bool) is not isinstance(new, bool) or old != new:
        yield at


def unknown(value: Any) -> bool:
    """Whether a value is or contains one that is not known yet."""
    if isinstance(value, dict):
        return any(map(unknown, value.values()))
    if isinstance(value, list):
        return any(map(unknown, value))
    return bool(value == UNKNOWN)


def _covers(outer: Path, inner: Path) -> bool:
    return inner[: len(outer)] == outer


def references(resource: Resource) -> set[str]:
    """The URNs of a resource's dependencies, its parent and its provider."""
    urns = {resource.get("parent", "")}
    urns.add(resource.get("provider", "").rpartition("::")[0])
    urns.update(resource.get("dependencies") or ())
    for dependencies in resource.get("propertyDependencies", {}).values():
        urns.update(dependencies or ())
    return urns - {""}


def dependent_replacements(
    root: Resource, resources: Iterable[Resource], decided: AbstractSet[str]
) -> list[Resource]:
    """Resources to delete before `root`, in the order of creation.

    These are all dependents that a new `root` replaces, because their `triggers` contain its outputs;
    `depends_on` does not count. `decided` are URNs that this run has settled already: they cannot
    depend on `root`.
    """
    doomed = {root["urn"]}
    victims = []
    for resource in resources:
        if resource is root or resource["urn"] in decided or not resource["custom"]:
            continue
        of_triggers = resource.get("propertyDependencies", {}).get("triggers") or ()
        if doomed & set(of_triggers) and "triggers" in resource.get("inputs", {}):
            doomed.add(resource["urn"])
            victims.append(resource)
    return victims


def deleted_first(resources: Sequence[Resource]) -> list[set[int]]:
    """For each resource the numbers of those that must be deleted before it: its dependents (pure).

    `resources` are in the order of creation.
    """
    first: list[set[int]] = [set() for _ in resources]
    numbers: dict[str, list[int]] = {}
    for number, resource in enumerate(resources):
        for urn in references(resource):
            for dependency in numbers.get(urn, ()):
                first[dependency].add(number)
        numbers.setdefault(resource["urn"], []).append(number)
    return first
