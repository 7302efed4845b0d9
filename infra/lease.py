"""Leases as text: the time after which a node restores itself."""

from __future__ import annotations

import re

from infra.errors import InvalidInput

_LEASE = re.compile(r"([1-9][0-9]{0,8})(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> int | None:
    """The seconds of `90s`, `30m` or `2h`; nothing for `none`."""
    if text == "none":
        return None
    match = _LEASE.fullmatch(text)
    if not match:
        raise InvalidInput(f"lease: write a number and s, m or h (2h), or none, not {text!r}")
    return int(match[1]) * _SECONDS[match[2]]


def words(seconds: float) -> str:
    """About how long that is: `1h 59m`, `12m`, `40s`."""
    minutes, rest = divmod(int(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m"
