"""The contract of a kind of traffic: commands of a pair, and the parser of their output (pure)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

# The first port of the servers.
PORT = 5201
# Seconds that a client may take to end after its last second of traffic.
GRACE_S = 10


class Window(Protocol):
    """Length of a run and number of connections; seconds are whole."""

    @property
    def duration(self) -> int: ...

    @property
    def omit(self) -> int: ...

    @property
    def streams(self) -> int: ...


@dataclass(frozen=True)
class Values:
    """Numbers of one pair by the names of `analysis/metrics.py`, in their units."""

    numbers: Mapping[str, float]
    congestion: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a pair has no numbers. `cause` is one of `experiments.validity.Cause`."""

    cause: Literal["result", "start", "streams", "traffic", "window"]
    text: str
    warnings: tuple[str, ...] = ()


class Traffic(BaseModel, ABC):
    """One kind of traffic; its fields are its options, each with a default.

    A run may have pairs of different kinds: everything that starts, drives or reads a pair takes
    the kind of that pair. `metrics` are the numbers of a valid pair; the first is never missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    summary: ClassVar[str]
    tools: ClassVar[Mapping[str, str]]  # program -> Debian package, for both sides
    image: ClassVar[str]  # key of the stack's `images`, folder of docker/
    # What the server's port carries. A server is ready when it listens on the port with TCP.
    protocols: ClassVar[tuple[Literal["TCP", "UDP"], ...]] = ("TCP",)
    metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def server(self, port: int) -> list[str]:
        """Command of the server: one process in the foreground, or the parent of all others."""

    @abstractmethod
    def client(self, host: str, port: int, window: Window) -> list[str]:
        """Command of the client, which ends by itself after the window."""

    @abstractmethod
    def parse(self, out: bytes, err: bytes, status: int, window: Window) -> Values | Failure:
        """The numbers of a client that ended, compared with the window that it was given."""

    def __str__(self) -> str:
        """The shortest value of the key `traffic` that means this."""
        options = self.model_dump(exclude_defaults=True)
        words = ",".join(f"{name}={value}" for name, value in options.items())
        return f"{self.name}:{words}" if words else self.name


def lasted(seconds: float, window: Window) -> Failure | None:
    """A failure where the receiver's time differs from the window by 0.25 s and 10 %.

    iperf3's clock is late where all cores are busy; its rate is over the seconds that it had.
    """
    if abs(seconds - window.duration) <= 0.25 + 0.1 * window.duration:
        return None
    text = f"the receiver reports {seconds:.3f} s of traffic instead of {window.duration} s"
    return Failure("window", text)
