"""Types of the fields of a record: bounded numbers, and text that can be written (pure)."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, FailFast, Field

# The largest whole number that every reader of JSON keeps exact (RFC 8259).
MOST = 2**53 - 1

# The smallest value other than 0; for a bitrate in Mbit/s this is one bit a second.
LEAST = 1e-6

T = TypeVar("T")


def _readable(value: object) -> object:
    """Text that UTF-8 can encode; the name of a device may have other bytes."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _measurable(value: float) -> float:
    """Refuses values so small that their ratios would overflow a float."""
    if 0 < value < LEAST:
        raise ValueError(f"must be 0 or at least {LEAST:g}")
    return value


Text = Annotated[str, BeforeValidator(_readable)]
Percent = Annotated[float, Field(ge=0, le=100.5)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Number = Annotated[int, Field(ge=1, le=MOST)]
Value = Annotated[float, Field(ge=0, le=MOST), AfterValidator(_measurable)]
Quantile = tuple[Annotated[float, Field(ge=0, le=1)], Value]
# The first wrong row refuses the list: a hostile file may have a million of them.
Rows = Annotated[list[T], FailFast()]
