"""The commands that set measured configurations on nodes and undo it, or the reason if there are none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.report.answer import Command, Commands
from analysis.schema import Record
from experiments.host import daemonset
from experiments.run.plan import SweepPlan
from infra import config, configurations
from infra.commands import command, quoted
from infra.errors import InvalidInput
from infra.settings import Kubernetes

# Of a trial of one node.
TRIAL = "2h"


def commands(names: Sequence[str], records: Sequence[Record], plan: SweepPlan | None) -> Commands:
    """The commands for the nodes of the records' target: those that set each of `names`, then undo.

    Without names there is nothing to set, and the undo command is the only one. A name that may
    not mean what was measured has no command.
    """
    own = plan.own if plan else ""
    for name in names:
        reason = _reason(name, records, own, plan)
        if reason:
            return Commands(reason=f"There is no command that sets {name}: {reason}.")
    if records[0].target != "kubernetes":
        return _of_node(names, own)
    try:
        return _of_cluster(names, plan, own)
    except InvalidInput as error:
        return Commands(reason=f"There is no command for this cluster: {error}.")


def _of_node(names: Sequence[str], own: str) -> Commands:
    """Commands for one node, as root on it."""
    file = ["--own", own] if own else []
    lines = []
    for name in names:
        what = _it(name, names)
        trial = command("nodes", "apply", name, *file, "--lease", TRIAL)
        keep = command("nodes", "apply", name, *file, "--persist")
        lines.append(Command(f"Try {what} on a node, for {TRIAL}", trial))
        lines.append(Command(f"Keep {what}, also after reboots", keep))
    undo = "Undo, on each node" if names else "Restore a node that is already steered"
    return Commands((*lines, Command(undo, command("nodes", "restore"))))


def _of_cluster(names: Sequence[str], plan: SweepPlan | None, own: str) -> Commands:
    """Commands for all nodes of a cluster, by a DaemonSet."""
    file = ["--own", own] if own else []
    cluster = _cluster(plan)
    image = cluster.images.steering if cluster.images else "IMAGE"
    if cluster.nic != "auto":
        file += ["--nic", cluster.nic]
    if cluster.overlay_device != "auto":
        file += ["--overlay", cluster.overlay_device]
    where = [
        word
        for flag, value in (("--kubeconfig", cluster.kubeconfig), ("--context", cluster.context))
        if value
        for word in (flag, value)
    ]
    kubectl = quoted("kubectl", *where)
    lines = [
        Command(
            f"Set {_it(name, names)} on all nodes, also on new ones",
            f"{command('nodes', 'apply', name, *file, '--print', 'daemonset', '--image', image)}"
            f" | {kubectl} apply -f -",
        )
        for name in names
    ]
    undo = "Undo, on all nodes" if names else "Restore nodes that are already steered"
    delete = quoted("delete", "namespace", daemonset.NAME, "--ignore-not-found")
    return Commands((*lines, Command(undo, f"{kubectl} {delete}")))


def _it(name: str, names: Sequence[str]) -> str:
    return name if len(names) > 1 else "it"


def _cluster(plan: SweepPlan | None) -> Kubernetes:
    """The settings of the sweep's cluster; the defaults without a plan."""
    if plan is None:
        return Kubernetes()
    return config.state("report", plan.stack(plan.configurations[0], 1, "overlay")).kubernetes


def _reason(name: str, records: Iterable[Record], own: str, plan: SweepPlan | None) -> str:
    """Why the name may not mean what was measured; empty if it does."""
    measured = {record.definition for record in records if record.configuration == name}
    measured.add(dict(plan.definitions).get(name) if plan else None)
    known = measured - {None}
    try:
        current = configurations.load(own or None).get(name)
    except InvalidInput as error:
        return str(error)
    where = own or "the built-in configurations"
    if current is None:
        return f"the configuration is not in {where}"
    if not known:
        return "the records have no definition of the configuration"
    if known != {current.definition}:
        return f"{name} in {where} differs from what was measured"
    return ""
