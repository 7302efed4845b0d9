"""Each knob of the registry on this machine's kernel: written, read by other means, restored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_steer_devices import OWNER, steer, table

from agent.codecs import Count, Mask
from agent.knobs import KNOBS, MACHINE

pytestmark = pytest.mark.lab
__all__ = ["table"]

OF_MACHINE = [name for name, knob in KNOBS.items() if knob.scope == MACHINE]


@pytest.fixture
def sysctls(table: None) -> Iterator[None]:  # noqa: ARG001
    """The machine's own values come back, whatever a test does."""
    files = [Path("/proc/sys") / KNOBS[name].access.path for name in OF_MACHINE]
    before = {file: file.read_text() for file in files if file.exists()}
    try:
        yield
    finally:
        steer("restore", "--owner", OWNER)
        for file, text in before.items():
            if file.read_text() != text:
                file.write_text(text)


def another(name: str, text: str) -> tuple[Any, str]:
    """A word of a plan that differs from the present value, and its text in the kernel."""
    codec = KNOBS[name].codec
    if isinstance(codec, Count):
        wanted = int(text) * 2 or 2
        return wanted, str(wanted)
    if isinstance(codec, Mask):
        return ("none", "0") if int(text.replace(",", ""), 16) else ("1", "1")
    word = "off" if text == codec.on else "on"
    return word, codec.render(word)


def same(name: str, one: str, other: str) -> bool:
    return KNOBS[name].equal(one, other)


@pytest.mark.usefixtures("sysctls")
@pytest.mark.parametrize("name", OF_MACHINE)
def test_a_value_of_the_machine(name: str) -> None:
    file = Path("/proc/sys") / KNOBS[name].access.path
    if not file.exists():
        pytest.skip(f"this kernel has no {name}")
    before = file.read_text().strip()
    word, text = another(name, before)
    document = {"version": 1, "owner": OWNER, "machine": {name: word}, "rules": []}
    done = steer("apply", plan=document)
    assert (done.returncode, done.stderr) == (0, "")
    assert same(name, text, file.read_text().strip())
    assert steer("verify", plan=document).returncode == 0
    assert steer("show").answer["machine"][name] == KNOBS[name].codec.as_json(text)
    restored = steer("restore", "--owner", OWNER)
    assert (restored.returncode, restored.answer["restored"]) == (0, 1)
    assert file.read_text().strip() == before
