"""Untrusted text made safe to show: control characters become visible escapes."""

from __future__ import annotations

import re

# C0 and C1 without tab and newline, line separators, what turns the direction of text, and bytes
# that were not UTF-8 (lone surrogates, which no stream can encode)
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""The text with `\x1b` for an escape character; tabs and newlines stay."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """The same on a single line."""
    return visible(re.sub(r"\s*[\r\n]\s*", " ", text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # the byte that stood there
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
