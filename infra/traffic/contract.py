"""The contract of a kind of traffic: commands of a pair, and the parser of their output (pure)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal
from typing import Protocol as Interface

from pydantic import BaseModel, ConfigDict

# Most connections of a pair.
MOST_STREAMS = 128
# The first port of the servers.
PORT = 5201
Protocol = Literal["TCP", "UDP"]
# Seconds that a client may take to end after its last second of traffic.
GRACE_S = 10


class Window(Interface):
    """Length of a run and number of connections; seconds are whole."""

    @property
    def duration(self) -> int: ...

    @property
    def omit(self) -> int: ...

    @property
    def streams(self) -> int: ...


# The metrics that are quantiles of latency, by their fraction.
QUANTILES = {0.5: "p50_us", 0.99: "p99_us", 0.999: "p999_us"}


def quantile_known(fraction: float, messages: int) -> bool:
    """Whether so many messages have one beyond this quantile: else it is the maximum again."""
    # 10 * (1 - 0.9) is less than 1 by a rounding error
    return fraction in (0, 1) or messages * (1 - fraction) > 1 - 1e-9


@dataclass(frozen=True)
class Values:
    """Numbers of one pair by the names of `analysis/metrics.py`, in their units.

    `latency` are quantiles, `halves` the median latency in both halves of a window; microseconds.
    """

    numbers: Mapping[str, float]
    congestion: str | None = None
    warnings: tuple[str, ...] = ()
    latency: tuple[tuple[float, float], ...] = ()
    halves: tuple[float, float] | None = None


@dataclass(frozen=True)
class Failure:
    """Why a pair has no numbers. `cause` is one of `experiments.validity.Cause`."""

    cause: Literal["result", "start", "streams", "traffic", "window"]
    text: str
    warnings: tuple[str, ...] = ()


class Traffic(BaseModel, ABC):
    """What the pairs of a run do; its fields are its options, each with a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    summary: ClassVar[str]

    @property
    @abstractmethod
    def kinds(self) -> tuple[Kind, ...]:
        """The kind of the replicas, then the kind of each pair that always runs beside them."""

    def pairs(self, replicas: int, count: int | None = None) -> dict[int, Kind]:
        """The kind of each pair of a stack, by index; those that run where `count` replicas do."""
        first, *beside = self.kinds
        running = range(1, (replicas if count is None else count) + 1)
        return {**dict.fromkeys(running, first), **dict(enumerate(beside, replicas + 1))}

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """What the ports of the servers carry."""
        return tuple(dict.fromkeys(one for kind in self.kinds for one in kind.protocols))

    @property
    def programs(self) -> dict[str, str]:
        """Program -> Debian package, of all kinds."""
        return {tool: package for kind in self.kinds for tool, package in kind.tools.items()}

    def __str__(self) -> str:
        """The shortest value of the key `traffic` that means this."""
        options = self.model_dump(exclude_defaults=True)
        words = ",".join(f"{name}={value}" for name, value in options.items())
        return f"{self.name}:{words}" if words else self.name


class Kind(Traffic):
    """One kind of traffic, the same on all pairs.

    `metrics` are the numbers of a valid pair; the first is never missing.
    """

    tools: ClassVar[Mapping[str, str]]  # program -> Debian package, for both sides
    image: ClassVar[str]  # key of the stack's `images`, folder of docker/
    metrics: ClassVar[tuple[str, ...]]
    most_streams: ClassVar[int] = MOST_STREAMS
    # Whether the server tolerates connections without data (probes) while it serves a client.
    tolerates_probes: ClassVar[bool] = True

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return (self,)

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """What the server's port carries; the server is ready when it listens with the first."""
        return ("TCP",)

    def lead(self, window: Window) -> float:
        """Seconds that the client is started before the traffic of all pairs begins."""
        del window
        return 0

    @abstractmethod
    def server(self, port: int) -> list[str]:
        """Command of the server: one process in the foreground, or the parent of all others."""

    @abstractmethod
    def client(self, host: str, port: int, window: Window) -> list[str]:
        """Command of the client, which ends by itself after the window."""

    def lasting(self, host: str, port: int, window: Window) -> list[str]:
        """Command of the client in an episode, where it runs until it is ended."""
        return self.client(host, port, window)

    @abstractmethod
    def parse(self, out: bytes, err: bytes, status: int, window: Window) -> Values | Failure:
        """The numbers of a client that ended, compared with the window that it was given."""


def lasted(seconds: float, window: Window) -> Failure | None:
    """A failure where the receiver's time differs from the window by 0.25 s and 10 %.

    iperf3's clock is late where all cores are busy; its rate is over the seconds that it had.
    """
    if abs(seconds - window.duration) <= 0.25 + 0.1 * window.duration:
        return None
    text = f"the receiver reports {seconds:.3f} s of traffic instead of {window.duration} s"
    return Failure("window", text)
