"""The snapshot files: written atomically, under one lock."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote

from agent.errors import CANNOT, SteerError, explain, shortened
from agent.files import listing, opened, read_to_end
from agent.snapshot import MAX_SAVED, Snapshot

RUN = "run/steerlab"
LOCK_TIMEOUT = 60.0


class Damaged(SteerError):
    """A snapshot file that cannot be used."""


UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def as_bytes(words: str) -> bytes:
    """UTF-8; bytes of a name that are none are escaped, as JSON does it."""
    return words.encode("utf-8", "backslashreplace")


class Store:
    """The snapshot files of this boot, written atomically, under one lock."""

    SUFFIX = ".snapshot"
    TRACE = ".watchdog"
    DRAFT = ".temporary"

    def __init__(self, directory: Path, boot_id: str) -> None:
        self.directory = directory
        self.boot_id = boot_id

    def path(self, owner: str, suffix: str = SUFFIX) -> Path:
        return self.directory / (quote(owner, safe="", errors="surrogateescape") + suffix)

    def owners(self, suffix: str = SUFFIX) -> list[str]:
        self.secure()
        names = [name for name in listing(self.directory) if name.endswith(suffix)]
        return sorted(unquote(name[: -len(suffix)], errors="surrogateescape") for name in names)

    def secure(self, create: bool = False) -> None:
        """Refuse a folder that others than root can write: a restore writes its snapshots to the kernel.

        The mode of the agent's own folder is corrected; anything else is refused.
        """
        if create:
            with suppress(FileExistsError):
                os.makedirs(self.directory, 0o700)
        try:
            status = os.lstat(self.directory)
        except FileNotFoundError:
            return
        wrong = None
        if not stat.S_ISDIR(status.st_mode):
            wrong = "is not a folder" if not stat.S_ISLNK(status.st_mode) else "is a symbolic link"
        elif status.st_uid != os.geteuid():
            wrong = f"belongs to user {status.st_uid}, not to {os.geteuid()}"
        if wrong:
            words = f"{self.directory} {wrong}: its contents cannot be trusted, so remove it"
            raise SteerError(words, CANNOT)
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.chmod(self.directory, 0o700)

    def read(self, path: Path) -> bytes | None:
        """A file of the agent's own; None where there is none."""
        self.secure()
        try:
            with opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as file:
                status = os.fstat(file)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    return read_to_end(file, MAX_SAVED)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno != errno.ELOOP:
                raise
        raise Damaged(f"{path} is not a file of this agent: examine it, then move it away")

    def load(self, owner: str) -> Snapshot | None:
        """An owner's snapshot; None if there is none, or if it is from an earlier boot and so no longer valid."""
        path = self.path(owner)
        raw = self.read(path)
        if raw is None:
            return None
        try:
            snapshot = Snapshot.from_text(raw.decode())
            if snapshot.owner != owner:
                raise ValueError(f"its owner is {snapshot.owner}")
        except UNREADABLE as error:
            raise Damaged(
                f"snapshot {path} is damaged ({error!r}) and is not changed: "
                "restore its values by hand, then move it away"
            ) from None
        return snapshot if snapshot.boot_id == self.boot_id else None

    def others(self, owner: str) -> tuple[list[Snapshot], list[str]]:
        """The other owners' snapshots, and a message for each damaged one."""
        snapshots, damaged = [], []
        for other in self.owners():
            try:
                snapshot = None if other == owner else self.load(other)
            except Damaged as error:
                damaged.append(f"{error}; two owners may now steer the same values")
            else:
                snapshots += [snapshot] if snapshot else []
        return snapshots, damaged

    def save(self, snapshot: Snapshot) -> None:
        """Replace the owner's file: after a power cut it is the old or the new one."""
        path = self.path(snapshot.owner)
        text = snapshot.to_text()
        try:
            if len(as_bytes(text)) > MAX_SAVED:
                raise ValueError("it is too long")
            saved = Snapshot.from_text(as_bytes(text).decode())
        except UNREADABLE as error:
            words = f"snapshot {path}: too large or not readable again ({error!r})"
            raise SteerError(f"{words}: use a plan with fewer queues", CANNOT) from None
        if saved != snapshot._replace(old=False):
            raise SteerError(
                f"snapshot {path}: reading it back gave other values, so nothing was changed",
                CANNOT,
            )
        try:
            self.write(path, text)
        except OSError as error:
            raise SteerError(f"snapshot {path}: {error.strerror}: free space there") from None

    def write(self, path: Path, words: str) -> None:
        """Replace a file; its draft is locked until the rename."""
        draft = self.directory / f"{os.getpid()}-{os.urandom(8).hex()}{self.DRAFT}"
        try:
            with opened(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                rest = as_bytes(words)
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
                os.rename(draft, path)
            self._sync()
        except OSError:
            with suppress(OSError):
                os.unlink(draft)
            raise

    def tidy(self) -> None:
        """Remove the drafts of agents that were killed, which hold no lock on them."""
        with suppress(OSError):
            for name in listing(self.directory):
                if name.endswith(self.DRAFT):
                    self._remove_unlocked(self.directory / name)

    @staticmethod
    def _remove_unlocked(path: Path) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError), opened(path, flags) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)

    def discard(self, owner: str) -> None:
        """Remove an owner's snapshot, and the messages of its watchdog."""
        for suffix in (self.SUFFIX, self.TRACE):
            with suppress(FileNotFoundError):
                os.unlink(self.path(owner, suffix))
                self._sync()

    def trace(self, owner: str, words: str) -> None:
        """Write a message of the watchdog for `show` and `verify`; never fails."""
        with suppress(Exception):
            self.secure(create=True)
            self.write(self.path(owner, self.TRACE), f"{utc()}: {words}\n")

    def forget_trace(self, owner: str) -> None:
        with suppress(OSError):
            os.unlink(self.path(owner, self.TRACE))

    def traced(self, owner: str) -> str | None:
        try:
            raw = self.read(self.path(owner, self.TRACE))
        except (OSError, SteerError) as error:
            return explain(error)
        return None if raw is None else shortened(raw.decode("utf-8", "replace").strip(), 2000)

    def _sync(self) -> None:
        """Make renames and removals durable. Errors are ignored: snapshots are valid for this boot only."""
        with suppress(OSError), opened(self.directory, os.O_RDONLY | os.O_DIRECTORY) as folder:
            os.fsync(folder)

    @contextmanager
    def locked(self, check: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of all agents while the block runs.

        With a `check`, which can end the wait by raising, the wait also has a timeout.
        """
        self.secure(create=True)
        path = self.directory / "lock"
        mode = fcntl.LOCK_EX | (fcntl.LOCK_NB if check else 0)
        deadline = time.monotonic() + LOCK_TIMEOUT
        with opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW) as lock:
            while True:
                if check:
                    check()
                try:
                    fcntl.flock(lock, mode)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        words = (
                            f"another agent holds the lock {path}: find it with `fuser -v {path}`"
                        )
                        raise SteerError(words) from None
                    time.sleep(0.01)
            self.tidy()
            yield


def utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
