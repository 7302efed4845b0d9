"""System calls that Python 3.8 does not have, and descriptors of network namespaces."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import sys
from contextlib import suppress
from typing import Any

from agent.files import opened


class Kernel:
    """The system calls that Python 3.8 does not have."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def enter(self, namespace: int) -> None:
        self._result(self._libc.setns(namespace, 0x40000000), "setns")  # CLONE_NEWNET

    def sysfs(self) -> int:
        """A sysfs of the current network namespace that is mounted nowhere: only its descriptor.

        A private mount namespace would do too, but it copies the mounts of the machine and so
        keeps the namespaces below /run/netns alive.
        """
        context = self._call(430, b"sysfs", 1)  # fsopen, FSOPEN_CLOEXEC; same on all architectures
        try:
            self._call(431, context, 6, None, None, 0)  # fsconfig, FSCONFIG_CMD_CREATE
            return self._call(432, context, 1, 0)  # fsmount, FSMOUNT_CLOEXEC
        finally:
            with suppress(OSError):
                os.close(context)

    def reconfigure(self, mount: int, flag: bytes) -> None:
        """Set a flag of a mounted file system, for all its mounts."""
        context = self._call(433, mount, b"", 9)  # fspick, FSPICK_CLOEXEC | FSPICK_EMPTY_PATH
        try:
            self._call(431, context, 0, flag, None, 0)  # fsconfig, FSCONFIG_SET_FLAG
            self._call(431, context, 7, None, None, 0)  # FSCONFIG_CMD_RECONFIGURE
        finally:
            with suppress(OSError):
                os.close(context)

    def cookie(self, namespace: int) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                raw = probe.getsockopt(socket.SOL_SOCKET, 71, 8)  # SO_NETNS_COOKIE, Linux 5.14
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
                return f"inode {os.fstat(namespace).st_ino}"
        return str(int.from_bytes(raw, sys.byteorder))

    def namespace_of_socket(self, pid: int, descriptor: int) -> int:
        """The network namespace of a socket that another process has open."""
        process = self._call(434, pid, 0)  # pidfd_open, Linux 5.3
        try:
            copy = self._call(438, process, descriptor, 0)  # pidfd_getfd, Linux 5.6
            try:
                return fcntl.ioctl(copy, 0x894C)  # SIOCGSKNS
            finally:
                with suppress(OSError):
                    os.close(copy)
        finally:
            with suppress(OSError):
                os.close(process)

    def _call(self, number: int, *arguments: Any) -> int:
        words = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)]
        while True:
            with suppress(InterruptedError):  # what Python itself does for the calls that it has
                return self._result(self._libc.syscall(*words), f"system call {number}")

    @staticmethod
    def _result(result: int, what: str) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
        return result


def open_namespace(path: str, home: int) -> int | None:
    """A namespace; None for any other file, which is not opened.

    Whoever can mount in a namespace of his own chooses what a path there leads to, and to open a
    device can be to act on it.
    """
    with opened(path, os.O_PATH) as found:
        if os.fstat(found).st_dev != os.fstat(home).st_dev:
            return None
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)


def go_home(kernel: Kernel, home: int) -> None:
    """Return to the agent's own network namespace; a passing want of memory must not strand it."""
    for _ in range(5):
        with suppress(OSError):
            kernel.enter(home)
            return
    kernel.enter(home)


def is_foreign(namespace: int) -> bool:
    """Whether a network namespace belongs to another user namespace than the agent's."""
    try:
        owner = fcntl.ioctl(namespace, 0xB701)  # NS_GET_USERNS
    except OSError:
        return False
    try:
        return os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino
    finally:
        with suppress(OSError):
            os.close(owner)
