"""The machine: its files and all its network namespaces."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.cpus import Cpus
from agent.errors import CANNOT, Gone, SteerError, explain
from agent.ethtool import Ethtool, opened_here
from agent.files import ABSENT, DENIED, exists, listing, opened, read_text
from agent.kernel import Kernel, go_home, is_foreign, open_namespace
from agent.knobs import KNOBS, MACHINE, NAMESPACE, of_scope
from agent.mounts import lines_of, namespace_mounts
from agent.namespaces import Held, Namespace
from agent.patterns import is_pattern
from agent.plan import POD
from agent.pods import pods_of
from agent.routes import routes_here
from agent.settings import OpenValue, Setting
from agent.snapshot import THE_MACHINE
from agent.sockdiag import SockDiag
from agent.store import RUN, Store

T = TypeVar("T")
NAMED = ("/run/netns", "/run/docker/netns")  # directories with named network namespaces
SEARCH_SECONDS = 20.0  # timeout of the search in user namespaces of unprivileged users


class Machine:
    """This machine; `check` is called between operations and ends a verb by raising."""

    NEEDS = ": Linux 5.2 and CAP_SYS_ADMIN are needed"

    def __init__(self, check: Callable[[], None] = lambda: None, root: Path = Path("/")) -> None:
        self.root = root
        self.check = check
        self.require()
        self._open: dict[Path, list[int]] = {}  # descriptors of each namespace in use
        self._nets: set[int] = set()  # the inodes of /proc/net/dev of the namespaces seen
        self._release: str | None = None
        self.boot_id = read_text(root / "proc/sys/kernel/random/boot_id").strip()
        self.store = Store(root / RUN, self.boot_id)
        self.cpus = Cpus.of(root)

    def require(self) -> None:
        if os.geteuid() != 0:
            raise SteerError("only root may read or write steering: use sudo", CANNOT)

    def afresh(self) -> Machine:
        """The same machine as it is now, for who waits long."""
        return type(self)(root=self.root)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        for net in list(self._open):
            self._close(net)

    def forget(self, namespace: Namespace) -> None:
        self._close(namespace.net)

    def _close(self, net: Path) -> None:
        for file in self._open.pop(net, ()):
            with suppress(OSError):
                os.close(file)

    def release(self) -> str:
        """Of the kernel, as uname -r prints it."""
        if self._release is None:
            file = self.root / "proc/sys/kernel/osrelease"
            self._release = read_text(file).strip() if exists(file) else ""
        return self._release

    def memory_available(self) -> int | None:
        """Bytes, of the whole machine; None where the kernel does not tell."""
        file = self.root / "proc/meminfo"
        found = (
            re.search(r"^MemAvailable:\s*([0-9]{1,15}) kB$", read_text(file), re.M)
            if exists(file)
            else None
        )
        return int(found.group(1)) * 1024 if found else None

    def overwrite(self, value: OpenValue, line: bytes) -> None:
        """Write an open value of the kernel."""
        value.write(line)

    def sock_diag(self, pid: int) -> SockDiag:
        """What can be asked about connections in the network namespace of a process."""
        with opened(f"/proc/{pid}/ns/net", os.O_RDONLY) as inside:
            return self._sock_diag(inside)

    def sock_diag_in(self, namespace: Namespace) -> SockDiag:
        """The same of a network namespace."""
        inside = namespace.ethtool.namespace()
        try:
            return self._sock_diag(inside)
        finally:
            os.close(inside)

    @staticmethod
    def _sock_diag(inside: int) -> SockDiag:
        kernel = Kernel()
        with opened("/proc/thread-self/ns/net", os.O_RDONLY) as home:
            try:
                kernel.enter(inside)
                return SockDiag()
            finally:
                go_home(kernel, home)

    def setting(self, knob: str) -> Setting:
        """A value of the machine as a whole."""
        path = self.root / "proc/sys" / KNOBS[knob].access.path
        return Setting(KNOBS[knob], path, str(THE_MACHINE))

    def own(self, wanted: Collection[str] = ()) -> Held:
        """The settings of the machine that are visible in this network namespace, or the wanted ones."""
        names = wanted or [knob.name for knob in of_scope(MACHINE)]
        settings = {name: self.setting(name) for name in names}
        values = {}
        for name, setting in settings.items():
            try:
                values[name] = setting.read()
            except Gone:
                if exists(setting.path):
                    raise
        return Held(THE_MACHINE, values, settings)

    def visit(
        self, paths: Iterable[str | None]
    ) -> tuple[dict[str | None, Namespace], dict[str | None, str]]:
        """The namespaces by path, and why others could not be looked into.

        Enters each once; this process is back in its own when it returns.
        """
        unread: dict[str | None, str] = {}
        known: set[str | None] = set()
        pods: dict[str, str] = {}
        for path in paths:
            try:
                known.update(self._glob(path) if path else [None])
            except OSError as error:
                unread[path] = explain(error)
        ordered = sorted(known, key=lambda path: path or "")
        if any(path and path.startswith(POD) for path in ordered):
            pods = self._pods(unread, [path for path in ordered if path])
            ordered = [path for path in ordered if path not in unread]
        seen: dict[str | None, Namespace] = {}
        with self._inside() as enter:
            for path in ordered:
                try:
                    namespace = enter(path, pods.get(path or "", path))
                    if namespace:
                        seen[path] = namespace
                except OSError as error:
                    unread[path] = explain(error) + self.NEEDS
        return seen, unread

    @contextmanager
    def _inside(self) -> Iterator[Callable[[str | None, str | None], Namespace | None]]:
        """A function that enters a namespace, by its path and the resolved path."""
        kernel = Kernel()
        with opened("/proc/thread-self/ns/net", os.O_RDONLY) as home:

            def enter(path: str | None, place: str | None) -> Namespace | None:
                return self._namespace(kernel, home, path, place)

            yield enter

    def _namespace(
        self, kernel: Kernel, home: int, path: str | None, place: str | None
    ) -> Namespace | None:
        """None if there is no network namespace at the path."""
        try:
            inside = open_namespace(place, home) if place else home
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise
        if inside is None:
            return None
        try:
            try:
                kernel.enter(inside)
                cookie = kernel.cookie(inside)
                mount = kernel.sysfs()
                net = Path(f"/proc/self/fd/{mount}/class/net")
                self._open[net] = [mount]
                self._open[net].append(opened_here())
                ethtool = Ethtool(self._open[net][-1])
                fib = routes_here()
                self._open[net] += [fib.file] if fib else []
                sysctls = self._sysctls(self._open[net])
                routes = read_text("/proc/thread-self/net/route")
                self._nets.add(os.stat("/proc/thread-self/net/dev").st_ino)
            finally:
                go_home(kernel, home)
            foreign = is_foreign(inside)
            return Namespace(
                path, cookie, net, routes, sysctls, ethtool, fib, True, foreign, self.release()
            )
        finally:
            if inside != home:
                with suppress(OSError):
                    os.close(inside)

    @staticmethod
    def _sysctls(files: list[int]) -> dict[str, Path]:
        """Files of the network namespace that this process is in, by knob; `files` gets the descriptors.

        A file of /proc/sys belongs to the namespace of the process that opens it. Each is opened here
        with O_PATH and can be opened again from any namespace. It does not keep the namespace alive.
        """
        found = {}
        for knob in of_scope(NAMESPACE):
            with suppress(FileNotFoundError):
                files.append(os.open(f"/proc/sys/{knob.access.path}", os.O_PATH | os.O_CLOEXEC))
                found[knob.name] = Path(f"/proc/self/fd/{files[-1]}")
        return found

    def _pods(self, unread: dict[str | None, str], wanted: Collection[str]) -> dict[str, str]:
        """The network namespace of each wanted pod, found by the cgroups of its processes.

        Uncertain pods are left out, with the reason in `unread`.
        """
        own = {self._identity(f"/proc/{process}/ns/net") for process in ("self", "1")}
        found: dict[str, dict[str, str]] = {}  # by pod: one path for each of its namespaces
        deeper: dict[str, dict[str, str]] = {}
        for pid in self._processes():
            try:
                words = read_text(self.root / f"proc/{pid}/cgroup")
            except OSError as error:
                if error.errno not in ABSENT:
                    unread[f"/proc/{pid}/cgroup"] = explain(error)
                continue
            for uid, deep in pods_of(words):
                pod, path = POD + uid, f"/proc/{pid}/ns/net"
                namespace = self._identity(path) if pod in wanted else None
                if namespace:
                    (deeper if deep else found).setdefault(pod, {})[namespace] = path
        places = {}
        for pod, paths in {**deeper, **found}.items():
            if len(paths) > 1:
                words = ", ".join(paths.values())
                unread[pod] = f"its processes are in different network namespaces: {words}"
            elif own.intersection(paths):
                unread[pod] = "its network namespace is that of the node: steer the node itself"
            else:
                places[pod] = next(iter(paths.values()))
        return places

    def _identity(self, path: str) -> str | None:
        """The identity of a network namespace; None if it is not visible."""
        place = self.root / path[1:]
        try:
            return self._inode(place)
        except OSError:
            return None

    def _inode(self, namespace: Path) -> str:
        return str(os.stat(namespace).st_ino)

    def _processes(self) -> list[str]:
        return [name for name in listing(self.root / "proc") if name.isdigit()]

    def search(self, unread: dict[str | None, str]) -> Iterator[Namespace]:
        """All network namespaces of the machine; each is valid until the next one.

        `unread` gets the places that could not be read, where a namespace may be missed. A process
        that even root cannot read does not count if its namespace is known from elsewhere.

        User namespaces of unprivileged users come last, for a limited time, and their errors do not
        count. Otherwise any user could prevent a restore from completing.
        """
        seen: set[int] = set()
        denied = {}
        for path, foreign in self._everywhere(unread):
            failed: dict[str | None, str] = {}
            try:
                inode = again(partial(os.stat, self.root / path[1:])).st_ino
                if inode not in seen:
                    seen.add(inode)
                    found, failed = self.visit([path])
                    yield from (ns._replace(foreign=foreign or ns.foreign) for ns in found.values())
            except OSError as error:
                if error.errno in DENIED:
                    denied.update({} if foreign else {path: explain(error)})
                elif error.errno not in ABSENT:
                    failed = {path: explain(error)}
            if not foreign:
                unread.update(failed)
        for path, why in denied.items():
            devices = self.root / path[1:].replace("/ns/net", "/net/dev")
            try:
                known = os.stat(devices).st_ino in self._nets
            except OSError as error:
                known = error.errno in ABSENT
            if not known:
                unread[path] = why

    def _everywhere(self, unread: dict[str | None, str]) -> Iterator[tuple[str, bool]]:
        """Paths of network namespaces, and whether each is kept from a foreign user namespace.

        Mounts and descriptors of processes that even root cannot read are left out.
        """
        tried = partial(self._tried, unread)
        for folder in NAMED:
            yield from ((f"{folder}/{name}", False) for name in tried(folder, listing))
        own: list[str] = []
        foreign: list[str] = []
        for pid in tried("/proc", lambda _: self._processes()):
            (foreign if self._is_foreign(pid) else own).append(f"/proc/{pid}")
        yield from ((path, False) for path in self._kept(own, tried))
        yield from ((path, False) for path in self._kept_by_sockets(own))
        deadline = time.monotonic() + SEARCH_SECONDS
        for path in self._kept(foreign, partial(self._tried, {}), deadline):
            if time.monotonic() > deadline:
                return
            yield path, True

    def _tried(
        self, unread: dict[str | None, str], path: str, look: Callable[[Path], Iterable[str]]
    ) -> list[str]:
        try:
            return again(lambda: list(look(self.root / path[1:])))
        except OSError as error:
            hidden = DENIED if path.startswith("/proc/") else ()
            if error.errno not in (*ABSENT, *hidden):
                unread[path] = explain(error)
            return []

    def _is_foreign(self, pid: str) -> bool:
        """By its map of users, which unlike its namespaces everybody may read."""
        maps = [self.root / f"proc/{process}/uid_map" for process in ("self", pid)]
        try:
            own, other = (read_text(file).split() for file in maps)
        except OSError:
            return False
        return own != other

    def _kept(
        self,
        processes: Sequence[str],
        tried: Callable[[str, Callable[[Path], Iterable[str]]], list[str]],
        deadline: float = float("inf"),
    ) -> Iterator[str]:
        """By processes themselves, their mounts, threads and descriptors."""
        yield from (f"{process}/ns/net" for process in processes)
        mounts: dict[str, str] = {}
        for process in processes:
            for inode in tried(f"{process}/ns/mnt", lambda path: [os.readlink(path)]):
                mounts.setdefault(inode, process)
        for process in mounts.values():

            def look(path: Path) -> list[str]:
                return namespace_mounts(lines_of(path, " - nsfs ", deadline))

            for path in tried(f"{process}/mountinfo", look):
                yield f"{process}/root{path}"
        for process in processes:
            yield from (f"{process}/task/{t}/ns/net" for t in tried(f"{process}/task", listing))
        for process in processes:
            for number in tried(f"{process}/fd", listing):
                path = f"{process}/fd/{number}"
                for target in tried(path, lambda path: [os.readlink(path)]):
                    # one that was opened by a name is shown as / once that is unmounted
                    if target.startswith("net:[") or target == "/":
                        yield path

    def _kept_by_sockets(self, processes: Iterable[str]) -> Iterator[str]:
        """Paths of the network namespaces of sockets, for SEARCH_SECONDS; what fails is left out."""
        kernel = Kernel()
        deadline = time.monotonic() + SEARCH_SECONDS
        for process in processes:
            for number in self._tried({}, f"{process}/fd", listing):
                if time.monotonic() > deadline:
                    return
                with suppress(OSError):
                    if not os.readlink(self.root / f"{process[1:]}/fd/{number}").startswith(
                        "socket:"
                    ):
                        continue
                    inside = kernel.namespace_of_socket(int(process[6:]), int(number))
                    try:
                        yield f"/proc/self/fd/{inside}"
                    finally:
                        os.close(inside)

    def _glob(self, path: str) -> list[str]:
        """The paths that a pattern means now; any other path as it is."""
        if not is_pattern(path):
            return [path]
        found = [""]
        for part in path.strip("/").split("/"):
            if is_pattern(part):
                names = {parent: listing(self.root / parent.lstrip("/")) for parent in found}
                found = [f"{p}/{n}" for p in found for n in fnmatch.filter(names[p], part)]
            else:
                found = [f"{parent}/{part}" for parent in found]
        return [one for one in found if exists(self.root / one.lstrip("/"))]


def again(work: Callable[[], T]) -> T:
    """Do it, and once more where it fails: a passing want of memory is no answer."""
    try:
        return work()
    except OSError:
        return work()
