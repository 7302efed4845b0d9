"""Commands of the lab: scripts that remove leftovers and roll back after a failure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import Any

import pulumi
from pulumi_command import local

from infra.lab.layout import NETNS


def create_script(build: Iterable[str], undo: Iterable[str], stands: Mapping[str, Any]) -> str:
    """A script that builds something completely or not at all, and prints what exists then.

    Pulumi runs no delete after a failed create, and a killed create leaves a part: `undo` runs before
    the build and again when it fails. `steerlab up` later checks that all of `stands` exists.
    """
    return "\n".join(
        [
            "set -eu",
            "undo() {",
            *(f"  {line}" for line in undo),
            "}",
            "undo",
            "trap 'status=$?; trap - EXIT; [ $status = 0 ] || undo; exit $status' EXIT",
            "trap 'exit 143' INT TERM",
            *build,
            f"echo {quote(json.dumps(stands, sort_keys=True))}",
        ]
    )


def delete_script(undo: Iterable[str]) -> str:
    return "\n".join(["set -eu", *undo])


def ip_batch(lines: Iterable[str], namespace: str | None = None, tool: str = "ip") -> str:
    """One `ip -batch` for many links, addresses and routes (a here-document, read in order)."""
    inside = f" -n {quote(namespace)}" if namespace else ""
    return "\n".join([f"{tool}{inside} -batch - <<'END'", *lines, "END"])


def inside(namespace: str, *command: str) -> str:
    """One command in a network namespace, with a fresh sysfs."""
    return f"ip netns exec {quote(namespace)} {' '.join(quote(word) for word in command)}"


# Settings that a namespace inherits from the first one and must not keep: on a machine that
# restricts ARP replies or checks source addresses, the lab would have no traffic.
_KNOWN = dict.fromkeys(
    (
        "net/ipv4/conf/*/arp_ignore",
        "net/ipv4/conf/*/arp_announce",
        "net/ipv4/conf/*/arp_filter",
        "net/ipv4/conf/*/rp_filter",
        "net/ipv4/conf/*/medium_id",
        "net/ipv4/conf/*/proxy_arp",
        "net/ipv4/conf/*/forwarding",
    ),
    0,
) | {"net/ipv6/conf/*/disable_ipv6": 1}


def settings(namespace: str, own: Mapping[str, int]) -> str:
    """The lab's kernel settings of a namespace, before it has devices; `own` differ from a pod's."""
    write = "; ".join(
        f"for file in /proc/sys/{key}; do [ ! -e $file ] || echo {value} > $file; done"
        for key, value in (_KNOWN | dict(own)).items()
    )
    # not inside(): /proc/sys/net is the reader's own, and a fresh sysfs takes milliseconds
    return f"nsenter --net={NETNS}/{quote(namespace)} sh -ec {quote(write)}"


def private_folders(*folders: str) -> list[str]:
    """Lines that create folders which only this user can read or write; another user's are refused.

    The files in them decide which processes a script ends.
    """
    both = " ".join(folders)
    refuse = 'echo "$folder is a link or belongs to another user: remove it" >&2; exit 1'
    return [
        f'for folder in {both}; do if [ -L "$folder" ]; then {refuse}; fi; done',
        f"mkdir -p -m 0700 {both}",
        f'for folder in {both}; do if [ -L "$folder" ] || [ ! -O "$folder" ]; then {refuse}; fi; done',
        f"chmod 0700 {both}",
    ]


def remove_namespace(namespace: str) -> str:
    return f"[ ! -e {quote(f'{NETNS}/{namespace}')} ] || ip netns del {quote(namespace)}"


def remove_link(namespace: str, device: str) -> str:
    """Delete a device and its peer at once; after the end of its namespace it would take a while."""
    return f"ip -n {quote(namespace)} link del {quote(device)} 2>/dev/null || true"


def part(kind: str, name: str, parent: pulumi.Resource) -> pulumi.ComponentResource:
    """A component of the lab, under which its commands are listed."""
    component = pulumi.ComponentResource(
        f"steerlab:lab:{kind}", name, None, pulumi.ResourceOptions(parent=parent)
    )
    component.register_outputs({})
    return component


def lab_command(
    name: str,
    *,
    create: str,
    delete: str,
    triggers: Sequence[pulumi.Input[str]],
    parent: pulumi.Resource,
    depends_on: Sequence[pulumi.Resource] = (),
) -> local.Command:
    """A resource of the lab, deleted and created again when its scripts or its triggers change.

    `triggers` are the ids of the resources below it, or the machine's boot id. Pulumi compares
    inputs only: what is lost with a reboot or a namespace needs a trigger that changes with these.
    """
    fingerprint = hashlib.sha256(f"{create}\0{delete}".encode()).hexdigest()[:12]
    return local.Command(
        name,
        create=create,
        delete=delete,
        triggers=[*triggers, fingerprint],
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(
            parent=parent, delete_before_replace=True, depends_on=list(depends_on)
        ),
    )
