"""iperf3's commands and the JSON that it prints, for the kinds of traffic that use it (pure)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from infra import untrusted
from infra.commands import how_ended
from infra.complaints import like
from infra.traffic.contract import Failure, Window, lasted

TOOLS = {"iperf3": "iperf3"}
IMAGE = "iperf3"
_CONNECT_MS = 3000

Rate = Annotated[
    str,
    like(r"0|[1-9][0-9]{0,8}[KMG]?", "must be bits per second such as 300M, or 0 for no limit"),
]


def server(port: int) -> list[str]:
    return ["iperf3", "--server", "--version4", "--port", str(port)]


def client(host: str, port: int, window: Window) -> list[str]:
    """The client's command; a kind adds its own options."""
    return [
        "iperf3", "--json", "--version4",
        "--client", host,
        "--port", str(port),
        "--time", str(window.duration),
        "--omit", str(window.omit),
        "--parallel", str(window.streams),
        "--interval", str(interval(window.duration, window.streams)),
        "--connect-timeout", str(_CONNECT_MS),
    ]  # fmt: skip


def interval(duration: int, streams: int) -> int:
    """Seconds between iperf3's own reports, which are kept but not used; 0 for none.

    Each has a line for every stream. With more than 10,000 of them the JSON, which iperf3 keeps in
    memory to the end, would exceed what is read here.
    """
    seconds = math.ceil(duration * (streams + 1) / 10_000)
    return seconds if seconds <= 60 else 0  # iperf3 takes no longer interval


class Report(NamedTuple):
    """What iperf3 printed, the bitrate at the receiver (bit/s), and lines beside it."""

    document: Mapping[str, Any]
    rate: float
    warnings: tuple[str, ...]

    @property
    def end(self) -> Mapping[str, Any]:
        return mapping(self.document.get("end"))


def read(out: bytes, err: bytes, status: int, window: Window) -> Report | Failure:
    """The report of a client, compared with the window that it was given."""
    report, beside = _first(out, err)
    rate = _rate(report, status, window)
    if isinstance(rate, Failure):
        text = ": ".join([rate.text, *([" ".join(beside)] if beside else [])])
        return Failure(rate.cause, text[:1000], beside)
    starved = () if rate else ("no data arrived in the measured seconds",)
    return Report(mapping(report), rate, (*starved, *beside))


def _rate(report: dict[str, Any] | None, status: int, window: Window) -> float | Failure:
    """Bits per second at the receiver; 0 where a full node let nothing of this pair through.

    Such a run counts: without those of the slowest configuration its bitrate would be too high.
    """
    if report is None:
        return Failure("result", f"iperf3 printed no result ({how_ended(status)})")
    if error := report.get("error"):
        return Failure("traffic", f"iperf3: {error}")
    if status != 0:
        return Failure("result", f"iperf3: {how_ended(status)}")
    end = mapping(report.get("end"))
    received = mapping(end.get("sum_received"))
    rate, size, seconds = (
        number(received.get(key)) for key in ("bits_per_second", "bytes", "seconds")
    )
    if rate is None or size is None or seconds is None or (rate < 1) != (size == 0):
        return Failure("traffic", "iperf3 reports no count of received bytes")
    if late := lasted(seconds, window):
        return late
    if size and abs(rate - 8 * size / seconds) > 0.01 * rate:
        return Failure(
            "result", f"iperf3 reports {rate:.0f} bit/s but {size:.0f} bytes in {seconds:.3f} s"
        )
    streams = end.get("streams")
    count = len(streams) if isinstance(streams, list) else 0
    if count != window.streams:
        return Failure("streams", f"iperf3 reports {count} streams instead of {window.streams}")
    return rate if size else 0.0


# Where an object may begin, and how many are tried: it prints one, or two.
_FIRST = re.compile(r"^\{", re.MULTILINE)
_MOST_OBJECTS = 8
# Of what is beside a report: a record keeps it as warnings.
_LONGEST_LINE, _MOST_LINES = 1000, 20
# Where an object ends, whatever numbers are in it.
_EXTENT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
# cJSON prints what is not a number like this.
_NOT_A_NUMBER = re.compile(r"(:\s*)-?(?:nan|inf)\b", re.IGNORECASE)


def _first(out: bytes, err: bytes) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The first report in the output, and the lines beside it.

    iperf3 prints warnings before it ("warning: JSON data length overflow"), and 3.16 and 3.17
    print the report twice.
    """
    text = _NOT_A_NUMBER.sub(r"\1null", out.decode(errors="replace"))
    report: dict[str, Any] | None = None
    beside, position = [], 0
    for start in [match.start() for match in _FIRST.finditer(text)][:_MOST_OBJECTS]:
        if start < position:
            continue  # within the one before
        try:
            _, after = _EXTENT.raw_decode(text, start)
            found = untrusted.parsed(text[start:after], strict=False)
        except (ValueError, RecursionError):
            continue
        beside.append(text[position:start])
        position = after
        if report is None and (isinstance(found.get("end"), dict) or "error" in found):
            report = found
    beside += [text[position:], err.decode(errors="replace")]
    lines = "\n".join(beside).splitlines() if report else [text, *beside[-1:]]
    words = [line.strip()[:_LONGEST_LINE] for line in lines if line.strip()]
    return report, tuple(words[:_MOST_LINES])


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """A number that a counter or a rate can have; None for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and 0 <= value < 1e15 else None  # type: ignore[operator, return-value]


def numbers(**figures: object) -> dict[str, float]:
    """The figures that are numbers: one that is missing or makes no sense is left out.

    What is below the least value of a record, 1e-6, is 0.
    """
    known = {name: number(one) for name, one in figures.items()}
    return {name: one if one >= 1e-6 else 0 for name, one in known.items() if one is not None}
