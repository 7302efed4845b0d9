"""Steering of this node without any experiment: show, apply, restore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from agent.knobs import KNOBS
from agent.values import as_list
from experiments.host import calls, persist
from infra import configurations, lease, steering
from infra.commands import command
from infra.configurations import Configuration
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.steering import Device

# Where containerd (`cni-`) and CRI-O (a UUID) keep the pods' network namespaces. The agent resolves it on each run,
# so a repeated apply also steers new pods.
PODS = ("/run/netns/cni-*", "/run/netns/????????-????-????-????-????????????")

# As the agent has it; here because the name also goes into units and scripts.
_OWNER = re.compile(r"[A-Za-z0-9._/][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True)
class Choice:
    """The arguments of `nodes apply`."""

    configuration: str
    nics: Sequence[str] = ("auto",)
    overlay: str = "auto"
    pods: Sequence[str] = PODS
    own: str = ""
    lease: str = ""  # none, a time, or empty: the owner's present lease
    owner: str = "nodes"


def show(namespaces: Sequence[str] = PODS, root: Path = Path("/")) -> dict[str, Any]:
    answer = calls.call("show", *(f"--namespace={path}" for path in namespaces))
    health = persist.health(root)
    return {**answer, "kept_by": asdict(health) if health else None}


def observe(choice: Choice, seconds: float) -> dict[str, Any]:
    """Counters of so many seconds and settings of the devices of a choice; writes nothing."""
    return calls.call("observe", f"--seconds={seconds}", plan=planned(choice))


def planned(choice: Choice) -> dict[str, Any]:
    """The plan of a choice; refuses an unknown configuration."""
    _check_owner(choice.owner)
    known = configurations.load(choice.own or None)
    if choice.configuration not in known:
        raise InvalidInput(
            f"configuration: {choice.configuration!r} is unknown (known: {', '.join(known)})"
        )
    return plan(known[choice.configuration], choice)


def _check_owner(owner: str) -> None:
    if not _OWNER.fullmatch(owner):
        raise InvalidInput(
            f"owner: {owner!r} must be 1 to 128 letters, digits, dots, slashes, dashes "
            "and underscores, and not begin with a dash"
        )


def kept_plan(choice: Choice) -> dict[str, Any]:
    """The plan for --persist."""
    document = planned(choice)
    if document["lease_seconds"] is not None:
        raise InvalidInput("lease: not with --persist, which keeps the steering: omit --lease")
    return document


def plan(configuration: Configuration, choice: Choice) -> dict[str, Any]:
    """The agent's plan; the agent finds the devices by itself (pure)."""
    # one rule for each: every named NIC must exist
    devices = [Device("nic", (nic,)) for nic in dict.fromkeys(choice.nics)]
    if choice.overlay != "none":
        devices.append(Device("overlay", (choice.overlay,), optional=choice.overlay == "auto"))
    if choice.pods:
        devices.append(Device("veth", ("auto",), optional=True))
    devices += [
        # a pattern may match no namespace yet
        Device("pod", ("eth0",), path, optional=any(sign in path for sign in "*?["))
        for path in choice.pods
    ]
    return steering.plan(
        configuration,
        owner=choice.owner,
        devices=devices,
        cores=None,
        queue_core=None,
        lease_seconds=lease.seconds(choice.lease or "none"),
    )


def preview(choice: Choice) -> dict[str, Any]:
    """The changes that `apply` would make."""
    return calls.call("preview", plan=planned(choice))


def apply(choice: Choice, *, keep: bool = False, root: Path = Path("/")) -> dict[str, Any]:
    """Apply a configuration to this node; with `keep` also at every boot and to new devices."""
    document = kept_plan(choice) if keep else planned(choice)
    _refuse_kept(persist.kept(root), choice.owner, keep)
    if not keep and not choice.lease:
        document["lease_seconds"] = _lease_of(choice.owner)
    if keep:
        persist.require(root)
    answer = {
        **calls.call("apply", plan=document),
        "lease_seconds": document["lease_seconds"],
    }
    if keep:
        answer["kept_by"] = persist.install(document, choice.configuration, root)
    return answer


def _lease_of(owner: str) -> int | None:
    """The lease under which an owner steers now: applying again renews it."""
    snapshots = calls.call("show")["snapshots"]
    return next((s.get("lease_seconds") for s in snapshots if s["owner"] == owner), None)


def _refuse_kept(kept: persist.Kept | None, owner: str, keep: bool) -> None:
    if kept and kept.owner is None:
        raise PrerequisiteMissing(
            f"{persist.PLAN}, which {persist.SERVICE} keeps, cannot be read: "
            "first run ./steerlab nodes restore"
        )
    if kept and keep and kept.owner != owner:
        raise PrerequisiteMissing(
            f"{persist.SERVICE} already keeps the steering of owner {kept.owner}: "
            f"first run {command('nodes', 'restore', '--owner', kept.owner)}"
        )
    if kept and not keep and kept.owner == owner:
        raise PrerequisiteMissing(
            f"{persist.SERVICE} keeps the steering of owner {owner} and would apply it again: "
            "add --persist to change it, or first run ./steerlab nodes restore"
        )


def restore(owner: str | None, root: Path = Path("/"), *, force: bool = False) -> dict[str, Any]:
    """Restore the values of an owner (`None`: of all), and remove the unit that keeps them.

    A value that somebody else has written since is not changed, unless `force`.
    """
    if owner is not None:
        _check_owner(owner)
    kept = persist.kept(root)
    ours = kept is not None and (owner is None or kept.owner in (None, owner))
    if ours:
        persist.pause(root)
    try:
        which = ["--all"] if owner is None else ["--owner", owner]
        answer = calls.call("restore", *which, *(["--force"] if force else []))
    finally:
        removed = persist.remove(root) if ours else []
    return {**answer, "removed": removed}


# --- in words (pure) ---


def show_text(answer: dict[str, Any]) -> str:
    """The settings of this node and their owners."""
    cpus = answer["cpus"]
    isolated = f", {as_list(cpus['isolated'])} isolated" if cpus["isolated"] else ""
    offline = as_list({*cpus["present"]} - {*cpus["online"]})
    lines = [
        f"CPUs        {as_list(cpus['online'])} online{f', {offline} offline' if offline else ''}"
        f"{isolated}",
        f"machine     {_machine(answer)}",
        "",
        *_tables(answer, ("device", "namespace")),
        *uppers(answer["uppers"]),
        "",
        *(held(answer["snapshots"]) or ["no active snapshots: nothing to restore"]),
        *kept_by(answer["kept_by"]),
        *(f"warning     {words}" for words in answer["warnings"]),
    ]
    return "\n".join(lines)


def apply_text(answer: dict[str, Any]) -> str:
    """The settings after an apply, in the order of the plan."""
    lines = _tables(answer, ("role", "device", "namespace"))
    lines += ["", f"machine     {_machine(answer)}", f"written     {_values(answer['changed'])}"]
    lines += [f"warning     {words}" for words in answer["warnings"]]
    if "kept_by" in answer:
        lines.append(f"kept        by {answer['kept_by']}: at every boot, and for new devices")
    return "\n".join(lines)


def preview_text(answer: dict[str, Any]) -> str:
    """A row for each value that an apply would write, with its present value."""
    lines = aligned(
        [
            [one["knob"], one["where"], one["found"], "->", one["wanted"]]
            for one in answer["changes"]
        ]
    )
    lines += [f"warning  {words}" for words in answer["warnings"]]
    return "\n".join([*lines, f"{_values(len(answer['changes']))} would be written"])


def uppers(rows: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each device whose packets others receive: the kernel never reads its masks."""
    return [
        f"{row['device']} receives on {', '.join(row['receives_on'])}: steering has its effect there"
        for row in rows
    ]


def kept_by(health: Mapping[str, Any] | None) -> list[str]:
    """The state of the unit that keeps the steering; empty if there is none."""
    if health is None:
        return []
    if health["why"]:
        return [f"WARNING     {health['unit']} fails, {health['state']}: {health['why']}"]
    return [f"kept        by {health['unit']}: {health['state']}"]


def restore_text(answer: dict[str, Any]) -> str:
    """The restored values, those that no longer exist, and the removed files."""
    answers = answer.get("owners", [answer])
    lines = [line for each in answers for line in _restored(each)]
    if answer["removed"]:
        lines.append(f"removed {', '.join(answer['removed'])}")
    return "\n".join(lines or ["no active snapshots: nothing to restore"])


def _restored(answer: dict[str, Any]) -> list[str]:
    owner, machine = answer["owner"], answer["machine"]
    notes = [*answer["left"], *answer["warnings"]]
    if not answer["restored"] and not answer["gone"] and not machine and not notes:
        return [f"nothing to restore for owner {owner}"]
    words = [f"restored {_values(answer['restored'])} of {owner}"]
    words += [f"{name} is {value}" for name, value in machine.items()]
    return ["; ".join(words), *(f"skipped {gone}" for gone in answer["gone"]), *notes]


def held(snapshots: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each snapshot: the owner, since when, how many values of each knob, the lease."""
    return [_held(snapshot) for snapshot in snapshots]


def _held(snapshot: dict[str, Any]) -> str:
    who = f"owner {snapshot['owner']}"
    if "error" in snapshot:
        return f"{who}: {snapshot['error']}"
    what = ", ".join(f"{count} {name}" for name, count in snapshot["values"].items())
    words = f"{who} since {snapshot['since']}: {what or 'no value'}"
    left = snapshot["lease_seconds_left"]
    if left is None:
        return f"{words}, no lease"
    watched = "" if snapshot["watchdog"] else ", but its watchdog is dead: nothing will restore it"
    return f"{words}, lease for another {lease.words(left)}{watched}"


def _values(count: int) -> str:
    return f"{count} value{'s' * (count != 1)}"


def _machine(answer: Mapping[str, Any]) -> str:
    values = ", ".join(f"{name} {value}" for name, value in answer["machine"].items())
    return values or "no values in this plan, or none visible in this network namespace"


def _tables(answer: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """A table for each kind of place that has rows. Queues have a column for each knob."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in answer["queues"]:
        kinds.setdefault(row["queue"].partition("-")[0], []).append(row)
    tables = [_queues(kind, rows, keys) for kind, rows in kinds.items()]
    tables += [_settings(answer[k], keys) for k in ("devices", "namespaces") if answer[k]]
    return [line for table in tables for line in ([""] * (table is not tables[0]) + table)]


def _settings(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[str]:
    """Aligned names of devices or namespaces, each with the list of its settings."""
    keys = [key for key in keys if key in rows[0]]
    table = [[name.upper() for name in (*keys, "settings")]]
    for row in rows:
        values = ", ".join(f"{name} {row[name]}" for name in KNOBS if name in row)
        table.append([*_names(row, keys), values])
    return aligned(table)


def _names(row: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    upper = f" (for {row['for']})" if "for" in row else ""
    return [f"{row[key] or '-'}{upper * (key == 'device')}" for key in keys]


def _queues(kind: str, rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[str]:
    """Aligned columns; neighbouring queues of a device that agree share a row."""
    keys = [key for key in keys if key in rows[0]]
    knobs = [name for name in KNOBS if any(name in row for row in rows)]

    def shared(row: dict[str, Any]) -> tuple[str, ...]:
        return (*_names(row, keys), *(str(row.get(name, "-")) for name in knobs))

    table = [[name.upper() for name in (*keys, "queues", *knobs)]]
    for words, run in groupby(rows, shared):
        numbers = [int(row["queue"].partition("-")[2]) for row in run]
        names, values = words[: len(keys)], words[len(keys) :]
        table.append([*names, f"{kind} {as_list(numbers)}", *values])
    return aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns of one width, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
