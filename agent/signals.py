"""Signals: handled only between operations, never in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.errors import SteerError


class Signals:
    """Records signals; `check` raises between operations."""

    ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.then: Callable[[], None] = lambda: None  # called by the handler
        self._at_once = False
        for number in self.ALL:
            signal.signal(number, lambda number, _: self._catch(number))

    def _catch(self, number: int) -> None:
        self.caught.append(number)
        self.then()
        if self._at_once:
            self.check()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block at once; the block may wait long and changes nothing."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def check(self) -> None:
        for number in self.caught:
            raise SteerError(f"interrupted by {signal.Signals(number).name}", 128 + number)

    def wait(self, seconds: float) -> None:
        """Sleep; a signal ends the sleep."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self.ALL)
        got = signal.sigtimedwait(self.ALL, seconds)
        if got:
            self.caught.append(got.si_signo)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.ALL)

    def ignore(self) -> None:
        """Ignore further signals: Python resets handlers at exit, and the exit status must stay."""
        for number in self.ALL:
            signal.signal(number, signal.SIG_IGN)
