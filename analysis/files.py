"""Files of results: written whole or not at all, and never through a symbolic link."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(path: Path, content: bytes | str) -> Path:
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
                os.fchmod(file.fileno(), 0o644)
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


def folder(path: Path) -> Path:
    """Make a folder for results where there is none. Raises OSError where it is a symbolic link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir()
    os.close(_opened(path))
    return path


def _opened(path: Path) -> int:
    try:
        return os.open(path, _FOLDER)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
            raise OSError(
                errno.ELOOP, "is a symbolic link: remove it, or name the folder itself", str(path)
            ) from None
        raise
