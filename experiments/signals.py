"""SIGINT, SIGTERM, SIGHUP: the first ends the work in order; others do not break the clean-up.

Commands run in sessions of their own (`apart`): a terminal signals our whole process group.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import AnyStr

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Number of further signals that end the ending or the clean-up.
GIVE_UP = 3


@dataclass
class _Engine:
    """Running work that is stopped by a call, because an exception could be raised anywhere in it."""

    stop: Callable[[], None]
    asked: bool = False


@dataclass
class _State:
    interrupted: bool = False
    cleaning: int = 0
    presses: int = 0
    engines: list[_Engine] = field(default_factory=list)


_state = _State()


def install() -> None:
    """Install the handlers; ignored signals stay ignored (nohup)."""
    global _state
    _state = _State()
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def ignore() -> None:
    """Ignore further signals, at the end of the process."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Let a signal call `stop` within the block; `KeyboardInterrupt` is raised at its end."""
    engine = _Engine(stop)
    with _handled():
        _state.engines.append(engine)
        try:
            yield
        except Exception as error:
            if engine.asked:
                raise KeyboardInterrupt from error
            raise
        finally:
            _state.engines.remove(engine)
    if engine.asked:
        raise KeyboardInterrupt


@contextmanager
def cleaning() -> Iterator[None]:
    """Within the block, `GIVE_UP` signals are needed to interrupt; each gets a message.

    Where the very first signal comes here, `KeyboardInterrupt` is raised at the end.
    """
    with _handled():
        before = _state.interrupted
        _state.cleaning += 1
        _state.presses = 0
        try:
            yield
        finally:
            _state.cleaning -= 1
    if _state.interrupted and not before:
        raise KeyboardInterrupt


def apart(start: Callable[[], subprocess.Popen[AnyStr]]) -> subprocess.Popen[AnyStr]:
    """A process that `start` starts in a session of its own, out of reach of signals to our group.

    Until its session begins, a child is in our group. A signal then ends it before it has run
    anything, and it is started again.
    """
    while True:
        process = start()
        if not _ended_before_its_program(process):
            return process
        with process:  # closes its pipes
            pass


def _ended_before_its_program(process: subprocess.Popen[AnyStr]) -> bool:
    """`Popen` has returned: the child runs its program, or a signal to our group ends it.

    A process that ends has no command line (proc(5)), and one that begins its program has none yet.
    """
    if os.getsid(process.pid) != process.pid:
        return True
    words = Path("/proc", str(process.pid), "cmdline")
    while sys.platform == "linux" and not words.read_bytes():
        if process.poll() is not None:
            return -process.returncode in NUMBERS
        time.sleep(0.0001)
    return False


@contextmanager
def _handled() -> Iterator[None]:
    """Handle signals within the block, also where the command line has not installed the handlers."""
    foreign = {
        number: handler
        for number in NUMBERS
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, _handle)
    }
    if not foreign or threading.current_thread() is not threading.main_thread():
        yield
        return
    install()
    try:
        yield
    finally:
        for number, handler in foreign.items():
            signal.signal(number, handler)


def _handle(_number: int, _frame: FrameType | None) -> None:
    patient = _state.interrupted or _state.cleaning
    _state.interrupted = True
    if patient:
        _state.presses += 1
        if _state.presses < GIVE_UP:
            _tell(GIVE_UP - _state.presses)
            return
        _state.presses = 0
    engine = _state.engines[-1] if _state.engines else None
    again = engine is None or engine.asked
    if engine is not None:
        engine.asked = True
        engine.stop()
    if again:
        raise KeyboardInterrupt


def _tell(left: int) -> None:
    """Written to the descriptor: the interrupted code may hold the stream's lock."""
    doing = "cleaning up" if _state.cleaning else "stopping"
    times = "once more" if left == 1 else f"{left} more times"
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    text = f"{clear}steerlab: {doing}; press Ctrl-C {times} to give up\n"
    try:
        os.write(2, text.encode())
    except OSError:  # the terminal is gone
        return
