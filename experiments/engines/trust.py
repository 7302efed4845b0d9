"""Ownership of a stack's state: it contains scripts, which run as the user of the command."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from analysis import files
from infra.commands import quoted
from infra.errors import InvalidInput

_PROGRAM = Path(__file__)


def refuse_foreign(directory: Path, *names: str) -> None:
    """Raise `InvalidInput` where another user could have written these files of a directory.

    Trusted are root, the caller (also of sudo) and the owner of this checkout.
    """
    if not directory.is_dir():
        return
    trusted = {0, os.geteuid(), _PROGRAM.stat().st_uid}
    if caller := files.caller():
        trusted.add(caller.st_uid)
    for path in (directory, *(path for name in names for path in _below(directory / name))):
        found = path.lstat()
        why = ""
        if found.st_uid not in trusted:
            why, cure = f"belongs to {user(found.st_uid)}", f"chown -R {_me()}"
        elif not stat.S_ISLNK(found.st_mode) and _writable_by_others(found):
            why, cure = "can be written by others", "chmod -R go-w"
        if why:
            raise InvalidInput(
                f"{path} {why}, and scripts in this state would run as {user(os.geteuid())}: "
                f"if you trust all of it, run {cure} {quoted(directory)}"
            )


def _below(path: Path) -> Iterator[Path]:
    if not os.path.lexists(path):
        return
    yield path
    for folder, folders, names in os.walk(path):
        yield from (Path(folder, name) for name in (*folders, *names))


def _writable_by_others(found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _private(found)


def _private(found: os.stat_result) -> bool:
    """Whether the group has only the owner as a member: many distributions create one for each user."""
    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return owner.pw_name == group.gr_name and not set(group.gr_mem) - {owner.pw_name}


def _me() -> str:
    caller = files.caller()
    return user(caller.st_uid if caller else os.geteuid())


def user(uid: int) -> str:
    """A user's name, or the number of one without a name (an arbitrary uid of a container)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
