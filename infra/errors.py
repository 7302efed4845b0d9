"""Refusals: why nothing was done, with the exit code of each, also through an engine.

An engine reports a failed command as text. So that no code has to be read out of prose, whoever
starts an engine names a file in the environment, and a command of the stack (the program, the node
agent, `./steerlab hook`) that refuses leaves its exit code there. Notes of commands that succeed are
passed on in the same way.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FAILED, BAD_INPUT, CANNOT = 1, 2, 3
# Also in agent/cli.py, which imports nothing of the project.
VARIABLE, NOTES = "STEERLAB_REFUSALS", "STEERLAB_NOTES"


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
    """Leave a refusal's exit code for the process that started the engine, if one did."""
    if code in (BAD_INPUT, CANNOT):
        _append(VARIABLE, str(code))


def leave_notes(notes: Iterable[str]) -> None:
    """Leave what a user must read although nothing failed: an engine drops the text of a success."""
    for note in notes:
        _append(NOTES, " ".join(note.split()))


def _append(variable: str, line: str) -> None:
    path = os.environ.get(variable)
    if path:
        with suppress(OSError):
            # the file must exist: a stray variable creates none
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{line}\n")


@contextmanager
def collected() -> Iterator[Callable[[], int]]:
    """Have the commands of an engine leave their refusals; the function gives the first one's code.

    It is 1 where there is none: the engine then failed for another reason.
    """
    with _named(VARIABLE) as path:
        yield lambda: _first_code(path.read_text())


@contextmanager
def noted() -> Iterator[Callable[[], list[str]]]:
    """Have the commands of an engine leave their notes; the function gives them."""
    with _named(NOTES) as path:
        yield lambda: list(dict.fromkeys(path.read_text(errors="replace").splitlines()))


@contextmanager
def _named(variable: str) -> Iterator[Path]:
    """A file that a variable of the environment names while the block runs."""
    before = os.environ.get(variable)
    with tempfile.NamedTemporaryFile("r", prefix="steerlab-") as file:
        os.environ[variable] = file.name
        try:
            yield Path(file.name)
        finally:
            if before is None:
                del os.environ[variable]
            else:
                os.environ[variable] = before


def _first_code(text: str) -> int:
    codes = text.split()
    return int(codes[0]) if codes else FAILED
