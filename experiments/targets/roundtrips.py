"""Round trips of `infra.traffic.pingpong`: read from its output, and the latency in a part of them (pure)."""

from __future__ import annotations

import base64
import binascii
import math
import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field

from infra import untrusted
from infra.commands import how_ended
from infra.traffic import pingpong
from infra.traffic.contract import QUANTILES, Failure, Values, quantile_known

# Quantiles of a distribution.
FRACTIONS = (0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1)
# Of one trip: two numbers of four bytes; base64 needs four bytes for three.
_MOST_BYTES = 8 * pingpong.MOST
# What is beside them: above all the times of lost requests, one in 0.25 s.
_MOST_OUTPUT = _MOST_BYTES * 4 // 3 + 100_000
# Largest uncertainty of a clock, as a share of the window, which is shorter by it at both ends.
MOST_UNSURE = 0.2


class Clock(NamedTuple):
    """How another clock relates to one's own: own = other + `offset`, within `unsure`; seconds."""

    offset: float = 0.0
    unsure: float = 0.0


SAME = Clock()


class Trips(NamedTuple):
    """All round trips of a client, in order: begin and end, ns by its monotonic clock.

    `lost` are the times of requests without a reply. `full`: the client kept no later trips.
    """

    began: Sequence[int]
    ended: Sequence[int]
    lost: Sequence[int] = ()
    full: bool = False


_Time = Annotated[int, Field(ge=0, le=2**62)]


class _Document(BaseModel):
    start: _Time
    lost: list[_Time]
    full: bool
    trips: str


def read(out: bytes, err: bytes, status: int) -> Trips | Failure:
    """The round trips in the output of a client that was ended."""
    if status != 0:
        words = err.decode(errors="replace").strip()[-300:]
        return Failure("traffic", words or f"the client: {how_ended(status)}")
    try:
        document = _Document.model_validate(untrusted.parsed(out, most=_MOST_OUTPUT))
        numbers = _numbers(document.trips)
    except (ValueError, zlib.error) as error:
        return Failure("result", f"the output of the client cannot be read: {error}"[:300])
    began, ended = array("q"), array("q")
    at = document.start
    for since, took in zip(numbers[::2], numbers[1::2], strict=True):
        at += since * pingpong.UNIT_NS
        began.append(at)
        ended.append(at + took * pingpong.UNIT_NS)
    return Trips(began, ended, document.lost, document.full)


def _numbers(text: str) -> array[int]:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
    if not unpacker.eof or len(data) % 8:
        raise binascii.Error("the round trips are incomplete")
    numbers = array("I", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def within(trips: Trips, first: float, last: float, clock: Clock = SAME) -> Values | Failure:
    """The latency in a part of an episode, from the trips that surely began and ended in it.

    `first` and `last` are its ends, in seconds by the own clock; `clock` is that of the client. All connections
    are pooled. A quantile that is not known of so many trips is missing, with a warning.
    """
    if clock.unsure > MOST_UNSURE * (last - first):
        words = f"the clock of the client is known to {clock.unsure * 1000:.1f} ms only"
        needed = math.ceil(15 * clock.unsure / MOST_UNSURE) / 10  # half as much again
        remedy = (
            f"give longer windows (--window {needed:g}), or reduce the load on the client's node"
        )
        return Failure("window", f"{words}: {remedy}")
    unsure = round(clock.unsure * 1e9)
    start, end = (round((at - clock.offset) * 1e9) for at in (first, last))
    if missing := _missing(trips, start - unsure, end + unsure):
        return missing
    start, end = start + unsure, end - unsure
    taken = _taken(trips, start, end)
    if len(taken) < 2:
        words = "no two requests were sent and answered in this window"
        return Failure("traffic", f"{words}: give longer windows (--window), or lower the load")
    latency = quantiles(taken)
    known = dict(latency)
    numbers = {name: known[one] for one, name in QUANTILES.items() if one in known}
    absent = [name for name in QUANTILES.values() if name not in numbers]
    words = f"{len(taken)} round trips are too few for {', '.join(absent)}: give longer windows"
    rate = round(len(taken) * 1e9 / (end - start), 3)
    middle = (start + end) // 2
    parts = (_taken(trips, start, middle), _taken(trips, middle, end))
    medians = [dict(quantiles(part))[0.5] for part in parts if len(part) > 1]
    return Values(
        {**numbers, "requests_per_second": rate},
        latency=tuple(latency),
        halves=(medians[0], medians[1]) if len(medians) == len(parts) else None,
        warnings=(words,) if absent else (),
    )


def _missing(trips: Trips, start: int, end: int) -> Failure | None:
    """Why trips between these times (ns) are not known: their latency would be too good."""
    waited = round(pingpong.LOST_S * 1e9)
    lost = sum(sent < end and start < sent + waited for sent in trips.lost)
    if lost:
        return Failure(
            "traffic",
            f"requests of this window without an answer within {pingpong.LOST_S} s: {lost}; lower the load "
            "(for example mixed:rate=300M), or use TCP (protocol=tcp)",
        )
    if trips.full and (not trips.ended or trips.ended[-1] < end):
        return Failure(
            "traffic",
            f"the client keeps the first {len(trips.began):,} round trips of an episode, and this window has "
            "later ones: give shorter windows (--window) or fewer configurations",
        )
    return None


def _taken(trips: Trips, start: int, end: int) -> list[int]:
    """The sorted lengths of the trips that began and ended between two times, ns."""
    part = slice(bisect_left(trips.began, start), bisect_right(trips.ended, end))
    return sorted(
        until - since for since, until in zip(trips.began[part], trips.ended[part], strict=True)
    )


class Probe(NamedTuple):
    """A pair whose latency is measured: the round trips of its client, and how the client's clock relates to the own."""

    pair: int
    trips: Trips | Failure
    clock: Clock = SAME

    def within(self, first: float, last: float) -> Values | Failure:
        if isinstance(self.trips, Failure):
            return self.trips
        return within(self.trips, first, last, self.clock)


def quantiles(taken: Sequence[int]) -> list[tuple[float, float]]:
    """The known quantiles of sorted round trips (ns), as fraction and microseconds of half a trip.

    As sockperf takes them: the trip of the nearest rank.
    """
    count = len(taken)
    found = []
    for one in FRACTIONS:
        if quantile_known(one, count):
            rank = max(1, math.floor(one * count + 0.5))
            found.append((one, taken[rank - 1] / 2000))
    return found
