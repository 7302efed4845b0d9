"""Where the values of a plan and of a snapshot are now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import Gone, SteerError, explain
from agent.machine import Machine, T
from agent.namespaces import Namespace
from agent.plan import TABLE
from agent.settings import Setting
from agent.snapshot import Entry

if TYPE_CHECKING:  # Python 3.8 reads such types only where it need not evaluate them
    from agent.snapshot import Key


class Found(NamedTuple):
    """Where the queue of a snapshot's entry is now."""

    directory: Path
    device: str
    namespace: Namespace


class Survey:
    """The namespaces of a plan and of a snapshot, and where the snapshot's values are now."""

    def __init__(
        self, machine: Machine, paths: Iterable[str | None], entries: Iterable[Entry] = ()
    ) -> None:
        self._machine = machine
        self._entries = [entry for entry in entries if entry.knob != TABLE]
        self._elsewhere: dict[Key, Found] | None = None
        self.by_path, self.unread = machine.visit({*paths, *(e.namespace for e in self._entries)})

    def unread_words(self, path: str | None) -> str | None:
        why = self.unread.get(path)
        return why and f"namespace {path or 'of the agent'} cannot be read: {why}"

    def all_unread(self) -> list[str]:
        return [self.unread_words(path) or "" for path in self.unread]

    def located(self, entry: Entry, work: Callable[[Setting], T]) -> T:
        """Work on the file of an entry; `Gone` where it is certain that it exists nowhere."""
        setting = self.setting(entry)
        try:
            return work(setting)
        except Gone as error:
            self._elsewhere = None
            self.setting(entry)
            raise SteerError(str(error)) from None

    def setting(self, entry: Entry) -> Setting:
        """The file of an entry; `Gone` where it is certain that it exists nowhere."""
        if entry.knob == TABLE:
            return self._machine.table
        found = self.find(entry)
        now = (found.namespace.path, found.device, entry.queue)
        where = entry.where
        if found.device != entry.device or found.namespace.cookie != entry.cookie:
            where += f" (now {now[1]} in {now[0] or 'the own namespace'})"
        return Setting(found.directory / entry.knob, where, entry.inode, entry.ifindex)

    def find(self, entry: Entry) -> Found:
        unclear = ""
        for namespace in self.by_path.values():
            if namespace.cookie == entry.cookie:
                try:
                    found = namespace.find(entry)
                except (OSError, SteerError) as error:
                    unclear = explain(error)
                else:
                    if found:
                        return Found(found[1], found[0], namespace)
        if self._elsewhere is None:
            self._elsewhere = self._search()
        if entry.key in self._elsewhere:
            return self._elsewhere[entry.key]
        unread = [f"{path or 'own namespace'}: {why}" for path, why in self.unread.items()]
        if unclear or unread:
            words = "; ".join(([unclear] if unclear else []) + unread[:3])
            raise SteerError(f"{entry.where}: not found, but not all could be read: {words}")
        raise Gone(f"{entry.where}: it is gone")

    def _search(self) -> dict[Key, Found]:
        """All entries that are in any other namespace than they were."""
        elsewhere: dict[Key, Found] = {}
        for namespace in self._machine.search(self.unread):
            keep = False
            for entry in self._entries:
                # without an inode only its own namespace can tell it from a stranger
                if entry.key in elsewhere or not (entry.inode or namespace.cookie == entry.cookie):
                    continue
                try:
                    found = namespace.find(entry)
                except (OSError, SteerError) as error:
                    if not namespace.foreign:
                        self.unread[namespace.path] = explain(error)
                    continue
                if found:
                    keep = True
                    elsewhere[entry.key] = Found(found[1], found[0], namespace)
            if not keep:
                self._machine.forget(namespace)
        return elsewhere
