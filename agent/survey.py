"""Finds the present places of a plan and of a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from agent.errors import Gone, SteerError, explain
from agent.machine import Machine, T
from agent.namespaces import Namespace
from agent.settings import Setting
from agent.snapshot import THE_MACHINE, Entry, Place

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.snapshot import Key

    Found = tuple[Namespace, Place]  # where a place of a snapshot is now


class Survey:
    """The namespaces of a plan and of a snapshot, and the present places of the snapshot."""

    def __init__(
        self, machine: Machine, paths: Iterable[str | None], entries: Iterable[Entry] = ()
    ) -> None:
        self._machine = machine
        self._places = [*dict.fromkeys(entry.place for entry in entries)]
        self._elsewhere: dict[Key, Found] | None = None
        known = (place.namespace for place in self._places if place != THE_MACHINE)
        self.by_path, self.unread = machine.visit({*paths, *known})

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
        if entry.place == THE_MACHINE:
            return self._machine.setting(entry.knob)
        namespace, now = self.find(entry.place)
        where = str(entry.place)
        if (now.device, now.cookie) != (entry.place.device, entry.place.cookie):
            where += f" (now {now.device} in {namespace})"
        return namespace.setting(entry.place._replace(device=now.device), entry.knob, where)

    def find(self, place: Place) -> Found:
        """Where a place is now; `Gone` where it is certain that it exists nowhere."""
        unclear = ""
        for namespace in self.by_path.values():
            if namespace.cookie == place.cookie:
                try:
                    now = namespace.find(place)
                except (OSError, SteerError) as error:
                    unclear = explain(error)
                else:
                    if now:
                        return namespace, now
        if self._elsewhere is None:
            self._elsewhere = self._search()
        if place.key in self._elsewhere:
            return self._elsewhere[place.key]
        unread = [f"{path or 'this namespace'}: {why}" for path, why in self.unread.items()]
        if unclear or unread:
            words = "; ".join(([unclear] if unclear else []) + unread[:3])
            raise SteerError(f"{place}: not found, but some namespaces could not be read: {words}")
        raise Gone(f"{place}: it no longer exists")

    def _search(self) -> dict[Key, Found]:
        """All places that are now in another namespace."""
        elsewhere: dict[Key, Found] = {}
        for namespace in self._machine.search(self.unread):
            keep = False
            for place in self._places:
                # without an inode, a place can be identified in its own namespace only
                if place.key in elsewhere or not (place.inode or namespace.cookie == place.cookie):
                    continue
                try:
                    now = namespace.find(place)
                except (OSError, SteerError) as error:
                    if not namespace.foreign:
                        self.unread[namespace.path] = explain(error)
                    continue
                if now:
                    keep = True
                    elsewhere[place.key] = namespace, now
            if not keep:
                self._machine.forget(namespace)
        return elsewhere
