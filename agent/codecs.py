"""Codecs: how the values of a knob are written in a plan and by the kernel (pure)."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Union

from agent.values import (
    MASK,
    MAX_CPUS,
    WORDS,
    agrees_mask,
    format_mask,
    parse_mask,
    rounded_flows,
)

# The value of a feature that is off and was requested, as `ethtool -k` prints it.
REQUESTED = "off [requested on]"


class Mask(NamedTuple):
    """CPUs: a placement word or a hexadecimal mask in a plan, a mask in the kernel."""

    is_mask: bool = True

    @property
    def words(self) -> str:
        return f"one of {', '.join(WORDS)} or a hexadecimal mask (7 or 1,00000000)"

    def check(self, word: Any) -> bool:
        """Whether this is a valid value in a plan."""
        return isinstance(word, str) and (word in WORDS or self.fits(word))

    def fits(self, text: str) -> bool:
        """Whether this is a value as the kernel prints it."""
        return (
            len(text) <= MAX_CPUS
            and re.fullmatch(MASK, text) is not None
            and parse_mask(text).bit_length() <= MAX_CPUS
        )

    def render(self, value: int) -> str:
        """The text to write for a mask of these bits."""
        return format_mask(value)

    def equal(self, wanted: str, got: str, unusable: int) -> bool:
        """Whether `got`, read back, is what the kernel makes of `wanted`."""
        return agrees_mask(wanted, got, unusable)

    def as_json(self, text: str) -> Any:
        return text


class Count(NamedTuple):
    """A whole number. The kernel `rounds` some up to a power of two, and others must be one (`power`)."""

    low: int
    high: int
    rounds: bool = False
    power: bool = False
    is_mask: bool = False

    @property
    def words(self) -> str:
        return (
            f"a {'power of two' if self.power else 'whole number'} from {self.low} to {self.high}"
        )

    def check(self, word: Any) -> bool:
        fits = type(word) is int and self.low <= word <= self.high
        return fits and not (self.power and word & (word - 1))

    def fits(self, text: str) -> bool:
        if self.rounds:
            return bool(re.fullmatch("[0-9]{1,20}", text)) and int(text) <= rounded_flows(self.high)
        return re.fullmatch("-?[0-9]{1,20}", text) is not None

    def render(self, value: int) -> str:
        return str(value)

    def equal(self, wanted: str, got: str, _: int) -> bool:
        return int(got) == (rounded_flows(int(wanted)) if self.rounds else int(wanted))

    def as_json(self, text: str) -> Any:
        return int(text)


class Switch(NamedTuple):
    """On or off, and how the kernel writes these. YAML 1.1 reads both words as booleans: they are valid too.

    A feature may also be REQUESTED: see agent/ethtool.py.
    """

    off: str = "off"
    on: str = "on"
    is_mask: bool = False

    @property
    def words(self) -> str:
        return "on or off"

    def check(self, word: Any) -> bool:
        return isinstance(word, bool) or (isinstance(word, str) and word in ("on", "off"))

    def fits(self, text: str) -> bool:
        if self.on == "1":  # the kernel takes other numbers too
            return re.fullmatch("-?[0-9]{1,10}", text) is not None
        return text in (self.on, self.off, REQUESTED)

    def word(self, word: Any) -> str:
        """A valid word, also where YAML made a boolean of it."""
        return word if isinstance(word, str) else "on" if word else "off"

    def render(self, word: Any) -> str:
        return self.on if self.word(word) == "on" else self.off

    def equal(self, wanted: str, got: str, _: int) -> bool:
        """REQUESTED is the request alone: whether it is active depends on other features."""
        return wanted == got or (wanted == REQUESTED and got == self.on)

    def as_json(self, text: str) -> Any:
        return text


Codec = Union[Mask, Count, Switch]
