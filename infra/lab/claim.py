"""The claim: one lab is up on a machine at a time, because the kernel's flow table is one."""

from __future__ import annotations

from shlex import quote

import pulumi

from infra.lab.layout import CGROUPS, NETNS, RUN
from infra.lab.script import delete_script, lab_command

# The pid files of stack X are in lab/X: a dot keeps other files clear of every stack's name.
OWNER = f"{RUN}/lab/.owner"

# Says that this lab made the mount in which `ip` keeps namespaces, and has to take it away.
_MADE_MOUNT = f"{RUN}/lab/.netns"
_IS_MOUNT = f"grep -q ' {NETNS} ' /proc/self/mountinfo"


class Claim(pulumi.ComponentResource):
    """Writes the owner's name, stack and project folder, where every other stack looks first."""

    def __init__(self, stack: str, boot_id: str, *, parent: pulumi.Resource) -> None:
        super().__init__("steerlab:lab:Claim", "claim", None, pulumi.ResourceOptions(parent=parent))
        mine = f'mine={quote(stack)}" in $PWD"'
        read = f"owner=$(cat {OWNER} 2>/dev/null || true)"
        roots = (f"{RUN}/lab", *(f"{root}/steerlab" for root in CGROUPS))
        empty = [folder for root in roots for folder in (f"{root}/{quote(stack)}", root)]
        self.command = lab_command(
            "claim-file",
            create="\n".join(
                [
                    "set -eu",
                    mine,
                    f"mkdir -p -m 0700 {RUN} {RUN}/lab",
                    # noclobber makes the creation atomic: of two racing stacks one wins
                    f"(set -C; printf '%s\\n' \"$mine\" > {OWNER}) 2>/dev/null || true",
                    read,
                    'if [ "$owner" != "$mine" ]; then',
                    '  echo "the lab of this machine is taken by stack $owner:'
                    ' destroy that one first" >&2',
                    "  exit 1",
                    "fi",
                    # once, here: `ip netns add` does it too, but many at once do it many times
                    f"if ! {_IS_MOUNT}; then",
                    f"  : > {_MADE_MOUNT}",
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
                    'if [ "$owner" = "$mine" ]; then',
                    # what others keep there by now stays where it is
                    f'  if [ -e {_MADE_MOUNT} ] && {_IS_MOUNT} && [ -z "$(ls -A {NETNS})" ]; then',
                    f"    umount {NETNS}",
                    "  fi",
                    f"  rm -f {_MADE_MOUNT} {OWNER}",
                    "fi",
                    f"rmdir {' '.join(empty)} 2>/dev/null || true",
                ]
            ),
            triggers=[boot_id],
            parent=self,
        )
        self.register_outputs({})
