"""Errors of the agent, with the exit status of each, and errors in words."""

from __future__ import annotations

FAILED, BAD_PLAN, CANNOT = 1, 2, 3


class SteerError(Exception):
    """Ends a verb, with an exit status; the message contains the fault, its place and the remedy."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Unsteerable(SteerError):
    """A namespace in which a plan failed; everything is as it was before."""

    def __init__(self, error: OSError | SteerError, namespace: str | None) -> None:
        super().__init__(explain(error), getattr(error, "status", FAILED))
        self.namespace = namespace


class Gone(SteerError):
    """A file or its device disappeared."""


def shortened(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def explain(error: BaseException) -> str:
    """An error in words that name its file."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + (error.strerror or repr(error))
    return str(error) if isinstance(error, SteerError) else repr(error)
