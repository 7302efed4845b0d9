"""Validity of a run (pure): compares its traffic, window and cores with the requested ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from analysis.schema import Core
from infra.traffic.contract import Failure, Kind, Values


class Cause(StrEnum):
    """The kind of a reason: runs that fail for the same cause have the same kind."""

    AGENT = "agent"
    CORES = "cores"
    DEFINITION = "definition"
    FOREIGN = "foreign-load"
    MACHINE = "machine"
    RECORD = "record"
    RESULT = "result"
    START = "start"
    STEERING = "steering"
    STREAMS = "streams"
    TOPOLOGY = "topology"
    TRAFFIC = "traffic"
    WINDOW = "window"


REMEDIES: Mapping[Cause, str] = {
    Cause.AGENT: "see whether the node agent can run: ./steerlab doctor",
    Cause.CORES: "keep all cores online during runs",
    Cause.DEFINITION: "restore the configurations file",
    Cause.FOREIGN: "end the other programs, or choose other cores or nodes",
    Cause.MACHINE: "see what this machine or cluster lacks: ./steerlab doctor",
    Cause.RECORD: "this is a bug of steerlab: report it with the record",
    Cause.RESULT: "run the client by hand between the same pods to see what it prints",
    Cause.START: "see whether client and server can run: ./steerlab doctor",
    Cause.STEERING: "find what else writes these values (tuned, a boot script, another stack)",
    Cause.STREAMS: "use one version of the traffic's program on both sides",
    Cause.TOPOLOGY: "converge the stack again, or resume the sweep",
    Cause.TRAFFIC: "check that the client reaches the server (network policy, firewall, MTU)",
    Cause.WINDOW: "give longer windows (--window) or runs (--duration), or reduce the load on the machine",
}


class Reason(NamedTuple):
    """Why a run does not count."""

    cause: Cause
    text: str


# Allowed difference of the CPU window: seconds, and a share of it. A reader that may use SCHED_FIFO
# wakes up at most 3 ms late with 16 pairs, another one up to 0.6 s (p99).
WINDOW_S, WINDOW_SHARE = 0.1, 0.05

# Other programs, and the hypervisor: share of the experiment's cores, mean over the window. One
# busy core is enough to slow all, so a warning also has a limit in cores.
FOREIGN_WARN, FOREIGN_WARN_CORES, FOREIGN_LIMIT = 0.05, 0.5, 0.75
STEAL_WARN, STEAL_LIMIT = 0.02, 0.25


def unreached(outcomes: Iterable[Values | Failure], metric: str) -> list[Reason]:
    """The reason against a run without any data: an overloaded node starves some pairs, never all."""
    received = [one.numbers[metric] for one in outcomes if isinstance(one, Values)]
    if not received or any(received):
        return []
    return [Reason(Cause.TRAFFIC, "no pair received data in the measured seconds")]


def unmeasured(outcomes: Mapping[int, Values | Failure], kinds: Mapping[int, Kind]) -> list[str]:
    """The reasons for the null values of pairs that have others, as warnings."""
    absent = {
        index: [name for name in kinds[index].metrics if name not in one.numbers]
        for index, one in outcomes.items()
        if isinstance(one, Values)
    }
    return [
        f"pair {index}: its programs reported no usable {', '.join(names)}"
        for index, names in absent.items()
        if names
    ]


def window_reasons(node: str, seconds: float, asked: float) -> list[Reason]:
    """The reason if a node's CPU figures do not cover the traffic."""
    if abs(seconds - asked) <= WINDOW_S + WINDOW_SHARE * asked:
        return []
    text = f"the CPU window of node {node} has {seconds:.3f} s instead of {asked:g} s"
    return [Reason(Cause.WINDOW, text)]


def core_reasons(node: str, before: set[int], after: set[int]) -> list[Reason]:
    """The reason if a node's cores are not the same at both ends of the window."""
    return [
        Reason(Cause.CORES, f"core {core} of node {node} {what} during the run")
        for cores, what in ((before - after, "went offline"), (after - before, "came online"))
        for core in sorted(cores)
    ]


def missing_cores(node: str, wanted: Iterable[int], seen: set[int]) -> list[Reason]:
    """The reason if cores of the run are not online."""
    return [
        Reason(Cause.CORES, f"core {core} of node {node} is not online")
        for core in sorted(set(wanted) - seen)
    ]


def foreign(node: str, used: float, cores: int, who: Sequence[str]) -> list[Reason | str]:
    """CPU time of other programs: a reason above the limit, below it a warning."""
    if not cores:
        return []
    names = f" ({', '.join(who)})" if who else ""
    text = f"other programs used {used:.2f} of {cores} cores of node {node}{names}"
    share = used / cores
    if share > FOREIGN_LIMIT:
        return [Reason(Cause.FOREIGN, f"{text}: more than {FOREIGN_LIMIT:.0%}")]
    return [text] if share > FOREIGN_WARN or used > FOREIGN_WARN_CORES else []


def stolen(node: str, cores: Sequence[Core], ticks: float) -> list[Reason | str]:
    """The same of time that the hypervisor gave to others, in a window of so many ticks.

    The kernel prints whole ticks, so a core's difference may be one too large, which is 4 % of a window
    of 0.25 s: the limits apply to what is certain.
    """
    steal = [core.steal for core in cores if core.steal is not None]
    if not steal:
        return []
    share = sum(steal) / len(steal) / 100
    certain = sum(max(0.0, one - 100 / ticks) for one in steal) / len(steal) / 100
    text = f"the hypervisor took {share:.1%} of the time of the cores of node {node}"
    if certain > STEAL_LIMIT:
        return [Reason(Cause.FOREIGN, f"{text}: more than {STEAL_LIMIT:.0%}")]
    return [text] if certain > STEAL_WARN else []
