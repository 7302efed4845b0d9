"""sockperf's commands and the text that it prints (pure)."""

from __future__ import annotations

import re

from infra.commands import how_ended
from infra.traffic.contract import QUANTILES, Failure, Values, Window, quantile_known

TOOLS = {"sockperf": "sockperf"}
IMAGE = "rr"
# Bytes of a message: its header, and the largest datagram.
LEAST_SIZE, MOST_SIZE = 14, 65_507

# Seconds from the start of the client to its first message: a sleep of 2 s, and 0.1 s to calibrate
# its clock. It leaves out 0.4 s of messages at the begin (except on ARM) and 0.05 s at the end.
_START_S, _SLEEP_S, _LEFT_OUT_S = 2.3, 2, 0.45
# Messages that it has memory for, 16 bytes each, for all seconds at once. Its own maximum is 600,000.
_MOST_A_SECOND = 100_000
# Of what is beside a result: a record keeps it as warnings.
_LONGEST_LINE, _MOST_LINES = 1000, 20


def client(host: str, port: int, window: Window) -> list[str]:
    """The client's command; a kind adds its own options."""
    wait = _wait(window)
    return [
        "sockperf", "ping-pong",
        "--ip", host,
        "--port", str(port),
        "--time", str(window.duration),
        "--mps", str(_MOST_A_SECOND),
        *(["--pre-warmup-wait", str(wait)] if wait else []),  # it refuses 0
    ]  # fmt: skip


def lead(window: Window) -> float:
    """Seconds between the start of the client and that of the traffic beside it.

    Its first message is 0.2 s before the window, so that those that count are within it.
    """
    return _START_S + _wait(window) - window.omit


def _wait(window: Window) -> int:
    return max(0, window.omit - _SLEEP_S)


def read(out: bytes, err: bytes, status: int, window: Window) -> Values | Failure:
    """The figures of a client, compared with the window that it was given."""
    text, beside = _COLOUR.sub("", out.decode(errors="replace")), _lines(err)
    if fault := _FAULT.search(text):
        return Failure("traffic", f"sockperf: {fault[1]}"[:_LONGEST_LINE], beside)
    counted = _COUNTED.search(text)
    if status != 0 or not (counted or _NOTHING in text):
        said = " ".join((*_lines(out)[-3:], *beside)) or "it printed nothing"
        words = f"sockperf printed no result ({how_ended(status)}): {said}"
        return Failure("result", words[:_LONGEST_LINE], beside)
    seconds, messages = (float(counted[1]), int(counted[2])) if counted else (0.0, 0)
    known = quantiles(text, messages)
    if wrong := _lasted(seconds, window):
        return wrong
    if 0.5 not in known:
        return Failure("result", f"sockperf prints no median of {messages} messages", beside)
    numbers = {name: known[part] for part, name in QUANTILES.items() if part in known}
    numbers["requests_per_second"] = messages / seconds
    return Values(numbers, warnings=(*_errors(text), *beside), latency=tuple(known.items()))


def _lasted(seconds: float, window: Window) -> Failure | None:
    """A failure where the messages that count do not fill the window."""
    expected, slack = window.duration - _LEFT_OUT_S, 0.25 + 0.1 * window.duration
    if seconds < expected - slack:
        text = (
            f"the last answer came after {seconds:.3f} s of {expected:.3f} s: a message was lost, "
            "and sockperf waits for its answer without end; lower the load, or use protocol=tcp"
        )
        return Failure("traffic", text)
    if seconds > window.duration + slack:
        text = (
            f"sockperf reports {seconds:.3f} s of messages instead of {expected:.3f} s: reduce the load "
            "on the client's cores, or give longer runs (--duration)"
        )
        return Failure("window", text)
    return None


def quantiles(text: str, messages: int) -> dict[float, float]:
    """Microseconds by fraction, of those that are known with so many messages."""
    found = {
        _ENDS[end] if end else round(float(percent) / 100, 9): float(value)
        for end, percent, value in _QUANTILE.findall(text)
    }
    return {part: us for part, us in sorted(found.items()) if quantile_known(part, messages)}


def _errors(text: str) -> tuple[str, ...]:
    """sockperf's counts of dropped, duplicated and reordered messages, unless all are 0."""
    counts = _COUNTS.search(text)
    if counts is None or not any(map(int, counts.groups())):
        return ()
    kinds = ("dropped", "duplicated", "out-of-order")
    words = ", ".join(f"{n} {kind}" for kind, n in zip(kinds, counts.groups(), strict=True))
    return (f"sockperf counts {words} messages",)


def _lines(printed: bytes) -> tuple[str, ...]:
    lines = _COLOUR.sub("", printed.decode(errors="replace")).splitlines()
    return tuple(line.strip()[:_LONGEST_LINE] for line in lines if line.strip())[:_MOST_LINES]


_ENDS = {"MIN": 0.0, "MAX": 1.0}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# With exit code 0 after most of them.
_FAULT = re.compile(r"sockperf: (?:ERROR: |(?=No messages |'-))(.+)")
_NOTHING = "No valid observations"
_NUMBER = r"([0-9]{1,12}\.[0-9]{1,9})"
_COUNTED = re.compile(
    rf"\[Valid Duration\] RunTime={_NUMBER} sec; SentMessages=[0-9]+; ReceivedMessages=([0-9]{{1,12}})\b"
)
_QUANTILE = re.compile(rf"---> (?:<(MAX|MIN)> observation|percentile +{_NUMBER}) = +{_NUMBER}")
_COUNTS = re.compile(
    r"# dropped messages = ([0-9]{1,12}); # duplicated messages = ([0-9]{1,12}); "
    r"# out-of-order messages = ([0-9]{1,12})"
)
