"""Records of schema 1 in the form of schema 2 (pure)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# The fields that documents of schema 1 do not have: of the record, a pair and a core.
SINCE_SCHEMA_2 = (
    {"traffic", "method", "metrics", "goodput", "datagrams", "received"},
    {"kind", "values", "latency", "halves", "server_node", "client_node"},
    {"side"},
)


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """A document of any known schema version in the form of the current one (pure).

    Values of an unexpected shape stay as they are; the model refuses them. Raises ValueError for a
    document of schema 1 with fields of schema 2: its values could have two meanings.
    """
    if document.get("schema_version") != 1:
        return document
    rows = ([document], document.get("pairs"), document.get("cores"))
    for place, new, found in zip(("", "pairs: ", "cores: "), SINCE_SCHEMA_2, rows, strict=True):
        for row in found if isinstance(found, list) else []:
            if isinstance(row, dict) and (mixed := sorted(new & row.keys())):
                raise ValueError(
                    f"{place}schema_version is 1, which has no {', '.join(mixed)}: the record is mixed"
                )
    return {
        **document,
        "schema_version": 2,
        "pairs": _each(document.get("pairs"), _pair_of_schema_1),
        "cores": _each(document.get("cores", []), _core_of_schema_1),
    }


def _each(rows: object, change: Callable[[dict[str, Any]], object]) -> object:
    if not isinstance(rows, list):
        return rows
    return [change(row) if isinstance(row, dict) else row for row in rows]


def _pair_of_schema_1(pair: dict[str, Any]) -> dict[str, Any]:
    measured = ("bitrate_mbps", "retransmits")
    rest = {name: value for name, value in pair.items() if name not in measured}
    return {"values": {name: pair[name] for name in measured if name in pair}, **rest}


def _core_of_schema_1(core: dict[str, Any]) -> dict[str, Any]:
    if "server" not in core:
        return core
    rest = {name: value for name, value in core.items() if name != "server"}
    sides = {True: "server", False: None}
    server = core["server"]
    return {"side": sides[server] if isinstance(server, bool) else server, **rest}
