"""The claim: a machine has one lab at a time, because its kernel has one flow table."""

from __future__ import annotations

from shlex import quote

import pulumi

from infra.lab import quota
from infra.lab.layout import NETNS, RUN
from infra.lab.script import delete_script, lab_command, part, private_folders

# The pid files of stack X are in lab/X; no stack's name begins with a dot.
OWNER = f"{RUN}/lab/.owner"

# Marks that this lab created the mount in which `ip` keeps namespaces, and must remove it.
_MADE_MOUNT = f"{RUN}/lab/.netns"
_IS_MOUNT = f"grep -q ' {NETNS} ' /proc/self/mountinfo"


def taken(owner: str) -> str:
    """The error for a second stack; `owner` is the first stack and its folder."""
    return (
        f"the lab of this machine is used by stack {owner}: destroy that one first"
        " (from any checkout: ./steerlab destroy --lab --force)"
    )


def release() -> list[str]:
    """The lines that release the claim and undo the lab's changes to the machine."""
    return [
        *quota.release(),
        # kept where it has other namespaces by now
        f'if [ -e {_MADE_MOUNT} ] && {_IS_MOUNT} && [ -z "$(ls -A {NETNS})" ]; then',
        f"  umount {NETNS}",
        f'  [ "$(cat {_MADE_MOUNT})" != folder ] || rmdir {NETNS} 2>/dev/null || true',
        "fi",
        f"rm -f {_MADE_MOUNT} {OWNER} {OWNER}.*",
    ]


def remove_folders(stack: str) -> str:
    """The line that removes the stack's folder, and that of all labs, where they are empty."""
    return f"rmdir {RUN}/lab/{quote(stack)} {RUN}/lab 2>/dev/null || true"


def declare(stack: str, boot_id: str, *, parent: pulumi.Resource) -> pulumi.CustomResource:
    """A file with the owner, stack and project folder, which every other stack checks first."""
    mine = f'mine={quote(stack)}" in $PWD"'
    read = f"owner=$(cat {OWNER} 2>/dev/null || true)"
    return lab_command(
        "claim-file",
        create="\n".join(
            [
                "set -eu",
                mine,
                *private_folders(RUN, f"{RUN}/lab"),
                # link() is atomic: of two concurrent stacks one succeeds
                f"rm -f {OWNER}.$$",
                # noclobber: does not follow an existing link
                f"(umask 077; set -C; printf '%s\\n' \"$mine\" > {OWNER}.$$)",
                f"ln {OWNER}.$$ {OWNER} 2>/dev/null || true",
                f"rm {OWNER}.$$",
                read,
                'if [ "$owner" != "$mine" ]; then',
                f'  echo "{taken("$owner")}" >&2',
                "  exit 1",
                "fi",
                # here once: several `ip netns add` at the same time would each create the mount
                f"if ! {_IS_MOUNT}; then",
                f"  if [ -d {NETNS} ]; then echo mount; else echo folder; fi > {_MADE_MOUNT}",
                f"  mkdir -p {NETNS}",
                f"  mount --bind {NETNS} {NETNS}",
                f"  mount --make-shared {NETNS}",
                "fi",
                f'echo \'{{"file": "{OWNER}"}}\'',
            ]
        ),
        delete=delete_script(
            [
                mine,
                read,
                *quota.remove_folders(stack),
                'if [ "$owner" = "$mine" ]; then',
                *(f"  {line}" for line in release()),
                "fi",
                remove_folders(stack),
            ]
        ),
        triggers=[boot_id],
        parent=part("Claim", "claim", parent),
    )
