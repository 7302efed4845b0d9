"""The table of knobs in docs/agent.md: python -m experiments.host.reference writes it."""

from __future__ import annotations

import re
from pathlib import Path

from agent.knobs import DEVICE, KNOBS, MACHINE, NAMESPACE, RX_QUEUE, TX_QUEUE, Knob

PAGE = Path(__file__).resolve().parents[2] / "docs/agent.md"
_BEGIN, _END = "<!-- python -m experiments.host.reference -->\n", "<!-- end -->\n"
_PLACES = {
    RX_QUEUE: "each receive queue",
    TX_QUEUE: "each transmit queue",
    DEVICE: "the device",
    NAMESPACE: "the network namespace",
    MACHINE: "the machine",
}
# Knobs that the lab's kernel and devices do not have: tested on files, not on devices.
UNTESTED = {
    "lro": "fixed on veth and VXLAN devices",
}


def page(text: str) -> str:
    """The page with the table of this registry."""
    rows = [
        f"| `{knob.name}` | {_PLACES[knob.scope]} | {knob.summary} | {knob.codec.words} | "
        f"{knob.since} | {_switched(knob)} |\n"
        for knob in KNOBS.values()
    ]
    head = "| knob | of | what it is | value | since Linux | settles in |\n" + "|---" * 6 + "|\n"
    without = "; ".join(f"`{name}` ({why})" for name, why in UNTESTED.items())
    untested = f"\nNot tested on devices, because the lab has none with it: {without}.\n"
    table = f"{_BEGIN}{head}{''.join(rows)}{untested}{_END}"
    return re.sub(f"{_BEGIN}.*?{_END}", lambda _: table, text, count=1, flags=re.DOTALL)


def _switched(knob: Knob) -> str:
    return f"{knob.settle:g} s" if knob.live else "not under traffic"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
