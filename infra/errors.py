"""Refusals: reasons why nothing was done, each with an exit code, also across an engine.

An engine reports a failed command as text. To keep the exit code, the caller of an engine sets an
environment variable with the path of a file. A command of the stack (the program, the node agent,
`./steerlab hook`) that refuses writes its exit code to this file. Notes of successful commands use a
second file in the same way.
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
    """A refusal; `exit_code` is that of the command line."""

    exit_code = FAILED


class InvalidInput(Refusal):
    """Invalid input; the message names the key, the value and the allowed values."""

    exit_code = BAD_INPUT


class PrerequisiteMissing(Refusal):
    """This machine or cluster lacks something; the message names it and the remedy."""

    exit_code = CANNOT


def leave(code: int) -> None:
    """Write a refusal's exit code for the caller of the engine, if there is one."""
    if code in (BAD_INPUT, CANNOT):
        _append(VARIABLE, str(code))


def leave_notes(notes: Iterable[str]) -> None:
    """Write a note for the user, because an engine drops the output of a success."""
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
    """Collect the refusals of an engine's commands; the function returns the first exit code.

    It is 1 if there is none: the engine then failed for another reason.
    """
    with _named(VARIABLE) as path:
        yield lambda: _first_code(path.read_text())


@contextmanager
def noted() -> Iterator[Callable[[], list[str]]]:
    """Collect the notes of an engine's commands; the function returns them."""
    with _named(NOTES) as path:
        yield lambda: list(dict.fromkeys(path.read_text(errors="replace").splitlines()))


@contextmanager
def _named(variable: str) -> Iterator[Path]:
    """A file whose path is in an environment variable while the block runs."""
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
