"""Every call into the operating system that the agent makes, so that each can fail or be its last.

Nothing here names the agent's calls: all functions of these modules are replaced while it runs.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import io
import json
import os
import random
import signal
import socket
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from steer_tree import steer

ERRNOS = (errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.EIO, errno.ENODEV, errno.EINVAL)
MODULES = (os, fcntl)
SAMPLE = 80  # faults of a case in the usual run; all of them in the long one
# They enter no kernel, or cannot fail.
PURE = {"fspath", "strerror", "getpid", "geteuid", "_exit", "get_inheritable", "cpu_count"}


class Fault(NamedTuple):
    """What happens at one call: an error instead of it, once or for good, or SIGKILL beside it."""

    point: int
    error: int = 0
    for_good: bool = False
    kill: str = ""  # before, after


class Calls:
    """Counts the calls, and does at one of them what it is told."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.fault = fault
        self.struck: tuple[Any, ...] | None = None
        self._files: dict[int, Any] = {}  # open for writing, of the imitated kernel
        self._on = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        replaced: list[tuple[Any, str, Any]] = []

        def replace(owner: Any, name: str, new: Any) -> None:
            replaced.append((owner, name, getattr(owner, name)))
            setattr(owner, name, new)

        try:
            for module in MODULES:
                for name, function in vars(module).copy().items():
                    if isinstance(function, types.BuiltinFunctionType) and name not in PURE:
                        replace(module, name, self._wrapped(name, function))
            replace(io, "open", _refused)
            replace(builtins, "open", _refused)
            replace(socket, "socket", self._socket(socket.socket))
            replace(ctypes, "CDLL", self._libc(ctypes.CDLL))
            self._on = True
            yield
        finally:
            self._on = False
            for owner, name, old in replaced:
                setattr(owner, name, old)

    def _strikes(self, label: tuple[Any, ...]) -> Fault | None:
        """The fault of this call, if it is the one."""
        if not self._on:
            return None
        self.made.append(label)
        fault = self.fault
        if fault and (
            len(self.made) - 1 == fault.point or (fault.for_good and label == self.struck)
        ):
            self.struck = label
            return fault
        return None

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        own = {
            "open": self._open,
            "write": self._write,
            "pwrite": self._write,
            "fsync": self._fsync,
        }
        imitated = own.get(name)

        def call(*arguments: Any, **more: Any) -> Any:
            # a descriptor's number says nothing: the file that it stands for would
            named = next((str(a) for a in arguments if isinstance(a, (str, Path))), "")
            fault = self._strikes((name, named))
            if fault and fault.error:
                if name == "close":  # Linux frees the descriptor also where it reports an error
                    function(*arguments)
                raise OSError(fault.error, os.strerror(fault.error), named or None)
            if fault and fault.kill == "before":
                _die()
            work = imitated or (lambda real, *a, **m: real(*a, **m))
            result = None
            try:
                result = work(function, *arguments, **more)
            finally:
                if name == "fork" and result == 0:
                    self._on = False  # the child is another process
                elif fault and fault.kill == "after":
                    _die()
            return result

        return call

    def _open(self, real: Callable[..., int], path: Any, flags: int, *more: Any, **m: Any) -> int:
        """A value of the kernel is not truncated before it is written."""
        value = Path(os.fsdecode(path)).name in steer.KNOBS
        file = real(path, flags & ~os.O_TRUNC if value else flags, *more, **m)
        self._files[file] = value and flags & os.O_WRONLY
        return file

    def _write(self, real: Callable[..., int], file: int, data: bytes, *at: int) -> int:
        """It is the new one or the old one."""
        if self._files.get(file):
            _TRUNCATE(file, 0)
        return real(file, data, *at)

    @staticmethod
    def _fsync(_real: Callable[..., None], _file: int) -> None:
        """No power is cut here, and a disk is slow."""

    @contextmanager
    def _around(self, name: str) -> Iterator[None]:
        """One call that is no function of a module."""
        fault = self._strikes((name, ""))
        if fault and fault.error:
            raise OSError(fault.error, os.strerror(fault.error))
        if fault and fault.kill == "before":
            _die()
        yield
        if fault and fault.kill == "after":
            _die()

    def _socket(self, real: Any) -> Any:
        calls = self

        class Socket(real):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **more: Any) -> None:
                with calls._around("socket"):
                    super().__init__(*arguments, **more)

            def getsockopt(self, *arguments: Any) -> Any:
                with calls._around("getsockopt"):
                    return super().getsockopt(*arguments)

        return Socket

    def _libc(self, real: Any) -> Any:
        calls = self

        class Library:
            def __init__(self, *arguments: Any, **more: Any) -> None:
                self._library = real(*arguments, **more)

            def __getattr__(self, name: str) -> Callable[..., int]:
                function = getattr(self._library, name)

                def call(*arguments: Any) -> int:
                    number = getattr(arguments[0], "value", "") if name == "syscall" else ""
                    fault = calls._strikes((name, number))
                    if fault and fault.error:
                        ctypes.set_errno(fault.error)
                        return -1
                    if fault and fault.kill == "before":
                        _die()
                    result: int = function(*arguments)
                    if fault and fault.kill == "after":
                        _die()
                    return result

                return call

        return Library


_TRUNCATE = os.ftruncate
_KILL = os.kill


def _die() -> None:
    _KILL(os.getpid(), signal.SIGKILL)


def _refused(*_: Any, **__: Any) -> Any:
    raise AssertionError("the agent opens files with os.open alone, which a fault can reach")


class Endless(BaseException):
    """A watchdog that has tried often enough."""


class Bench(Protocol):
    """A machine, and one thing that the agent does on it, again and again."""

    original: dict[str, str]  # the values before any steering

    def reset(self) -> None:
        """Set all back to where the work begins."""

    def prepare(self) -> None:
        """What the process that works has to do before, without faults."""

    def work(self) -> Any: ...

    def values(self) -> dict[str, str]: ...

    def listed(self) -> dict[str, str | None]:
        """The values that the snapshots hold, with the reason why they are left."""

    def snapshots(self) -> list[Path]: ...

    def restore(self) -> dict[str, Any]: ...


def faults(bench: Bench) -> list[Fault]:
    """All faults of a bench's work."""
    bench.reset()
    bench.prepare()
    calls = Calls()
    with calls.watched():
        bench.work()
    found = []
    for point in range(len(calls.made)):
        found += [Fault(point, error, for_good) for error in ERRNOS for for_good in (False, True)]
        found += [Fault(point, kill=moment) for moment in ("before", "after")]
    return found


def sample(found: list[Fault]) -> list[Fault]:
    """So many of the faults, the same ones each time."""
    return random.Random(len(found)).sample(found, min(SAMPLE, len(found)))  # noqa: S311


def hold(bench: Bench, fault: Fault) -> None:
    """Strike with one fault, and hold what must be so after it."""
    try:
        _hold(bench, fault)
    except BaseException as error:
        raise AssertionError(f"{fault} of {type(bench).__name__}: {error}") from error


def _hold(bench: Bench, fault: Fault) -> None:
    bench.reset()
    answer: Any = None
    with suppress(steer.SteerError, OSError, Endless):
        answer = struck(fault, bench)
    values, listed = bench.values(), bench.listed()
    unknown = {n: v for n, v in values.items() if v != bench.original[n] and n not in listed}
    assert not unknown
    if isinstance(answer, dict):
        assert not [*answer.get("gone", ()), *answer.get("left", ())]  # neither was the case
        assert not [d for d in answer.get("drift", ()) if "no longer exists" in d["message"]]
        unsaved = any("/run/steerlab/" in words for words in answer.get("failed", ()))
        if "failed" in answer and not unsaved:  # else these words are the reason
            assert all(listed.values())
            assert len(answer["failed"]) == len(listed)
    for file in bench.snapshots():
        end_watchdog(file)
    last = bench.restore()
    assert (last["failed"], last["gone"], last["left"]) == ([], [], [])
    assert bench.values() == bench.original
    assert not bench.snapshots()


def end_watchdog(snapshot: Path) -> None:
    """End the process that a case has forked."""
    with suppress(ValueError, TypeError, KeyError):
        lease = steer.Lease(**json.loads(snapshot.read_text())["lease"])
        if lease.pid != os.getpid() and lease.watched():
            os.kill(lease.pid, signal.SIGKILL)


def struck(fault: Fault, bench: Bench) -> Any:
    """What the work answers, or the error that it ends in, when a call of it fails.

    Where it is killed that is a child of this process, and there is no answer.
    """
    calls = Calls(fault)
    if not fault.kill:
        bench.prepare()
        with calls.watched():
            return bench.work()
    child = os.fork()
    if child == 0:
        try:
            bench.prepare()
            with calls.watched():
                bench.work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it was to be killed, and has not made this call"
    return None
