"""The results of the windows of an episode, as JSON (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.episode import Edge, Taken
from agent.errors import SteerError
from agent.goodput import Reading, Receiver, received, total
from agent.schedule import Schedule, Window
from agent.settings import Setting


def row(
    window: Window,
    taken: Taken,
    receivers: Sequence[Receiver],
    differences: Sequence[str],
    schedule: Schedule,
) -> dict[str, Any]:
    """One window: moments and counters at both edges, bytes of each receiver, and what spoils it."""
    first, last = taken.first, taken.last
    got: list[dict[str, float] | None] = []
    spoiled: list[dict[str, Any]] = [
        {"kind": "late", "message": text} for text in untimely(window, taken, schedule.tolerance)
    ]
    spoiled += [{"kind": "value", "message": text} for text in (*taken.refused, *differences)]
    for index, one in enumerate(receivers):
        try:
            both = first.readings[index], last.readings[index]
            got.append(received(*both, one.connections, schedule.connections))
        except (ValueError, OSError) as error:
            got.append(None)
            spoiled.append(
                {"kind": "receiver", "receiver": index, "message": f"{one.name}: {error}"}
            )
    return {
        **window._asdict(),
        "late": [taken.late, first.late, last.late],
        "switch_seconds": taken.switch_seconds,
        "writes": taken.writes,
        "edges": [first.sample.document(), last.sample.document()],
        "received": got,
        "trace": trace(taken, receivers),
        "spoiled": spoiled,
    }


def trace(taken: Taken, receivers: Sequence[Receiver]) -> list[dict[str, Any]]:
    """All readings of a window, in order: the bytes that each receiver has had since it was started."""
    every = [taken.first.readings, *taken.between, taken.last.readings]
    return [
        {
            "at": readings[0].at,
            "bytes": [known(*each) for each in zip(readings, receivers)],
        }
        for readings in sorted(every, key=lambda readings: readings[0].at)
    ]


def known(reading: Reading, one: Receiver) -> int | None:
    try:
        return total(reading, one.connections)
    except (ValueError, OSError):
        return None


def untimely(window: Window, taken: Taken, tolerance: float) -> list[str]:
    """Why a window is not the planned one."""
    settled = moment(taken.first) - taken.switched
    lasted = moment(taken.last) - moment(taken.first)
    least = window.settle - max(tolerance, window.settle / 10)  # to end NAPI threads takes 25 ms
    words = []
    if settled < least:
        words.append(f"it settled for {settled:.3f} s instead of {window.settle:.3f} s")
    if abs(lasted - window.seconds) > tolerance:
        words.append(f"it lasted {lasted:.3f} s instead of {window.seconds:.3f} s")
    return words


def moment(edge: Edge) -> float:
    return edge.readings[0].at


def read_back(
    settings: Sequence[Setting], raw: Sequence[bytes], wanted: Mapping[Setting, str], unusable: int
) -> tuple[dict[Setting, str], list[str]]:
    """The values at the end of a window, and messages for those that differ from the written ones."""
    values, differences = {}, []
    for setting, text in zip(settings, raw):
        try:
            got = values[setting] = setting.text_of(text)
        except SteerError as error:
            differences.append(str(error))
            continue
        if not setting.knob.equal(wanted[setting], got, unusable):
            differences.append(f"{setting} is {got}, not {wanted[setting]}")
    return values, differences
