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


def chains(facts: Facts) -> str:
    """Before 6.16 the kernel can crash where BPF programs have changed the data of such packets.

    Sources: commit 3382a1ed7f77, https://github.com/projectcalico/calico/pull/11920.
    """
    if facts.wants("rx-gro-list") and facts.version < (6, 16, 0):
        return (
            "rx-gro-list: Linux before 6.16 can crash with it and BPF programs that change packets"
        )
    return needs_gro("rx-gro-list")(facts)


def needs_gro(knob: str) -> Guard:
    """Variants of GRO have no effect without GRO."""
    return lambda facts: (
        f"{knob} has no effect without GRO: set gro: on too"
        if facts.wants(knob) and not facts.on("gro")
        else ""
    )


def needs_napi(knob: str) -> Guard:
    """A virtual device receives by NAPI while its GRO is on, and otherwise by the CPU backlog."""
    return lambda facts: (
        f"{knob} needs NAPI, which a virtual device has with GRO only: set gro: on too"
        if facts.wants(knob) and not facts.on("gro") and not facts.hardware()
        else ""
    )


def threads(facts: Facts) -> str:
    """Tunnels and other virtual devices receive through gro_cells, queues for each CPU without a lock.

    A NAPI thread changes its CPU. The kernel accepts the write nevertheless: then all packets of a
    vxlan were lost (Linux 6.18).
    """
    if not facts.wants("threaded"):
        return ""
    kind = facts.kind()
    if kind == "veth" or (facts.hardware() and kind != "dsa"):
        return needs_napi("threaded")(facts)
    return f"threaded is for NICs and veths: others, here of kind {kind or 'unknown'}, can lose packets"


def never_on(knob: str, why: str) -> Guard:
    return lambda facts: f"{knob} may be switched off only: {why}" if facts.wants(knob) else ""
