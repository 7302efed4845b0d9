"""What the steered devices of a node, and its other tunnels, received between two answers of its agent (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from analysis.schema import Received


def arrived(
    node: str,
    before: Iterable[Mapping[str, Any]] = (),
    after: Iterable[Mapping[str, Any]] = (),
) -> list[Received]:
    """The differences of `device_counts`; without a device that was recreated in between."""
    first = {(row["namespace"], row["device"]): row for row in before}
    found = []
    for row in after:
        old = first.get((row["namespace"], row["device"]))
        if old is None:
            continue
        counts = {name: row[f"rx_{name}"] - old[f"rx_{name}"] for name in ("packets", "bytes")}
        if min(counts.values()) >= 0:
            one = Received(
                node=node,
                **{name: row[name] for name in ("role", "device", "pod", "steered")},
                **counts,
            )
            found.append(one)
    return found
