"""Running commands and waiting for them, with words that say what failed where."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class RigError(Exception):
    """The rig could not do what was asked; the message says what was wrong and where."""


def run(*words: str | Path, text: str | None = None, timeout: float = 120) -> str:
    """Run one command and give its standard output; `text` is its standard input.

    `timeout` is in seconds. Raises `RigError` with the command's own words where it fails.
    """
    return finished([str(word) for word in words], text, timeout)


def finished(words: Sequence[str], text: str | None, timeout: float) -> str:
    try:
        done = subprocess.run(
            words,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RigError(f"no answer in {timeout:g} s from: {_short(words)}") from None
    except FileNotFoundError:
        raise RigError(f"not installed: {words[0]}") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise RigError(f"exit {done.returncode} of {_short(words)}: {said}")
    return done.stdout


def _short(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) <= 300 else line[:300] + " ..."


def wait_until(what: str, ready: Callable[[], bool], seconds: float, pause: float = 0.05) -> None:
    """Ask `ready` until it says yes; raises `RigError` naming `what` after so many seconds."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise RigError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(pause)
