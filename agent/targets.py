"""What a plan means on this machine, queue by queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.errors import BAD_PLAN, SteerError, Unsteerable
from agent.kernel_faults import has_table_fault, table_fault_words
from agent.knobs import KNOBS
from agent.machine import Machine
from agent.namespaces import Namespace, queue_number
from agent.patterns import is_like, is_pattern
from agent.plan import ROLES, Plan, Rule, asked_masks, reductions
from agent.settings import Setting
from agent.snapshot import Queue
from agent.values import format_mask

if TYPE_CHECKING:  # Python 3.8 reads such types only where it need not evaluate them
    from agent.snapshot import Key


class Target(NamedTuple):
    """One queue: what it holds, and what it is to hold."""

    rule: Rule
    named: str  # the device that the rule means; the queue is its own, or of one below it
    entry: Queue
    directory: Path
    wanted: dict[str, str]  # by knob

    def values(self) -> Iterator[tuple[Setting, str, str]]:
        """Each of its settings, found and wanted."""
        entry = self.entry
        for knob, wanted in self.wanted.items():
            setting = Setting(self.directory / knob, str(entry), entry.inode, entry.ifindex)
            yield setting, entry.values[knob], wanted

    def holding(self, stands: Mapping[Setting, str]) -> Target:
        """With what its settings hold after a commit."""
        new = {s.path.name: stands.get(s, found) for s, found, _ in self.values()}
        return self._replace(entry=self.entry._replace(values={**self.entry.values, **new}))


def meant(path: str | None, by_path: Mapping[str | None, Namespace]) -> list[Namespace]:
    """The namespaces of a rule's path or pattern."""
    if path is None or not is_pattern(path):
        return [by_path[path]] if path in by_path else []
    return [ns for known, ns in by_path.items() if known and is_like(known, path)]


def named_elsewhere(plan: Plan, rule: Rule) -> set[str]:
    rules = (r for r in plan.rules if r is not rule and r.namespace == rule.namespace)
    return {name for other in rules for name in other.devices}


def other_overlays(plan: Plan, by_path: Mapping[str | None, Namespace]) -> list[str]:
    """Of which overlays `auto` took one, and which it left out."""
    words = []
    for rule in plan.rules:
        if "auto" not in rule.devices or rule.role not in ("nic", "overlay"):
            continue
        named = {*rule.devices, *named_elsewhere(plan, rule)}
        for namespace in meant(rule.namespace, by_path):
            overlays = namespace.overlays(namespace.devices())
            others = [
                f"{name} ({'up' if namespace.is_up(name) else 'down'})"
                for name in overlays[1:]
                if name not in named
            ]
            if others:
                words.append(
                    f"the overlay of {namespace} is {overlays[0]} by auto, {', '.join(others)} left "
                    "out: name the device if another is meant"
                )
    return list(dict.fromkeys(words))


def find_targets(
    plan: Plan, wanted: Sequence[dict[str, str]], by_path: Mapping[str | None, Namespace]
) -> tuple[list[Target], list[tuple[Rule, str]]]:
    """Every queue that the plan means, in order, and the rules that mean none, with why."""
    found: dict[Key, Target] = {}
    absent: list[tuple[Rule, str]] = []
    for index, rule in enumerate(plan.rules):
        namespaces = meant(rule.namespace, by_path)
        if not namespaces and not (rule.optional and is_pattern(rule.namespace)):
            absent.append((rule, f"rules[{index}]: there is no namespace {rule.namespace}"))
        for namespace in namespaces:
            named = named_elsewhere(plan, rule) if "auto" in rule.devices else ()
            devices = namespace.chosen(rule, named)
            if not devices and not rule.optional:
                where = namespace.path or "this namespace"
                what = f"rules[{index}]: no {rule.role} device of {where}"
                has = ", ".join(namespace.devices()) or "only lo"
                absent.append((rule, f"{what} matches {', '.join(rule.devices)}; it has {has}"))
            try:
                queues = list(namespace.steered(devices, _by_scope(wanted[index])))
            except (OSError, SteerError) as error:
                raise Unsteerable(error, namespace.path) from None
            for name, entry, directory in queues:
                values = _by_scope(wanted[index])[entry.scope]
                target = found.setdefault(
                    entry.keys[0], Target(rule, name, entry, directory, values)
                )
                if target.wanted != values:
                    twin = plan.rules.index(target.rule)
                    words = f"plan: rules[{twin}] and rules[{index}] want different values for"
                    raise SteerError(f"{words} {entry}: let only one of them match it", BAD_PLAN)
    return sorted(found.values(), key=_in_order), absent


def _by_scope(wanted: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What a rule wants of the queues of each direction."""
    scopes: dict[str, dict[str, str]] = {}
    for name, value in wanted.items():
        scopes.setdefault(KNOBS[name].scope, {})[name] = value
    return scopes


def _in_order(target: Target) -> tuple[int, str, str, int]:
    rule, entry = target.rule, target.entry
    role = ROLES.index(rule.role)
    return role, rule.namespace or "", entry.device, queue_number(entry.queue)


def values_of(entry: Queue) -> dict[str, Any]:
    hidden = (
        "cookie",
        "ifindex",
        "inode",
        "values",
    )  # or they differ from one recreation to the next
    row = {name: value for name, value in entry._asdict().items() if name not in hidden}
    held = entry.values.items()
    return {**row, **{n: v if KNOBS[n].codec.is_mask else int(v) for n, v in held}}


def report(
    machine: Machine, plan: Plan, targets: Iterable[Target], table: str | None
) -> dict[str, Any]:
    """What stands, in the order of the plan; nothing in it differs from run to run."""
    queues, warnings = [], []
    release = machine.release()
    warnings += reductions(plan, machine.cpus)
    asked = dict(zip(map(id, plan.rules), asked_masks(plan, machine.cpus)))
    for rule, named, entry, _, wanted in targets:
        row: dict[str, Any] = {"role": rule.role, "pod": rule.pod, **values_of(entry)}
        if named != entry.device:
            row["for"] = named
        for name in wanted:
            mask = asked[id(rule)].get(name, 0)
            if mask & machine.cpus.unusable:
                row[f"asked_{name}"] = format_mask(mask)
        queues.append(row)
        if entry.cookie.startswith("inode"):
            warnings.append("before Linux 5.14 a recreated namespace may pass for the old one")
        if has_table_fault(release) and any(
            int(values.get("rps_flow_cnt", 0)) for values in (wanted, entry.values)
        ):
            warnings.append(table_fault_words(release))
    table = table if plan.sock_flow_entries is not None else None
    return {
        "owner": plan.owner,
        "changed": 0,
        "boot_id": machine.boot_id,
        "sock_flow_entries": None if table is None else int(table),
        "queues": queues,
        "drift": [],
        "warnings": list(dict.fromkeys(warnings)),
    }
