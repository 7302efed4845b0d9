"""Commands that people are shown: words -> a line that their shell takes back."""

from __future__ import annotations

from shlex import quote

PROGRAM = "./steerlab"


def command(*words: object) -> str:
    """`./steerlab destroy -s rps-4`, each word quoted where a shell needs it.

    Whoever shows it elsewhere than in the project's folder names the program by its path
    (`experiments.cli.terminal`).
    """
    return f"{PROGRAM} {quoted(*words)}"


def quoted(*words: object) -> str:
    """Words as a shell takes them."""
    return " ".join(quote(str(word)) for word in words)
