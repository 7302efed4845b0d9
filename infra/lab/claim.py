"""The claim: one lab is up on a machine at a time, because the kernel's flow table is one."""

from __future__ import annotations

from shlex import quote

import pulumi

from infra.lab import quota
from infra.lab.layout import NETNS, RUN
from infra.lab.script import delete_script, lab_command, part, private_folders

# The pid files of stack X are in lab/X: a dot keeps other files clear of every stack's name.
OWNER = f"{RUN}/lab/.owner"

# Says that this lab made the mount in which `ip` keeps namespaces, and has to take it away.
_MADE_MOUNT = f"{RUN}/lab/.netns"
_IS_MOUNT = f"grep -q ' {NETNS} ' /proc/self/mountinfo"


def taken(owner: str) -> str:
    """What whoever comes second is told; `owner` is a stack and its folder."""
    return (
        f"the lab of this machine is taken by stack {owner}: destroy that one first"
        " (whosever it is: ./steerlab destroy --lab --force)"
    )


def release() -> list[str]:
    """The lines that give the claim up, and with it what the lab changed on the machine."""
    return [
        *quota.release(),
        # what others keep there by now stays where it is
        f'if [ -e {_MADE_MOUNT} ] && {_IS_MOUNT} && [ -z "$(ls -A {NETNS})" ]; then',
        f"  umount {NETNS}",
        f'  [ "$(cat {_MADE_MOUNT})" != folder ] || rmdir {NETNS} 2>/dev/null || true',
        "fi",
        f"rm -f {_MADE_MOUNT} {OWNER} {OWNER}.*",
    ]


def remove_folders(stack: str) -> str:
    """The line that removes the stack's folder, and that of all labs, where nothing is in them."""
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
                # a link is made whole or not at all: of two racing stacks one wins
                f"rm -f {OWNER}.$$",
                # noclobber: no link that somebody may have put there is followed
                f"(umask 077; set -C; printf '%s\\n' \"$mine\" > {OWNER}.$$)",
                f"ln {OWNER}.$$ {OWNER} 2>/dev/null || true",
                f"rm {OWNER}.$$",
                read,
                'if [ "$owner" != "$mine" ]; then',
                f'  echo "{taken("$owner")}" >&2',
                "  exit 1",
                "fi",
                # once, here: `ip netns add` does it too, but many at once do it many times
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
