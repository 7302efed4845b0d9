"""Whether a run counts: what is found against it while it is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from experiments.validity import Cause, Reason
from infra.errors import Refusal

T = TypeVar("T")


@dataclass
class Verdict:
    """Whether a run counts, and why not."""

    reasons: list[Reason] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attempt(self, cause: Cause, what: str, read: Callable[[], T], otherwise: T) -> T:
        """The result of `read`; any error makes the run invalid and gives `otherwise`."""
        try:
            return read()
        except Exception as error:  # a lost connection may raise anything
            self.reasons.append(Reason(cause, f"{what}: {in_words(error)}"))
            return otherwise

    def add(self, found: Sequence[Reason | str]) -> None:
        for one in found:
            if isinstance(one, Reason):
                self.reasons.append(one)
            else:
                self.warnings.append(one)


def in_words(error: Exception) -> str:
    """The text of an error, with its type unless it is one of this project."""
    return str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
