"""Steering of this node without any experiment: show, apply, restore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from agent.values import as_list
from experiments.host import calls, persist
from infra import configurations, lease, steering
from infra.commands import command
from infra.configurations import Configuration
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.steering import Device

# Where containerd's CNI keeps the pods' network namespaces. The agent looks when it runs, so a
# plan that is applied again also finds the pods that came meanwhile.
PODS = "/run/netns/cni-*"

# As the agent has it; here because the name also goes into units and scripts.
_OWNER = re.compile(r"[A-Za-z0-9._/][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True)
class Choice:
    """What `nodes apply` was asked for."""

    configuration: str
    nics: Sequence[str] = ("auto",)
    overlay: str = "auto"
    pods: Sequence[str] = (PODS,)
    own: str = ""
    lease: str = ""  # none, a time, or whatever the owner has now
    owner: str = "nodes"


def show(namespaces: Sequence[str] = (PODS,), root: Path = Path("/")) -> dict[str, Any]:
    answer = calls.call("show", *(f"--namespace={path}" for path in namespaces))
    health = persist.health(root)
    return {**answer, "kept_by": asdict(health) if health else None}


def planned(choice: Choice) -> dict[str, Any]:
    """The plan of a choice; refuses a configuration that nobody has described."""
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
    """The same for steering that is to stay."""
    document = planned(choice)
    if document["lease_seconds"] is not None:
        raise InvalidInput("lease: steering that is kept has none: leave --lease out")
    return document


def plan(configuration: Configuration, choice: Choice) -> dict[str, Any]:
    """What the agent is to do; it finds the devices by itself (pure)."""
    # one rule each: every NIC that is named must be there
    devices = [Device("nic", (nic,)) for nic in dict.fromkeys(choice.nics)]
    if choice.overlay != "none":
        devices.append(Device("overlay", (choice.overlay,), optional=choice.overlay == "auto"))
    if choice.pods:
        devices.append(Device("veth", ("auto",), optional=True))
    devices += [
        # a pattern may mean no namespace yet
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
            f"{persist.SERVICE} keeps the steering of owner {owner} and would bring it back: "
            "add --persist to change what it keeps, or first run ./steerlab nodes restore"
        )


def restore(owner: str | None, root: Path = Path("/"), *, force: bool = False) -> dict[str, Any]:
    """Give back what an owner (`None`: each) has steered, and end what keeps it.

    A value that somebody else has written meanwhile is left as it is, unless `force`.
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
    """What stands on this node and who holds it."""
    cpus = answer["cpus"]
    isolated = f", {as_list(cpus['isolated'])} isolated" if cpus["isolated"] else ""
    offline = as_list({*cpus["present"]} - {*cpus["online"]})
    lines = [
        f"CPUs        {as_list(cpus['online'])} online{f', {offline} offline' if offline else ''}"
        f"{isolated}",
        f"flow table  {_flow_table(answer['sock_flow_entries'])}",
        "",
        *_table(answer["queues"], ("device", "namespace")),
        *uppers(answer["uppers"]),
        "",
        *(held(answer["snapshots"]) or ["no active snapshots: nothing to restore"]),
        *kept_by(answer["kept_by"]),
        *(f"warning     {words}" for words in answer["warnings"]),
    ]
    return "\n".join(lines)


def apply_text(answer: dict[str, Any]) -> str:
    """What stands by now, in the order of the plan."""
    lines = _table(map(_with_upper, answer["queues"]), ("role", "device", "namespace"))
    table = answer["sock_flow_entries"]
    lines += ["", f"flow table  {_flow_table(table)}", f"written     {_values(answer['changed'])}"]
    lines += [f"warning     {words}" for words in answer["warnings"]]
    if "kept_by" in answer:
        lines.append(f"kept        by {answer['kept_by']}: at every boot, and for new devices")
    return "\n".join(lines)


def uppers(rows: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each device whose packets others receive: the kernel never reads its masks."""
    return [
        f"{row['device']} receives on {', '.join(row['receives_on'])}: steering takes effect there"
        for row in rows
    ]


def kept_by(health: Mapping[str, Any] | None) -> list[str]:
    """How the unit that keeps the steering is doing; nothing where none does."""
    if health is None:
        return []
    if health["why"]:
        return [f"WARNING     {health['unit']} fails, {health['state']}: {health['why']}"]
    return [f"kept        by {health['unit']}: {health['state']}"]


def restore_text(answer: dict[str, Any]) -> str:
    """What went back, what was gone, and what no longer keeps it."""
    answers = answer.get("owners", [answer])
    lines = [line for each in answers for line in _restored(each)]
    if answer["removed"]:
        lines.append(f"removed {', '.join(answer['removed'])}")
    return "\n".join(lines or ["nothing was held by anybody"])


def _restored(answer: dict[str, Any]) -> list[str]:
    owner, table = answer["owner"], answer["sock_flow_entries"]
    notes = [*answer["left"], *answer["warnings"]]
    if not answer["restored"] and not answer["gone"] and table is None and not notes:
        return [f"{owner} held nothing to restore"]
    words = f"restored {_values(answer['restored'])} of {owner}"
    if table is not None:
        words += f"; rps_sock_flow_entries is {table}"
    return [words, *(f"skipped {gone}" for gone in answer["gone"]), *notes]


def held(snapshots: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each snapshot: who, since when, how much, how long still."""
    return [_held(snapshot) for snapshot in snapshots]


def _held(snapshot: dict[str, Any]) -> str:
    who = f"held by {snapshot['owner']}"
    if "error" in snapshot:
        return f"{who}: {snapshot['error']}"
    count = snapshot["entries"]
    what = f"{count} queue{'s' * (count != 1)}"
    what += " and the flow table" * snapshot["holds_sock_flow_entries"]
    words = f"{who} since {snapshot['since']}: {what}"
    left = snapshot["lease_seconds_left"]
    if left is None:
        return f"{words}, no lease"
    watched = "" if snapshot["watchdog"] else ", but its watchdog is dead: nothing will restore it"
    return f"{words}, lease for another {lease.words(left)}{watched}"


def _values(count: int) -> str:
    return f"{count} value{'s' * (count != 1)}"


def _flow_table(entries: int | None) -> str:
    if entries is None:
        return "rps_sock_flow_entries is not this plan's, or not visible from here"
    return f"rps_sock_flow_entries {entries}"


def _with_upper(queue: dict[str, Any]) -> dict[str, Any]:
    """A queue whose device is named with the one that it receives for."""
    upper = queue.get("for")
    return {**queue, "device": f"{queue['device']} (for {upper})"} if upper else queue


def _table(queues: Iterable[dict[str, Any]], keys: Sequence[str]) -> list[str]:
    """Aligned columns; neighbouring queues of a device that agree share a row."""
    rows = [[*(key.upper() for key in keys), "QUEUES", "RPS_CPUS", "RPS_FLOW_CNT"]]

    def same(queue: dict[str, Any]) -> tuple[str, ...]:
        named = [queue[key] or "-" for key in keys]
        return (*named, queue["rps_cpus"], str(queue["rps_flow_cnt"]))

    for shared, run in groupby(queues, same):
        numbers = [int(re.sub(r"\D", "", queue["queue"])) for queue in run]
        rows.append([*shared[:-2], f"rx {as_list(numbers)}", *shared[-2:]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
