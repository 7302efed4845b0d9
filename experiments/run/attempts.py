"""Attempts at a run: each has a record, and a sweep stops when its runs cannot succeed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.schema import Record
from experiments.validity import REMEDIES, Cause
from infra.errors import Refusal

ATTEMPTS = 2
STREAK = 3


class RunsInvalid(Refusal):
    """Too many runs in a row were invalid with one cause."""


class Streak:
    """Counts the invalid runs in a row with one cause."""

    def __init__(self) -> None:
        self._causes: dict[str, int] = {}

    def judge(self, record: Record) -> None:
        """Count a run's last attempt. Raises `RunsInvalid` at the third in a row."""
        causes = [] if record.valid else record.causes or record.reasons
        self._causes = {cause: self._causes.get(cause, 0) + 1 for cause in causes}
        for cause, count in self._causes.items():
            if count >= STREAK:
                raise RunsInvalid(in_a_row(cause, record))


def in_a_row(cause: str, record: Record) -> str:
    """The cause and its remedy (pure)."""
    text = next((text for text in record.reasons), cause)
    known = cause in {str(one) for one in Cause}
    remedy = f"; {REMEDIES[Cause(cause)]}" if known else ""
    return f"{STREAK} runs in a row are invalid with one cause ({cause}): {text}{remedy}"


def tried(
    attempt: Callable[[int], Sequence[Record]],
    first: int = 1,
    repair: Callable[[], None] = lambda: None,
) -> Sequence[Record]:
    """The last attempt's records: the first with one that is valid, else the last one allowed."""
    records = attempt(first)
    for number in range(first + 1, first + ATTEMPTS):
        if any(record.valid for record in records):
            break
        repair()
        records = attempt(number)
    return records
