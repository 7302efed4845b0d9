"""The claim: one lab is up on a machine at a time, because the kernel's flow table is one."""

from __future__ import annotations

from shlex import quote

import pulumi

from infra.lab.layout import RUN
from infra.lab.script import delete_script, lab_command

OWNER = f"{RUN}/lab/owner"


class Claim(pulumi.ComponentResource):
    """Writes the owner's name, stack and project folder, where every other stack looks first."""

    def __init__(self, stack: str, boot_id: str, *, parent: pulumi.Resource) -> None:
        super().__init__("steerlab:lab:Claim", "claim", None, pulumi.ResourceOptions(parent=parent))
        mine = f'mine={quote(stack)}" in $PWD"'
        read = f"owner=$(cat {OWNER} 2>/dev/null || true)"
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
                    f'echo \'{{"file": "{OWNER}"}}\'',
                ]
            ),
            delete=delete_script(
                [
                    mine,
                    read,
                    f'[ "$owner" != "$mine" ] || rm -f {OWNER}',
                    f"rmdir {RUN}/lab/{quote(stack)} {RUN}/lab 2>/dev/null || true",
                ]
            ),
            triggers=[boot_id],
            parent=self,
        )
        self.register_outputs({})
