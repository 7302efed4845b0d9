"""What an episode of switchback is (pure): orders, schedule, and the verdict on its windows."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agent.knobs import KNOBS, SETTLE_S, Knob
from agent.schedule import MAX_PLANS, MAX_READINGS, MAX_SECONDS, START_TIMEOUT, most_readings
from analysis.metrics import BITRATE
from analysis.schema import FEWEST_READINGS
from experiments.run.options import Options
from experiments.validity import Reason
from infra import traffic, untrusted
from infra.configurations import ROLES, Configuration
from infra.settings import StackSettings
from infra.traffic import pingpong
from infra.traffic.contract import Kind
from infra.traffic.mixed import Mixed
from infra.traffic.rr import Rr
from infra.traffic.stream import Stream

# Seconds of traffic before the first window settles. On the lab, 4 pairs are at their rate 0.3 s after they connect. A
# connection that is alone still grows for a second and a half, and more in the baseline than with steering.
WARM_UP_S, WARM_UP_ALONE_S = 0.4, 1.4
# Seconds between two windows, in which the agent reads the values back.
BETWEEN_S = 0.01
# Seconds that the clients run beyond the last window, connecting included; they are ended before.
SPARE_S = 7
# Seconds of an episode beside its warm-up and its windows, for the estimate alone.
OVERHEAD_S = 0.5
# Seconds by which a window may settle shorter, or last shorter or longer.
TOLERANCE_S = 0.02
# Seconds between readings of goodput within a window.
EVERY_S = 0.05
# Receivers that the agent reads in a second. On two full cores a reading takes 0.3 ms and 0.02 ms a
# receiver (softirqs that it runs included): with the windows' edges at most 2 % of a core.
READINGS_A_SECOND = 400
# JSON values in the agent's answer: of a window with 100 receive queues of NICs, of a pair in it, and
# of a reading beside one for each pair.
VALUES, VALUES_OF_PAIR, VALUES_OF_READING = 1000, 20, 4
# Round trips of one client in a second, which keeps a limited number of them. On the lab it has 5,000 to 10,000.
TRIPS_A_SECOND = 20_000
_LEASE_S = 7200


class Timing(NamedTuple):
    """Seconds of a window, of the settling before it, and of traffic before the first one.

    `settles` are the settle times of the windows of one episode, where they differ; `settle` is the longest.
    """

    window: float
    settle: float
    warm_up: float = WARM_UP_S
    settles: Sequence[float] = ()

    @property
    def period(self) -> float:
        return self.settle + self.window + BETWEEN_S

    def settle_of(self, number: int) -> float:
        """The settle time of a window, counted from 0."""
        return self.settles[number] if self.settles else self.settle

    def at(self, number: int) -> float:
        """The start of the settling of a window, in seconds after the start of the schedule."""
        settled = sum(map(self.settle_of, range(number)))
        return self.warm_up + settled + number * (self.window + BETWEEN_S)

    def end(self, windows: int) -> float:
        """The end of the last window, in seconds after the start of the schedule."""
        return self.at(windows)

    def traffic(self, windows: int) -> int:
        """Whole seconds that the connections last."""
        return math.ceil(self.end(windows)) + SPARE_S


def warm_up(pairs: int) -> float:
    """Seconds of traffic before the first window settles."""
    return WARM_UP_S if pairs > 1 else WARM_UP_ALONE_S


def cannot(asked: Options, state: StackSettings, steered: int) -> str:
    """Why switchback cannot measure these configurations on so many nodes; empty if it can (pure)."""
    count = len(asked.configurations)
    end = Timing(asked.window, asked.settle, warm_up(min(asked.replicas))).end(count)
    needed = math.ceil(end) + state.section.AROUND_A_RUN_S
    kinds = traffic.of(asked.traffic).kinds
    kept = pingpong.MOST / TRIPS_A_SECOND
    reasons = {
        "steers one server node alone (steerNodes=server), not several": steered > 1,
        "cannot have a new lab for each run (--isolation fresh)": asked.isolation == "fresh",
        f"measures TCP streams (--traffic {Stream.name} or {Mixed.name}), not {asked.traffic}": (
            not isinstance(kinds[0], Stream)
        ),
        f"takes at most {MAX_PLANS} configurations": count > MAX_PLANS,
        "takes fewer configurations or pairs: the agent's answer would be too large": (
            not readable(count, max(asked.replicas), 2 * count)
        ),
        f"takes at most {MAX_SECONDS} seconds an episode: give shorter windows (--window)": (
            end > MAX_SECONDS
        ),
        f"keeps the round trips of at most {kept:.0f} seconds an episode, and these windows take {end:.0f}: give "
        "shorter windows (--window) or fewer configurations": (
            end > kept and any(isinstance(kind, Rr) for kind in kinds)
        ),
        f"needs a lease of at least {needed}s for an episode with its start and end, or none, "
        f"not lease={state.lease}": (
            state.lease_seconds is not None and state.lease_seconds < needed
        ),
    }
    return next((words for words, holds in reasons.items() if holds), "")


def metrics_of(kind: Kind) -> tuple[str, ...]:
    """What is measured in windows: retransmits are counted for connections alone, not for parts of them."""
    return (BITRATE.name,) if isinstance(kind, Stream) else kind.metrics


def readable(windows: int, receivers: int, readings: int) -> bool:
    """Whether the agent's answer is within the limits of its reader, with so many readings (pure)."""
    of_windows = windows * (VALUES + receivers * VALUES_OF_PAIR)
    return of_windows + readings * (VALUES_OF_READING + receivers) <= untrusted.MOST_VALUES


def differing(configurations: Iterable[Configuration]) -> list[Knob]:
    """The knobs in which configurations differ (pure)."""
    known = list(configurations)
    return [
        knob
        for name, knob in KNOBS.items()
        if any(
            len({getattr(one, part).knobs.get(name) for one in known}) > 1
            for part in (*ROLES, "machine")
        )
    ]


def settle_of(configurations: Iterable[Configuration]) -> float:
    """Seconds in which a value that differs between configurations loses its effect (pure)."""
    return max((knob.settle for knob in differing(configurations)), default=SETTLE_S)


def settles_of(base: Configuration, order: Sequence[Configuration]) -> list[float]:
    """The settle time of each window of an episode, by what changes; before the first one it is `base` (pure)."""
    return [settle_of(change) for change in zip([base, *order], order, strict=False)]


def standing(configurations: Iterable[Configuration]) -> str:
    """Why these cannot be switched under the same connections; empty if they can (pure)."""
    names = [knob.name for knob in differing(configurations) if not knob.live]
    verb = "differs" if len(names) == 1 else "differ"
    return f"cannot switch {', '.join(names)}, which {verb}, under traffic" if names else ""


def orders(names: Sequence[str], draw: random.Random) -> Iterator[list[str]]:
    """Random orders, balanced: each name comes at each place, and after each other one, equally often.

    A Williams design with random names and rows: balanced over `n` episodes for an even number
    of names, over `2 n` for an odd one.
    """
    count = len(names)
    first = [(step + 1) // 2 if step % 2 else -step // 2 for step in range(count)]
    rows = [[(place + shift) % count for place in first] for shift in range(count)]
    if count % 2:
        rows += [row[::-1] for row in rows]
    while True:
        labels = draw.sample(names, count)
        for row in draw.sample(rows, len(rows)):
            yield [labels[place] for place in row]


def schedule(
    plans: Mapping[str, Mapping[str, Any]],
    receivers: Sequence[int | str],
    timing: Timing,
    streams: int = 1,
) -> dict[str, Any]:
    """The agent's document of an episode: each plan once, in the order of the mapping.

    Each receiver has a connection for each stream, and one for control.
    """
    end = timing.end(len(plans))
    leases = [plan["lease_seconds"] or _LEASE_S for plan in plans.values()]
    return {
        "version": 1,
        "plans": dict(plans),
        "windows": [
            {
                "plan": name,
                "at": round(timing.at(number), 3),
                "settle": timing.settle_of(number),
                "seconds": timing.window,
            }
            for number, name in enumerate(plans)
        ],
        "receivers": list(receivers),
        "connections": streams + 1,
        "lease_seconds": max(*leases, math.ceil(end) + START_TIMEOUT + 1),
        "every": every(len(receivers), len(plans), timing),
        "tolerance": TOLERANCE_S,
    }


def every(receivers: int, windows: int, timing: Timing) -> float | None:
    """Seconds between readings of goodput; None where there would be too few of them, or too many."""
    seconds = max(EVERY_S, receivers / READINGS_A_SECOND)
    readings = most_readings(windows, timing.end(windows), seconds)
    kept = receivers * readings <= MAX_READINGS and readable(windows, receivers, readings)
    return seconds if kept and FEWEST_READINGS * seconds <= timing.window else None


def unread(replicas: Iterable[int], windows: int, timing: Timing) -> str:
    """At which numbers of pairs goodput is not read within windows, with the remedy; empty if at none."""
    own = {count: timing._replace(warm_up=warm_up(count)) for count in replicas}
    counts = [count for count, each in own.items() if every(count, windows, each) is None]
    if not counts:
        return ""
    needed = FEWEST_READINGS * max(EVERY_S, max(counts) / READINGS_A_SECOND)
    remedy = (
        f"give --window {needed:g} or longer"
        if needed > timing.window
        else "measure fewer configurations"
    )
    return (
        f"goodput within a window of {timing.window:g} s is not read with "
        f"{', '.join(map(str, counts))} pairs, so the report cannot check whether it has settled: "
        f"{remedy}"
    )


def too_few(reasons: Mapping[str, Sequence[Reason]], key: str) -> list[Reason]:
    """Why an episode does not count, from what spoils the window of each configuration.

    Without its key, which all others are compared with, or half of its windows there is
    too little that can be compared under the same connections.
    """
    spoilt = {name: why for name, why in reasons.items() if why}
    if key in spoilt:
        text = f"the episode has no valid window of {key}: {spoilt[key][0].text}"
        return [Reason(spoilt[key][0].cause, text)]
    if 2 * len(spoilt) > len(reasons):
        one = next(iter(spoilt.values()))[0]
        text = f"{len(spoilt)} of {len(reasons)} windows of the episode are not valid: {one.text}"
        return [Reason(one.cause, text)]
    return []
