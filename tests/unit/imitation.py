"""A machine that files only imitate: the agent works on a tree of them and needs no privilege."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.files import exists, read_text
from agent.machine import Machine
from agent.namespaces import Namespace


class Imitation(Machine):
    """The files under a root; a folder with a file `cookie` is a network namespace."""

    NEEDS = ""

    def require(self) -> None:
        self.root = self.root.resolve()  # the watchdog leaves the current folder
        if not self.root.exists():
            raise SystemExit  # the test is over

    @contextmanager
    def _inside(self) -> Iterator[Callable[[str | None, str | None], Namespace | None]]:
        yield self._imitation

    def _imitation(self, path: str | None, place: str | None) -> Namespace | None:
        base = self.root / place.lstrip("/") if place else self.root
        has_cookie = exists(base / "cookie")
        if not has_cookie and path:
            return None
        cookie = read_text(base / "cookie").strip() if has_cookie else "own"
        routes = base / "proc/net/route"
        table = read_text(routes) if exists(routes) else ""
        foreign = exists(base / "foreign")
        net = base / "sys/class/net"
        return Namespace(path, cookie, net, table, numbered=False, foreign=foreign)

    def _inode(self, namespace: Path) -> str:
        return read_text(namespace / "cookie").strip()

    def _kept(self, processes: Any, *_: Any) -> Iterator[str]:
        yield from (f"{process}/ns/net" for process in processes)


def on(root: Path) -> Callable[..., Machine]:
    """How to look at an imitated machine."""
    return lambda check=lambda: None: Imitation(check, root)
