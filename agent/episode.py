"""An episode: plans are switched under live connections, and counters read at both ends of each window."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import SteerError
from agent.goodput import Reading, Receiver
from agent.machine import Machine
from agent.procstat import Counters, Sample
from agent.settings import OpenValue, Setting
from agent.signals import Signals
from agent.starting import Driver

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.schedule import Window

    Write = tuple[Setting, OpenValue, bytes]  # and what is written


# Before the first window: to list a namespace's connections takes milliseconds where a node is busy.
CONNECT_AHEAD = 0.2
# The kernel will not have this value; all others can still be measured.
REFUSALS = (errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP, errno.EBUSY)


class Edge(NamedTuple):
    """What was read at one end of a window."""

    late: float  # seconds after the planned moment
    sample: Sample
    readings: list[Reading]


class Taken(NamedTuple):
    """What one window gave, as the kernel printed it."""

    late: float  # of the switch, seconds after the planned moment
    switched: float  # the moment (monotonic) at which all was written
    switch_seconds: float
    writes: int
    refused: list[str]  # of the writes, in words
    first: Edge
    last: Edge
    between: list[list[Reading]]  # of all receivers, after the switch and between the edges
    values: list[bytes]  # read back, in the order of the episode's values


class Episode:
    """The open values of an episode, and what is written to them for each window."""

    def __init__(
        self,
        machine: Machine,
        signals: Signals,
        driver: Driver,
        values: Sequence[OpenValue],
        counters: Counters,
        receivers: Sequence[Receiver],
    ) -> None:
        self._machine = machine
        self._signals = signals
        self._driver = driver
        self._values = values
        self._counters = counters
        self._receivers = receivers

    def run(
        self,
        start: float,
        windows: Sequence[Window],
        writes: Sequence[Sequence[Write]],
        every: float | None,
    ) -> list[Taken]:
        """All windows; moments count from `start` (monotonic). Goodput is also read `every` so many seconds."""
        self._wake(start + windows[0].at - CONNECT_AHEAD)
        for receiver in self._receivers:
            if not receiver.connections:  # to list them again may make the first window late
                receiver.connect(self._machine)
        return [self._window(start, *each, every) for each in zip(windows, writes)]

    def values(self) -> list[bytes]:
        return [value.read() for value in self._values]

    def _window(
        self, start: float, window: Window, writes: Sequence[Write], every: float | None
    ) -> Taken:
        late = self._wake(start + window.at)
        began = time.monotonic()
        refused = []
        for setting, value, line in writes:
            try:
                self._machine.overwrite(value, line)
            except OSError as error:
                words = f"{setting}: {line.decode().strip()} was written: {error.strerror}"
                if error.errno not in REFUSALS:
                    raise SteerError(words) from None
                refused.append(words)
        switched = time.monotonic()
        edges: list[Edge] = []
        between: list[list[Reading]] = []
        for moment, is_edge in moments(window, every):
            if is_edge:
                edges.append(self._edge(start + moment))
            else:
                self._wake(start + moment)
                between.append(self._readings())
        first, last = edges
        seconds = switched - began
        values = self.values()
        return Taken(late, switched, seconds, len(writes), refused, first, last, between, values)

    def _edge(self, moment: float) -> Edge:
        late = self._wake(moment)
        readings = self._readings()
        return Edge(late, self._counters.read(), readings)

    def _readings(self) -> list[Reading]:
        return [receiver.read() for receiver in self._receivers]

    def _wake(self, moment: float) -> float:
        """Sleep until a moment; how late it is then, in seconds."""
        with self._signals.at_once():
            self._driver.wait(max(0.0, moment - time.monotonic()))
        return time.monotonic() - moment


def moments(window: Window, every: float | None) -> list[tuple[float, bool]]:
    """When to read within a window, and whether that is one of its edges (pure)."""
    edges = [(window.first, True), (window.last, True)]
    length = window.last - window.at
    count = 1 + int(length / every - 1e-6) if every else 0
    between = [(window.at + n * (every or 0), False) for n in range(count)]
    return sorted(edges + [one for one in between if abs(one[0] - window.first) > 1e-6])
