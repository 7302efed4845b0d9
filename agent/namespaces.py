"""A network namespace: its devices, their settings, and the lower devices that receive for them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import CANNOT, Gone, SteerError, explain, shortened
from agent.ethtool import Ethtool
from agent.files import ABSENT, exists, listing, read_text
from agent.guards import Facts
from agent.kernel_faults import version_of
from agent.knobs import (
    DEVICE,
    KNOBS,
    NAMESPACE,
    RX_QUEUE,
    TX_QUEUE,
    EthtoolFeature,
    EthtoolQueues,
    Knob,
    of_scope,
)
from agent.plan import Wanted
from agent.routes import Routes
from agent.settings import Setting
from agent.snapshot import Place

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from collections.abc import Callable

    # The value that a knob of a device will have, from the one that it has.
    After = Callable[[Place, str, str], str]

# Devices on top of others that decapsulate packets, after which RPS decides again.
DECIDE_AGAIN = ("vxlan", "geneve", "wireguard", "macsec")
# Kinds by the number in the file `type` (linux/if_arp.h): these devices have no DEVTYPE.
TYPES = {768: "ipip", 769: "ip6tnl", 776: "sit", 778: "gre", 823: "ip6gre"}
OPEN_VSWITCH = "openvswitch"  # driver of its datapath and of its internal ports
IFF_UP = 0x1  # linux/if.h

NOTHING: Mapping[str, Wanted] = {}
_QUEUES = {RX_QUEUE: "receive", TX_QUEUE: "transmit"}


def as_found(_place: Place, _knob: str, found: str) -> str:
    """The value stays."""
    return found


class Held(NamedTuple):
    """A place with its present values, by knob."""

    place: Place
    values: dict[str, str]
    settings: dict[str, Setting]


class Namespace(NamedTuple):
    """A network namespace, seen through a sysfs that was mounted in it."""

    path: str | None
    cookie: str
    net: Path
    routes: str
    sysctls: Mapping[str, Path]  # of the knobs of a namespace: a file that is this one's
    ethtool: Ethtool
    fib: Routes | None  # None where this process may not ask for routes
    numbered: bool  # by inodes that are not used twice
    foreign: bool = False  # of a user namespace that is not the agent's
    release: str = ""  # of the kernel

    def devices(self) -> list[str]:
        """All devices but lo; /sys/class/net also contains other files, such as bonding_masters.

        An unreadable entry counts as a device, so that it is not missing in a listing.
        """
        return [name for name in listing(self.net) if name != "lo" and self._is_device(name)]

    def _is_device(self, name: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(self.net / name).st_mode)
        except OSError as error:
            return error.errno not in ABSENT

    def number(self, device: str, name: str = "ifindex") -> int:
        """An attribute of a device; 0 if the device does not exist."""
        try:
            return int(read_text(self.net / device / name))
        except (OSError, ValueError):
            return 0

    def receivers(self, device: str) -> list[str]:
        """The devices that receive the packets of a device first: itself, or some below it.

        A bond's slave, a VLAN's parent or a virtual function below Azure's synthetic device passes a
        packet on in its own receive function, after the only decision of RPS. For a bridge, and an
        internal port of Open vSwitch, these are its hardware ports, if it has any.
        """
        kind = self.kind(device)
        below = self._switched() if kind == OPEN_VSWITCH else self.lower(device)
        if not below or kind in DECIDE_AGAIN:
            return [device]
        if kind == "bridge":
            below = [port for port in below if self.on_hardware(port)] or below
        lowest = [name for port in below for name in self.receivers(port)]
        # also hardware itself: it receives what its virtual function does not
        own = [device] if self._is_hardware(device) else []
        return list(dict.fromkeys(own + lowest))

    def lower(self, device: str) -> list[str]:
        """The devices directly below one."""
        links = (name for name in listing(self.net / device) if name.startswith("lower_"))
        return [name[len("lower_") :] for name in links]

    def _switched(self) -> list[str]:
        """The hardware ports of Open vSwitch, to which its internal ports have no link."""
        masters = {name: self._master(name) for name in self.devices()}
        ports = [name for name, one in masters.items() if one and self.kind(one) == OPEN_VSWITCH]
        return [port for port in ports if self.on_hardware(port)]

    def _master(self, device: str) -> str:
        try:
            return os.path.basename(os.readlink(self.net / device / "master"))
        except OSError:
            return ""

    def on_hardware(self, device: str) -> bool:
        """Whether hardware receives the packets of a device."""
        return any(map(self._is_hardware, self.receivers(device)))

    def _is_hardware(self, device: str) -> bool:
        return exists(self.net / device / "device")

    def kind(self, device: str) -> str:
        """Such as vxlan, ipip, veth; of hardware the driver; empty where it is not known."""
        known = self._devtype(device) or TYPES.get(self.number(device, "type"))
        if not known:
            with suppress(OSError):
                known = self.ethtool.driver(self.number(device))
        return known or ""

    def _devtype(self, device: str) -> str:
        """DEVTYPE, such as bond, vlan, bridge; many kinds have none."""
        uevent = self.net / device / "uevent"
        text = read_text(uevent) if exists(uevent) else ""
        found = re.search(r"^DEVTYPE=(.*)$", text, re.MULTILINE)
        return found.group(1) if found else ""

    def holdings(
        self,
        device: str,
        scope: str,
        wanted: Mapping[str, Wanted] = NOTHING,
        after: After = as_found,
    ) -> Iterator[Held]:
        """The values of a device's queues, or of the device itself; empty if it does not exist.

        A `wanted` knob that the device does not have is an error; other knobs are left out.
        `after` tells which value another knob will have that has one now.
        """
        folder = self.net / device
        queues = scope in _QUEUES
        try:
            names = [n for n in listing(folder / "queues") if n.startswith(f"{scope}-")]
            index = read_text(folder / "ifindex").strip()
        except OSError as error:
            if device not in self.devices():
                return
            raise SteerError(f"{device} in {self}: {error.strerror}") from None
        if not re.fullmatch("[0-9]{1,10}", index):
            raise SteerError(f"{device} in {self}: its ifindex is {shortened(repr(index))}")
        if queues and not names and wanted:
            words = f"{device}: it has no {_QUEUES[scope]} queues, so leave it out"
            raise SteerError(words, CANNOT)
        itself = Place(self.path, self.cookie, device, int(index), "", 0)
        try:
            knobs = self._allowed(scope, self._facts(itself, names, wanted, after), device, wanted)
        except (OSError, Gone):
            if device in self.devices():
                raise
            return
        for name in sorted(names, key=queue_number) if queues else [""]:
            with suppress(Gone):
                yield self._held(itself._replace(queue=name), knobs, wanted)

    def _allowed(
        self, scope: str, facts: Facts, device: str, wanted: Collection[str]
    ) -> list[Knob]:
        """The knobs that no guard refuses; a refused one that is wanted is an error.

        Of a device that a plan steers they are the wanted ones alone.
        """
        knobs = []
        for knob in of_scope(scope):
            if scope == DEVICE and wanted and knob.name not in wanted:
                continue
            why = knob.guard(facts)
            if not why:
                knobs.append(knob)
            elif knob.name in wanted:
                raise SteerError(f"{device}: {why}", CANNOT)
        return knobs

    def _facts(
        self, device: Place, queues: Sequence[str], wanted: Mapping[str, Wanted], after: After
    ) -> Facts:
        def kind() -> str:
            return self._devtype(device.device) or self.ethtool.driver(device.ifindex)

        def value(knob: str) -> str:
            there = knob in self._there(device, [KNOBS[knob]])
            return after(device, knob, self.setting(device, knob).read()) if there else ""

        texts = {name: one.text for name, one in wanted.items()}

        def hardware() -> bool:
            return self._is_hardware(device.device)

        return Facts(len(queues), kind, hardware, texts, value, version_of(self.release))

    def own(self, wanted: Collection[str] = ()) -> Held:
        """The values of the namespace itself."""
        place = Place(self.path, self.cookie, "", 0, "", 0)
        return self._held(place, of_scope(NAMESPACE), wanted)

    def _held(self, place: Place, knobs: Sequence[Knob], wanted: Collection[str]) -> Held:
        """The values of one place. Raises `Gone` if it no longer exists."""
        try:
            if place.device:
                place = place._replace(inode=self.inode(self.folder(place)))
            settings = {knob.name: self.setting(place, knob.name) for knob in knobs}
            there = self._there(place, knobs)
            values = {}
            for knob in knobs:
                if knob.name in there:
                    values[knob.name] = settings[knob.name].read()
                elif knob.name in wanted:
                    if not self._is_there(place):
                        raise Gone(f"{place}: it no longer exists")
                    what = "device" if knob.reshapes else "kernel"
                    words = f"{place}: this {what} has no {knob.name} (needs Linux {knob.since})"
                    raise SteerError(words, CANNOT)
        except (OSError, Gone) as error:
            if not self._is_there(place):
                raise Gone(f"{place}: it no longer exists") from None
            raise SteerError(f"{place}: {explain(error)}") from None
        return Held(place, values, settings)

    def _there(self, place: Place, knobs: Sequence[Knob]) -> set[str]:
        """The knobs that this kernel has at a place."""
        if not place.device:
            return set(self.sysctls)
        files = listing(self.folder(place))
        return {
            knob.name
            for knob in knobs
            if knob.access.path in files
            and (
                not isinstance(knob.access, (EthtoolFeature, EthtoolQueues))
                or self.ethtool.has(place.ifindex, knob.access)
            )
        }

    def _is_there(self, place: Place) -> bool:
        if place.queue:
            return place.queue in listing(self.folder(place).parent)
        return not place.device or place.device in self.devices()

    def folder(self, place: Place) -> Path:
        """The folder of a queue or a device."""
        folder = self.net / place.device
        return folder / "queues" / place.queue if place.queue else folder

    def setting(self, place: Place, knob: str, where: str = "") -> Setting:
        """The setting of a knob at a place."""
        if place.device:
            path = self.folder(place) / KNOBS[knob].access.path
        else:
            path = self.sysctls.get(knob, self.net / knob)
        where = where or str(place)
        return Setting(KNOBS[knob], path, where, place.inode, place.ifindex, self.ethtool)

    def inode(self, folder: Path) -> int:
        return os.stat(folder).st_ino if self.numbered else 0

    def find(self, place: Place) -> Place | None:
        """A place with its present names; None if it is not in this namespace."""
        if place.scope == NAMESPACE:
            return place._replace(namespace=self.path) if self.cookie == place.cookie else None
        with suppress(OSError, ValueError):  # usually its name is unchanged
            if self._is(place):
                return place._replace(namespace=self.path, cookie=self.cookie)
        return self._search(place)

    def _is(self, place: Place) -> bool:
        folder = self.folder(place)
        if place.inode:
            return os.stat(folder).st_ino == place.inode
        index = int(read_text(self.net / place.device / "ifindex"))
        return index == place.ifindex and bool(os.stat(folder))

    def _search(self, place: Place) -> Place | None:
        for _ in range(5):
            names, unread = self.devices(), ""
            for device in names:
                now = place._replace(namespace=self.path, cookie=self.cookie, device=device)
                try:
                    if place.queue and place.queue not in listing(self.folder(now).parent):
                        continue
                    if self._is(now):
                        return now
                except (OSError, ValueError) as error:
                    unread = f"{device} in {self}: {explain(error)}"
            if self.devices() == names:  # none was renamed meanwhile
                if unread:
                    raise SteerError(unread)
                return None
        raise SteerError(f"the devices in {self} keep changing")

    def __str__(self) -> str:
        return self.path or "this namespace"

    def is_up(self, device: str) -> bool:
        """Whether a device is up, or does not tell."""
        try:
            return bool(int(read_text(self.net / device / "flags"), 16) & IFF_UP)
        except (OSError, ValueError):
            return True


def queue_number(queue: str) -> int:
    digits = queue.partition("-")[2]
    return int(digits) if digits.isdigit() else 0
