"""The commands that apply a measured configuration to a node, or the reason if there are none."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.schema import Record
from experiments.run.plan import SweepPlan
from infra import configurations
from infra.commands import command
from infra.errors import InvalidInput


def commands(winner: str, records: Iterable[Record], plan: SweepPlan | None) -> str:
    """The lines that apply a configuration and restore the node, or a comment with the reason
    why its name may not mean what was measured."""
    own = plan.own if plan else ""
    reason = _reason(winner, records, plan, own)
    if reason:
        return f"# no command: {reason}"
    keep = command("nodes", "apply", winner, *(["--own", own] if own else []), "--persist")
    undo = command("nodes", "restore")
    width = max(len(keep), len(undo))
    return (
        f"{keep:<{width}}   # on each node, also after reboots\n"
        f"{undo:<{width}}   # restore the values of before"
    )


def _reason(winner: str, records: Iterable[Record], plan: SweepPlan | None, own: str) -> str:
    """Why the name may not mean what was measured; empty if it does."""
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
        return "the records have no definition of the configuration"
    if known != {current.definition}:
        return f"{winner} in {where} differs from what was measured"
    return ""
