"""Clocks of other places: what a place that tells its time late may be off, and clocks that drift apart."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import pytest

from experiments.targets.kubernetes import clocks
from experiments.targets.kubernetes.clocks import Bounds
from experiments.targets.kubernetes.shell import Session, SshSession, SshShell
from infra.errors import PrerequisiteMissing
from infra.settings import Ssh


class Here:
    """Runs a node's commands on this machine."""

    def __str__(self) -> str:
        return "pod x"

    def start(self, words: Sequence[str]) -> Session:
        self.session = SshSession(SshShell("x", Ssh()), [sys.executable, *words[1:]], None)
        return self.session


def test_this_machine_s_own_clock_is_not_ahead() -> None:
    here = Here()
    with clocks.asked(here) as ask:
        first, second = ask(), ask()
    assert not here.session.running()
    for low, high in (first, second):
        assert low <= 0 <= high
        assert high - low < 0.5


class Late:
    """A clock that is `ahead` by so much; its answers take turns in how late they are."""

    def __init__(self, ahead: float, *lines: str) -> None:
        self.ahead = ahead
        self.lines = lines
        self.asked = 0

    def say(self, _: str) -> None:
        self.asked += 1
        late = 0.002 if self.asked == 7 else 0.02
        time.sleep(late)
        self.time = time.monotonic() + self.ahead
        time.sleep(late)

    def await_line(self, _: float) -> str:
        return f"{self.time:.9f}\n"


def test_the_quickest_answer_bounds_the_difference() -> None:
    found = clocks.ask(Late(-30.0), "pod x")  # type: ignore[arg-type]
    assert found.low <= 30 <= found.high
    assert found.high - found.low < 0.03


@pytest.mark.parametrize("line", ["", "Traceback", "nan", "1e400.0", "-3.5"])
def test_what_is_no_time_is_refused(line: str) -> None:
    session = Late(0)
    session.await_line = lambda _: line  # type: ignore[method-assign]
    with pytest.raises(PrerequisiteMissing, match="pod x: its clock cannot be read"):
        clocks.ask(session, "pod x")  # type: ignore[arg-type]


def test_two_clocks_are_as_unsure_as_both_answers_and_their_drift() -> None:
    """This machine is ahead of the first by 100 s, of the second by 30 s: the first is 70 s behind it."""
    node = [Bounds(99.999, 100.001)] * 2
    same = clocks.between(node, [Bounds(29.998, 30.002)] * 2)
    assert (same.offset, same.unsure) == pytest.approx((-70, 0.003))
    drifted = clocks.between(node, [Bounds(29.998, 30.002), Bounds(30.008, 30.012)])
    assert (drifted.offset, drifted.unsure) == pytest.approx((-69.995, 0.008))
