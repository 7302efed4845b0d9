"""The schedule of an episode, as JSON: which plan is in force at which time (pure)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.errors import BAD_PLAN, SteerError
from agent.fields import Field, each, like, read_fields, whole
from agent.plan import POD, POD_UID, Plan, parse_plan

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.fields import Check

MAX_PLANS, MAX_WINDOWS, MAX_RECEIVERS = 256, 512, 1024
MAX_READINGS = 250_000  # of one receiver each; they are kept until the end
MAX_SECONDS = 600  # of an episode: no other owner can apply or restore meanwhile
START_TIMEOUT = 60  # timeout of the start signal, seconds


def number(low: float, high: float) -> Check:
    return lambda v: type(v) in (int, float) and low <= v <= high


_NAME = like(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FIELDS = {
    "version": Field(whole(1, 1), "1"),
    "plans": Field(
        lambda v: isinstance(v, dict) and 1 <= len(v) <= MAX_PLANS and all(map(_NAME, v)),
        f"an object of 1 to {MAX_PLANS} plans by name",
    ),
    "windows": Field(
        each(lambda v: isinstance(v, dict), 1, MAX_WINDOWS), f"a list of 1 to {MAX_WINDOWS} windows"
    ),
    "receivers": Field(
        each(lambda v: whole(1, 2**22)(v) or like(POD + POD_UID)(v), 1, MAX_RECEIVERS),
        f"a list of 1 to {MAX_RECEIVERS} pids, or {POD} and the uid of a pod",
    ),
    "connections": Field(whole(1, 2**16), "a whole number, at least 1", nullable=True),
    "lease_seconds": Field(whole(1, 2**31), "a whole number of seconds, at least 1"),
    "every": Field(number(0.005, 10), "0.005 to 10 seconds", nullable=True),
    "tolerance": Field(number(0.001, 10), "0.001 to 10 seconds", nullable=True),
}
WINDOW_FIELDS = {
    "plan": Field(_NAME, "the name of a plan"),
    "at": Field(number(0, MAX_SECONDS), f"0 to {MAX_SECONDS} seconds after the start"),
    "settle": Field(number(0, MAX_SECONDS), f"0 to {MAX_SECONDS} seconds"),
    "seconds": Field(number(0.001, MAX_SECONDS), f"0.001 to {MAX_SECONDS} seconds"),
}


class Window(NamedTuple):
    """A plan is written `at` seconds after the start; counters are read after `settle` and `seconds` more."""

    plan: str
    at: float
    settle: float
    seconds: float

    @property
    def first(self) -> float:
        return self.at + self.settle

    @property
    def last(self) -> float:
        return self.at + self.settle + self.seconds


class Schedule(NamedTuple):
    """An episode: plans of one owner, by name, and the windows in which they are in force."""

    plans: dict[str, Plan]
    windows: list[Window]
    receivers: list[int | str]  # a pid, or `pod:` and a uid
    connections: int  # that each receiver must have at the start
    lease_seconds: int
    every: float | None  # seconds between readings of goodput, from the switch to the window's end
    tolerance: float  # seconds by which a window may settle shorter, or last shorter or longer

    @property
    def owner(self) -> str:
        return next(iter(self.plans.values())).owner


def most_readings(windows: int, end: float, every: float | None) -> int:
    """How often each receiver is read at most in an episode that ends at `end` seconds."""
    return 2 * windows + (windows + math.ceil(end / every) if every else 0)


def parse_schedule(document: Any) -> Schedule:
    values = read_fields(document, FIELDS, "", "switchback")
    plans = {name: _plan(name, item) for name, item in values["plans"].items()}
    owners = {plan.owner: name for name, plan in plans.items()}
    if len(owners) > 1:
        (one, first), (other, second), *_ = owners.items()
        raise _wrong(
            f"plans.{first}.owner is {one!r}, plans.{second}.owner {other!r}: all plans need the same owner"
        )
    windows: list[Window] = []
    for index, item in enumerate(values["windows"]):
        where = f"windows[{index}]."
        window = Window(**read_fields(item, WINDOW_FIELDS, where, "switchback"))
        if window.plan not in plans:
            raise _wrong(f"{where}plan is {window.plan!r}: it must be one of {', '.join(plans)}")
        if windows and window.at < windows[-1].last - 1e-6:  # sums of fractions
            raise _wrong(
                f"{where}at is {window.at:g}: the window before ends at {windows[-1].last:g}"
            )
        windows.append(window)
    end = windows[-1].last
    if end > MAX_SECONDS:
        raise _wrong(f"windows: the last ends at {end:g}: it must end by {MAX_SECONDS} seconds")
    if values["lease_seconds"] < end + START_TIMEOUT:
        least = int(end + START_TIMEOUT) + 1
        raise _wrong(f"lease_seconds is {values['lease_seconds']}: this schedule needs {least}")
    every = values["every"]
    readings = most_readings(len(windows), end, every) * len(values["receivers"])
    if readings > MAX_READINGS:
        raise _wrong(
            f"it takes {readings} readings of goodput, at most {MAX_READINGS}: raise every"
        )
    tolerance = values["tolerance"] or 0.02
    connections = values["connections"] or 0
    return Schedule(
        plans,
        windows,
        values["receivers"],
        connections,
        values["lease_seconds"],
        every,
        tolerance,
    )


def _plan(name: str, document: Any) -> Plan:
    try:
        plan = parse_plan(document)
    except SteerError as error:
        raise of_plan(name, error) from None
    return plan


def of_plan(name: str, error: SteerError) -> SteerError:
    """The same error, which names the plan."""
    words = str(error)
    return SteerError(
        f"switchback: plans.{name}: {words[6:] if words.startswith('plan: ') else words}",
        error.status,
    )


def _wrong(words: str) -> SteerError:
    return SteerError(f"switchback: {words}", BAD_PLAN)
