"""Files of results: written whole or not at all, never through a link, and the caller's own.

What root writes belongs to the owner of the folder where it is written, and a new folder to
whoever called sudo: results that only root can delete are of no use to a user.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(path: Path, content: bytes | str, mode: int = 0o644) -> Path:
    """Write a file so that a reader, or a power cut, finds the old one or the new one.

    A symbolic link at `path` is replaced, not followed. Raises OSError where the folder is one.
    """
    data = content.encode() if isinstance(content, str) else content
    folder = _opened(path.parent)
    temporary = f".{path.name[:200]}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, _NEW, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                give(file.fileno(), os.fstat(folder))
                os.fsync(file.fileno())
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(folder)
    return path


def folder(path: Path, mode: int = 0o755) -> Path:
    """Make a folder, and those above it, where there is none.

    Raises OSError where it is a symbolic link.
    """
    if not path.parent.exists():
        folder(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        os.close(_opened(path))
        return path
    descriptor = _opened(path)
    try:
        give(descriptor, caller() or path.parent.stat())
    finally:
        os.close(descriptor)
    return path


def hand_over(tree: Path) -> None:
    """Give what another program wrote as root below a folder to the owner of the folder above."""
    if os.geteuid() != 0 or not tree.is_dir():
        return
    owner = caller() or tree.parent.stat()
    for _, folders, names, descriptor in os.fwalk(tree, follow_symlinks=False):
        for name in (*folders, *names):
            seen = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            # a second name could be that of somebody else's file
            if seen.st_uid == 0 and (stat.S_ISDIR(seen.st_mode) or seen.st_nlink == 1):
                os.chown(name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)


class Owner(NamedTuple):
    """Whose a file becomes; named as `os.stat` names it."""

    st_uid: int
    st_gid: int


def caller() -> Owner | None:
    """The user who called sudo; None where nobody did."""
    uid, gid = (os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    return Owner(int(uid), int(gid)) if uid.isdecimal() and gid.isdecimal() else None


def give(descriptor: int, owner: Owner | os.stat_result) -> None:
    """Give a file or folder that root has just made to its owner; a device stays as it is."""
    seen = os.fstat(descriptor)
    kept = stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)
    if os.geteuid() == 0 and kept and seen.st_uid != owner.st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _opened(path: Path) -> int:
    try:
        return os.open(path, _FOLDER)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
            raise OSError(
                errno.ELOOP, "is a symbolic link: remove it, or name the folder itself", str(path)
            ) from None
        raise
