"""Commands in messages: words -> a line that can be pasted into a shell; how a command ended (pure)."""

from __future__ import annotations

import signal
from contextlib import suppress
from shlex import quote

PROGRAM = "./steerlab"


def command(*words: object) -> str:
    """`./steerlab destroy -s rps-4`, words quoted where a shell needs it.

    Outside the project's folder, `experiments.cli.terminal` replaces the program by its path.
    """
    return f"{PROGRAM} {quoted(*words)}"


def quoted(*words: object) -> str:
    """Words quoted for a shell."""
    return " ".join(quote(str(word)) for word in words)


def how_ended(status: int) -> str:
    """`exit status 3`, or `ended by SIGKILL`.

    The status of a signal is its negative number where the process was a child, and its number plus
    128 where a shell or a container reports it.
    """
    with suppress(ValueError):
        return f"ended by {signal.Signals(-status if status < 0 else status - 128).name}"
    return f"exit status {status}" if status >= 0 else f"ended by signal {-status}"
