"""Refusals: why nothing was done, with the exit code of each, also through an engine.

An engine reports a failed command as text. So that no code has to be read out of prose, whoever
starts an engine names a file in the environment, and a command of the stack (the program, the node
agent, `./steerlab hook`) that refuses leaves its exit code there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FAILED, BAD_INPUT, CANNOT = 1, 2, 3
# Also in agent/cli.py, which imports nothing of the project.
VARIABLE = "STEERLAB_REFUSALS"


class Refusal(Exception):
    """A clear no; `exit_code` is what the command line ends with."""

    exit_code = FAILED


class InvalidInput(Refusal):
    """The user's words are off; the message names the key, the value and what is allowed."""

    exit_code = BAD_INPUT


class PrerequisiteMissing(Refusal):
    """This machine or cluster cannot; the message names what is missing and how to get it."""

    exit_code = CANNOT


def leave(code: int) -> None:
    """Leave a refusal's exit code for whoever started the engine; nothing where nobody asked."""
    path = os.environ.get(VARIABLE)
    if path and code in (BAD_INPUT, CANNOT):
        with suppress(OSError):
            # the file must be there: a stray variable makes none
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{code}\n")


@contextmanager
def collected() -> Iterator[Callable[[], int]]:
    """Have the commands of an engine leave their refusals; the function gives the first one's code.

    It is 1 where there is none: the engine then failed for another reason.
    """
    before = os.environ.get(VARIABLE)
    with tempfile.NamedTemporaryFile("r", prefix="steerlab-refusals-") as file:
        os.environ[VARIABLE] = file.name
        try:
            yield lambda: _first_code(Path(file.name).read_text())
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


def _first_code(text: str) -> int:
    codes = text.split()
    return int(codes[0]) if codes else FAILED
