"""Ctrl-C and its kin while an engine works: asked to stop once, torn away the second time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def taken_by(stop: Callable[[], None]) -> Iterator[None]:
    """Inside, a signal calls `stop`, and what runs ends in order; then `KeyboardInterrupt` is raised.

    An exception out of a signal handler can come up anywhere, also where the SDK swallows it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        stop()
        if asked:
            raise KeyboardInterrupt
        asked = True

    # what is ignored stays ignored (nohup)
    before = {n: signal.getsignal(n) for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, ask)
        yield
    except Exception as error:
        if asked:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
