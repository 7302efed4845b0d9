"""Result files: written atomically, never through a link, owned by the caller.

A file that root writes gets the owner of its folder, and a new folder the user who called sudo,
so that users can delete their results.
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
    """Write a file so that a reader, also after a power cut, finds the old or the new content.

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
    """Give files that another program wrote as root to the caller, or to the parent's owner."""
    if os.geteuid() != 0 or not tree.is_dir():
        return
    owner = caller() or tree.parent.stat()
    for _, folders, names, descriptor in os.fwalk(tree, follow_symlinks=False):
        for name in (*folders, *names):
            seen = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            # a second hard link may be another user's file
            if seen.st_uid == 0 and (stat.S_ISDIR(seen.st_mode) or seen.st_nlink == 1):
                os.chown(name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)


class Owner(NamedTuple):
    """The owner that a file gets, with the field names of `os.stat`."""

    st_uid: int
    st_gid: int


def caller() -> Owner | None:
    """The user who called sudo; None without sudo."""
    uid, gid = (os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    return Owner(int(uid), int(gid)) if uid.isdecimal() and gid.isdecimal() else None


def give(descriptor: int, owner: Owner | os.stat_result) -> None:
    """Give a file or folder that root has just made to its owner; devices stay as they are."""
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
                errno.ELOOP, "is a symbolic link: remove it, or give the folder itself", str(path)
            ) from None
        raise
