"""Guards: why a knob must not have a value at a device, although the kernel may accept it (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from collections.abc import Callable, Mapping

    Guard = Callable[["Facts"], str]  # the reason; empty: it may


class Facts(NamedTuple):
    """What a guard decides on. The functions read the device."""

    queues: int  # of the device, in the knob's direction; 0 where it has none
    kind: Callable[[], str]  # DEVTYPE, such as vxlan, or the driver, such as veth; empty for a few
    hardware: Callable[[], bool]  # whether it is a NIC, also of a virtual machine
    wanted: Mapping[str, str]  # the values of the plan for this device, by knob
    value: Callable[[str], str]  # the present value of a knob of the device; empty: it has none
    version: tuple[int, int, int]  # of Linux; 0, 0, 0: unknown

    def wants(self, knob: str) -> bool:
        """Whether the plan switches it on."""
        return _is_on(self.wanted.get(knob, ""))

    def on(self, knob: str) -> bool:
        """Whether it is on after the plan."""
        return _is_on(self.wanted[knob] if knob in self.wanted else self.value(knob))


def _is_on(text: str) -> bool:
    return text not in ("", "0", "off")


def nothing(_: Facts) -> str:
    return ""


def several_queues(facts: Facts) -> str:
    return "" if facts.queues > 1 else "XPS needs more than one transmit queue"
