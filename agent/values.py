"""Values of the kernel as text: masks, counts and lists of CPUs (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from agent.errors import shortened

WORDS = ("none", "all", "first", "middle", "last")
MASK = r"[0-9a-fA-F]+(,[0-9a-fA-F]{1,8})*"
MAX_CPUS = 2**13  # the largest NR_CPUS that Linux can be built with


def parse_mask(text: str) -> int:
    """The bits of a mask as the kernel writes it: hexadecimal, with commas between 32 bits."""
    if not re.fullmatch(MASK, text):
        raise ValueError(f"{text!r} is not a hexadecimal mask")
    first, *groups = text.split(",")
    if len(text) < len(first) + 9 * len(groups):  # one without its leading zeros
        groups = [group.zfill(8) for group in groups]
    return int(first + "".join(groups), 16)


def format_mask(mask: int) -> str:
    digits = f"{mask:x}"
    head = len(digits) % 8 or 8
    return ",".join([digits[:head], *(digits[i : i + 8] for i in range(head, len(digits), 8))])


def parse_cpu_list(text: str) -> list[int]:
    """The CPUs of a list such as `0-3,8`; none for an empty line or the kernel's `(null)`."""
    cpus: list[int] = []
    for part in [] if text.strip() in ("", "(null)") else text.strip().split(",", MAX_CPUS):
        span = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        low, high = (
            (int(n) for n in (span.group(1), span.group(2) or span.group(1))) if span else (1, 0)
        )
        if not low <= high < MAX_CPUS:
            raise ValueError(f"{shortened(repr(part))} is no CPU or range of CPUs")
        if len(cpus) > MAX_CPUS:
            raise ValueError("it has more CPUs than any machine")
        cpus.extend(range(low, high + 1))
    return cpus


def mask_of(cpus: Iterable[int]) -> int:
    return sum(1 << cpu for cpu in set(cpus))


def cpus_of(mask: int) -> list[int]:
    return [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1]


def as_list(cpus: Iterable[int]) -> str:
    """`0-3,8` of 0, 1, 2, 3, 8."""
    spans: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in spans)


def rounded_flows(entries: int) -> int:
    """What the kernel makes of a number of flow table entries: the next power of two, or 0."""
    return 1 << (entries - 1).bit_length() if entries else 0


def place(word: str, cores: Sequence[int]) -> list[int]:
    """The cores that a placement word means; the last stage is never without one."""
    first, rest = list(cores[:1]), list(cores[1:])
    middle, last = rest[: len(rest) // 2], rest[len(rest) // 2 :] or first
    return dict(zip(WORDS, ([], list(cores), first, middle, last)))[word]


def agrees_mask(wanted: str, got: str, unusable: int) -> bool:
    want, have = parse_mask(wanted), parse_mask(got)
    return have & ~want == 0 and want & ~have & ~unusable == 0
