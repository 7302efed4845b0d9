"""The monotonic clocks of pods and nodes: how they relate to each other, asked before and after an episode."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, TypeVar

from experiments.targets.kubernetes.shell import Session, Shell
from experiments.targets.roundtrips import Clock
from infra.errors import PrerequisiteMissing

T = TypeVar("T")

TELL = "import sys, time\nfor _ in sys.stdin: print(f'{time.monotonic():.9f}', flush=True)"
_QUESTIONS = 20
# Timeout of an answer, seconds.
_ANSWER_S = 5.0


class Bounds(NamedTuple):
    """The least and the most by which this machine's clock is ahead of another one, seconds."""

    low: float
    high: float


@contextmanager
def compared(here: Shell, places: Mapping[T, Shell]) -> Iterator[Callable[[], dict[T, Clock]]]:
    """A call at the end of an episode: how the clock of each of these places relates to that of `here`.

    Both are asked at the begin and at the end.
    """
    with ExitStack() as stack:
        shells = [here, *places.values()] if places else []
        ask = [stack.enter_context(asked(shell)) for shell in shells]
        before = [one() for one in ask]

        def end() -> dict[T, Clock]:
            both = [(first, one()) for first, one in zip(before, ask, strict=True)]
            return {
                place: between(both[0], own) for place, own in zip(places, both[1:], strict=True)
            }

        yield end


@contextmanager
def asked(shell: Shell) -> Iterator[Callable[[], Bounds]]:
    """A call that asks a place for its time. It raises `PrerequisiteMissing` where there is no answer."""
    session = shell.start(("python3", "-I", "-c", TELL))
    try:
        yield lambda: ask(session, str(shell))
    finally:
        session.close()


def ask(session: Session, where: str) -> Bounds:
    """From the quickest of several answers."""
    found = []
    for _ in range(_QUESTIONS):
        before = time.monotonic()
        session.say("")
        line = session.await_line(_ANSWER_S)
        after = time.monotonic()
        if not re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,12}", line.strip()):
            raise PrerequisiteMissing(f"{where}: its clock cannot be read: {line[:100]!r}")
        there = float(line)
        found.append(Bounds(before - there, after - there))
    return min(found, key=lambda one: one.high - one.low)


def between(here: Sequence[Bounds], there: Sequence[Bounds]) -> Clock:
    """How the clock `there` relates to the clock `here`, each asked at the begin and at the end (pure).

    It is as unsure as both answers together, and as clocks may have drifted apart meanwhile.
    """
    parts = [(b.low - a.high, b.high - a.low) for a, b in zip(here, there, strict=True)]
    low, high = min(low for low, _ in parts), max(high for _, high in parts)
    return Clock((low + high) / 2, (high - low) / 2)
