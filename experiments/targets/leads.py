"""The common start of clients that need different times before their traffic begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable


def start(clients: Iterable[tuple[float, Callable[[], object]]]) -> float:
    """Start each client so many seconds before the others' traffic; returns the time of that.

    In monotonic seconds, with those of the longest lead at once.
    """
    ordered = sorted(clients, key=lambda one: -one[0])
    begin = time.monotonic() + max((lead for lead, _ in ordered), default=0)
    for lead, started in ordered:
        time.sleep(max(0.0, begin - lead - time.monotonic()))
        started()
    return begin
