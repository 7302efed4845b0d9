"""The commands that keep what was measured on a node, or why there are none."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.schema import Record
from experiments.run.plan import SweepPlan
from infra import configurations
from infra.commands import command
from infra.errors import InvalidInput


def commands(winner: str, records: Iterable[Record], plan: SweepPlan | None) -> str:
    """The lines that apply a configuration and restore the node; without a hash of what was
    measured, or with another one, the reason why there are none, as a comment."""
    own = plan.own if plan else ""
    reason = _reason(winner, records, plan, own)
    if reason:
        return f"# no command: {reason}"
    keep = command("nodes", "apply", winner, *(["--own", own] if own else []), "--persist")
    undo = command("nodes", "restore")
    width = max(len(keep), len(undo))
    return (
        f"{keep:<{width}}   # on each node, over reboots\n"
        f"{undo:<{width}}   # and back to exactly what it was"
    )


def _reason(winner: str, records: Iterable[Record], plan: SweepPlan | None, own: str) -> str:
    """Why the name would not apply what was measured; empty where it does."""
    measured = {record.definition for record in records if record.configuration == winner}
    measured.add(dict(plan.definitions).get(winner) if plan else None)
    known = measured - {None}
    try:
        current = configurations.load(own or None).get(winner)
    except InvalidInput as error:
        return str(error)
    where = own or "the built-in configurations"
    if current is None:
        return f"the configuration is not in {where}"
    if not known:
        return "the records do not say what the configuration's name stood for"
    if known != {current.definition}:
        return f"{where} define {winner} otherwise than it was measured"
    return ""
