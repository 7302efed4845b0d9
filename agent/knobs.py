"""The knobs: every value of the kernel that the agent can steer (pure). A new one is an entry here.

Sources: https://docs.kernel.org/networking/scaling.html and net/core/net-sysfs.c.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from agent.values import MASK, MAX_CPUS, WORDS, agrees_count, agrees_mask, parse_mask

if TYPE_CHECKING:  # Python 3.8 reads such types only where it need not evaluate them
    from collections.abc import Callable

RX, TX, MACHINE = "rx", "tx", "machine"  # the scopes: a queue's direction, or the machine
MAX_FLOWS = 2**30  # rps_flow_cnt: one more is ENOMEM
MAX_SOCK_FLOWS = 2**29  # rps_sock_flow_entries: one more is EINVAL


class Codec(NamedTuple):
    """How a knob's values are written: text as the kernel prints it, a word as a plan has it."""

    is_mask: bool
    fits: Callable[[str], bool]  # a text that the kernel may print
    accepts: Callable[[object], bool]  # a word of a plan
    words: str  # what a plan's word may be
    agrees: Callable[[str, str, int], bool]  # wanted, read back, mask of unusable CPUs


def _mask() -> Codec:
    def fits(text: str) -> bool:
        return re.fullmatch(MASK, text) is not None and len(text) <= MAX_CPUS

    def accepts(word: object) -> bool:
        return isinstance(word, str) and (word in WORDS or fits(word))

    words = f"one of {', '.join(WORDS)} or a hexadecimal mask"
    return Codec(True, fits, accepts, words, agrees_mask)


def _count(most: int, largest: int) -> Codec:
    """Entries of a table: a plan's word is at most `most`, the kernel's text at most `largest`."""

    def fits(text: str) -> bool:
        return re.fullmatch("[0-9]{1,10}", text) is not None and int(text) <= largest

    def accepts(word: object) -> bool:
        return isinstance(word, int) and not isinstance(word, bool) and 0 <= word <= most

    return Codec(False, fits, accepts, f"0 to {most}", agrees_count)


class Knob(NamedTuple):
    """One value of the kernel, by the name of its file."""

    name: str
    scope: str
    codec: Codec
    # Bytes of an entry of a table, in memory of vmalloc, which no control group's limit holds.
    entry_bytes: int = 0


KNOBS = {
    knob.name: knob
    for knob in (
        Knob("rps_cpus", RX, _mask()),
        # struct rps_dev_flow (8 bytes before Linux 6.18)
        Knob("rps_flow_cnt", RX, _count(MAX_FLOWS, MAX_FLOWS), entry_bytes=12),
        Knob("xps_cpus", TX, _mask()),
        # a u32 an entry
        Knob(
            "rps_sock_flow_entries",
            MACHINE,
            _count(MAX_SOCK_FLOWS, 2 * MAX_SOCK_FLOWS),
            entry_bytes=4,
        ),
    )
}


def of_scope(scope: str) -> list[Knob]:
    return [knob for knob in KNOBS.values() if knob.scope == scope]


def agrees(name: str, wanted: str, got: str, unusable: int) -> bool:
    """Whether `got`, read back from the file `name`, is what the kernel makes of `wanted`."""
    return KNOBS[name].codec.agrees(wanted, got, unusable)


def comes_from(name: str, written: str, got: str, unusable: int) -> bool:
    """Whether `got` may be what is left of `written`, also where the kernel did not round it."""
    return got == written or agrees(name, written, got, unusable)


def lost(name: str, text: str, unusable: int) -> bool:
    """Whether a value names CPUs that are unusable."""
    return KNOBS[name].codec.is_mask and bool(parse_mask(text) & unusable)
