"""The windows of an episode, from the agent's answer (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from analysis.schema import Goodput
from experiments.host.arrived import arrived
from experiments.host.procstat import CounterSample
from experiments.targets.contract import AnyMeasurement, PairResult, TrafficResult, WindowResult
from experiments.targets.roundtrips import Probe
from experiments.validity import Cause, Reason
from infra import traffic
from infra.traffic.contract import Failure, Kind, Values
from infra.traffic.rr import Rr
from infra.traffic.stream import Stream

# The traffic of a window, from its pairs, the counters at both edges, and the reasons against it.
Measured = Callable[
    [Sequence[PairResult], tuple[CounterSample, CounterSample], Sequence[Reason]], TrafficResult
]


def results(
    answer: Mapping[str, Any],
    what: AnyMeasurement,
    indexes: Sequence[int],
    measured: Measured,
    ended: Mapping[int, str],
    against: Sequence[Reason] = (),
    probed: Sequence[Probe] = (),
) -> list[WindowResult]:
    """One result for each window.

    The receivers are the pairs `indexes`, `ended` the clients that ended early with their last
    words, `against` the reasons against all windows, `probed` the pairs whose latency is measured.
    """
    node = str(answer.get("owner", "")).rpartition("/")[2]
    late = f"the agent of node {node} may not use SCHED_FIFO: windows can be late"
    notes = [] if answer.get("fifo", True) else [late]
    control = congestion(what)
    latencies = [
        [PairResult(one.pair, one.within(*(edge["at"] for edge in row["edges"]))) for one in probed]
        for row in answer["windows"]
    ]
    received = arrived(node, *answer.get("device_edges", ()))
    return [
        WindowResult(
            traffic=measured(
                [*pairs(row, indexes, control), *found],
                (CounterSample.of(row["edges"][0]), CounterSample.of(row["edges"][1])),
                [*against, *reasons(row["spoiled"], indexes, ended), *unprobed(found)],
            ),
            steering=[(node, steering(answer["plans"][row["plan"]], notes))],
            goodput=over_time(row["trace"], answer["start"]),
            at=row["edges"][0]["at"] - answer["start"],
            received=received,
        )
        for row, found in zip(answer["windows"], latencies, strict=True)
    ]


def unprobed(found: Sequence[PairResult]) -> list[Reason]:
    """Why a pair has no latency in a window."""
    return [
        Reason(Cause(one.outcome.cause), f"pair {one.index}: {one.outcome.text}")
        for one in found
        if isinstance(one.outcome, Failure)
    ]


def steering(plan: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """The values that were set in the windows of a plan, in the form of the agent's answer to `verify`."""
    return {"drift": [], **plan, "warnings": [*plan["warnings"], *notes]}


def congestion(what: AnyMeasurement) -> str | None:
    """The congestion control that the senders were told to use."""
    kind = traffic.of(what.traffic).kinds[0]
    return kind.congestion or None if isinstance(kind, Stream) else None


def probes(kind: Kind) -> bool:
    """Whether latency is measured in the windows of a pair, instead of goodput."""
    return isinstance(kind, Rr)


def pairs(row: Mapping[str, Any], indexes: Sequence[int], control: str | None) -> list[PairResult]:
    """The goodput of each pair in a window."""
    return [
        PairResult(
            index,
            Values({"bitrate_mbps": rate(got["bytes"], got["seconds"])}, control)
            if got
            else Failure("traffic", f"pair {index} has no bytes in this window"),
        )
        for index, got in zip(indexes, row["received"], strict=True)
    ]


def over_time(trace: Sequence[dict[str, Any]], start: float) -> list[Goodput]:
    """Total goodput between each reading of a window's `trace` and the next.

    `start` is the episode's start by the clock of the readings. A part in which a connection of
    any receiver ended is left out.
    """
    found = []
    for before, after in pairwise(trace):
        seconds = round(after["at"] - before["at"], 6)
        if None in (*before["bytes"], *after["bytes"]) or seconds <= 0:
            continue
        size = sum(after["bytes"]) - sum(before["bytes"])
        if size >= 0:
            at = round(before["at"] - start, 6)
            found.append(Goodput(at=at, seconds=seconds, mbps=rate(size, seconds)))
    return found


def rate(size: float, seconds: float) -> float:
    """Mbit/s."""
    return round(size * 8e-6 / seconds, 6)


def reasons(
    spoiled: Sequence[Mapping[str, Any]], indexes: Sequence[int], ended: Mapping[int, str]
) -> list[Reason]:
    """The agent's reasons against a window; a receiver is named by its pair.

    `ended` are the clients that ended before the agent did, with their last words. A client that
    ended after the window has spoiled nothing.
    """
    return [reason for one in spoiled for reason in _reasons(one, indexes, ended)]


def _reasons(
    one: Mapping[str, Any], indexes: Sequence[int], ended: Mapping[int, str]
) -> list[Reason]:
    text = one["message"]
    if one["kind"] == "late":
        return [Reason(Cause.WINDOW, f"the window is late: {text}")]
    if one["kind"] != "receiver":
        return [Reason(Cause.STEERING, f"steering in the window: {text}")]
    pair = indexes[one["receiver"]]
    words = f"pair {pair}: the client ended before the last window: {ended.get(pair)}"
    found = [Reason(Cause.TRAFFIC, words)] if ended.get(pair) else []
    return [*found, Reason(Cause.TRAFFIC, f"pair {pair}: {text}")]


def last_words(outcome: Values | Failure) -> str:
    """Why a client ended."""
    return outcome.text if isinstance(outcome, Failure) else "it had sent for its whole time"
