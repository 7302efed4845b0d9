"""Commands in messages: words -> a line that can be pasted into a shell."""

from __future__ import annotations

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
