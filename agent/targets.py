"""The places of a plan on this machine: queues, devices, namespaces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.devices import Finder, meant
from agent.errors import BAD_PLAN, SteerError, Unsteerable
from agent.kernel_faults import RFS_TABLE, has_table_fault, table_fault_words
from agent.knobs import DEVICE, KNOBS, MACHINE, NAMESPACE, RX_QUEUE, TX_QUEUE
from agent.machine import Machine
from agent.namespaces import Held, Namespace, as_found, queue_number
from agent.patterns import is_pattern
from agent.plan import ROLES, Plan, Rule, Values, Wanted, reductions
from agent.settings import Setting
from agent.snapshot import Place
from agent.values import format_mask

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.namespaces import After
    from agent.snapshot import Key


# The lists of an answer, by the scope of their rows.
ROWS = {RX_QUEUE: "queues", TX_QUEUE: "queues", DEVICE: "devices", NAMESPACE: "namespaces"}


class Target(NamedTuple):
    """One place with its present and its wanted values."""

    rule: Rule | None  # None: of the machine
    named: str  # the device that matches the rule; the place is on it or on a lower device
    held: Held
    wanted: dict[str, Wanted]  # by knob

    def values(self) -> Iterator[tuple[Setting, str, str]]:
        """Each setting with its present and its wanted value."""
        for knob, wanted in self.wanted.items():
            yield self.held.settings[knob], self.held.values[knob], wanted.text

    def holding(self, stands: Mapping[Setting, str]) -> Target:
        """The target with the values after a commit."""
        new = {s.knob.name: stands.get(s, found) for s, found, _ in self.values()}
        held = self.held._replace(values={**self.held.values, **new})
        return self._replace(held=held)

    def row(self) -> dict[str, Any]:
        """A row of an answer: the place, its values, and the masks that had to be reduced."""
        row: dict[str, Any] = {
            "role": self.rule.role if self.rule else MACHINE,
            "pod": self.rule.pod if self.rule else None,
            **row_of(self.held),
        }
        if self.named != self.held.place.device:
            row["for"] = self.named
        for name, (text, asked, _) in self.wanted.items():
            if asked and format_mask(asked) != text:
                row[f"asked_{name}"] = format_mask(asked)
        return row


def row_of(held: Held) -> dict[str, Any]:
    """The values of a place, without fields that change when it is recreated."""
    namespace, device, queue = held.place.names
    row = {"device": device, "queue": queue}
    return {
        "namespace": namespace,
        **{name: value for name, value in row.items() if value},
        **{name: KNOBS[name].codec.as_json(text) for name, text in held.values.items()},
    }


def rows_of(rows: Iterable[tuple[Place, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of an answer, by kind of place."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS.values()}
    for place, row in rows:
        if place.scope in ROWS:
            found[ROWS[place.scope]].append(row)
    return found


def machine_row(values: Mapping[str, str]) -> dict[str, Any]:
    """The knobs of the machine; its flow table also by its first name, null where it is not known."""
    held = {name: KNOBS[name].codec.as_json(text) for name, text in values.items()}
    return {"sock_flow_entries": held.get("rps_sock_flow_entries"), "machine": held}


class Absent(NamedTuple):
    """A rule without a match, or a knob that the machine does not have, with the reason."""

    namespace: str | None
    words: str


def find_targets(
    machine: Machine,
    plan: Plan,
    wanted: Values,
    by_path: Mapping[str | None, Namespace],
    after: After = as_found,
) -> tuple[list[Target], list[Absent]]:
    """Every place of the plan, in order, and the rules that match none.

    `after` tells which value a knob will have that the plan does not set.
    """
    found: dict[Key, Target] = {}
    absent: list[Absent] = []
    finder = Finder(plan, by_path)
    for index, rule in enumerate(plan.rules):
        namespaces = meant(rule.namespace, by_path)
        if not namespaces and not (rule.optional and is_pattern(rule.namespace)):
            words = f"rules[{index}]: there is no namespace {rule.namespace}"
            absent.append(Absent(rule.namespace, words))
        for namespace in namespaces:
            devices = finder.chosen(namespace, rule)
            if not devices and not rule.optional:
                where = namespace.path or "this namespace"
                what = f"rules[{index}]: no {rule.role} device of {where}"
                has = ", ".join(namespace.devices()) or "only lo"
                words = f"{what} matches {', '.join(rule.devices)}; it has {has}"
                if "auto" in rule.devices and (lost := finder.lost(namespace)):
                    words += f", and no route to pod {', '.join(lost[:3])}"
                absent.append(Absent(rule.namespace, words))
            try:
                new = list(_of_rule(rule, namespace, devices, wanted.rules[index], after))
            except (OSError, SteerError) as error:
                raise Unsteerable(error, namespace.path) from None
            for one in new:
                target = found.setdefault(one.held.place.key, one)
                if target.wanted != one.wanted and target.rule:
                    twin = plan.rules.index(target.rule)
                    words = f"plan: rules[{twin}] and rules[{index}] want different values for"
                    words += f" {one.held.place}: change one of them so that it does not match"
                    raise SteerError(words, BAD_PLAN)
    targets = sorted(found.values(), key=_in_order)
    if plan.machine:
        held = machine.own(wanted.machine)
        missing = {n for n in wanted.machine if n not in held.values}
        absent += [
            Absent(None, f"the plan needs {held.settings[name].path}, which does not exist: "
            "run the agent in the first network namespace")
            for name in sorted(missing)
            if wanted.machine[name].text != KNOBS[name].absent
        ]  # fmt: skip
        there = {name: one for name, one in wanted.machine.items() if name not in missing}
        targets.append(Target(None, "", held, there))
    return targets, absent


def _of_rule(
    rule: Rule,
    namespace: Namespace,
    devices: Iterable[str],
    wanted: Mapping[str, Wanted],
    after: After,
) -> Iterator[Target]:
    """The places of a rule in one namespace: receiving queues and devices, the namespace itself."""
    scopes: dict[str, dict[str, Wanted]] = {}
    for name, value in wanted.items():
        scopes.setdefault(KNOBS[name].scope, {})[name] = value
    for named in devices:
        for device in namespace.receivers(named):
            for scope, values in scopes.items():
                if scope != NAMESPACE:
                    for held in namespace.holdings(device, scope, values, after):
                        number = queue_number(held.place.queue)
                        own = {name: wanted.of_queue(number) for name, wanted in values.items()}
                        yield Target(rule, named, held, own)
    if NAMESPACE in scopes and devices:
        yield Target(rule, "", namespace.own(scopes[NAMESPACE]), scopes[NAMESPACE])


def _in_order(target: Target) -> tuple[int, str, str, int]:
    rule, place = target.rule, target.held.place
    role = ROLES.index(rule.role) if rule else len(ROLES)
    return role, rule.namespace or "" if rule else "", place.device, queue_number(place.queue)


def report(machine: Machine, plan: Plan, targets: Sequence[Target]) -> dict[str, Any]:
    """The values of the plan's places, in a fixed order that is the same in each run."""
    warnings = reductions(plan, machine.cpus)
    release = machine.release()
    own: dict[str, str] = {}
    for target in targets:
        held, wanted = target.held.values, target.wanted
        if target.rule is None:
            own = {name: held[name] for name in wanted}
        if target.held.place.cookie.startswith("inode"):
            warnings.append(
                "before Linux 5.14 a recreated namespace cannot be distinguished from the old one"
            )
        sizes = [held.get(RFS_TABLE, "0"), wanted.get(RFS_TABLE, Wanted("0")).text]
        if any(map(int, sizes)) and has_table_fault(release):
            warnings.append(table_fault_words(release))
    return {
        "owner": plan.owner,
        "changed": 0,
        "boot_id": machine.boot_id,
        **machine_row(own),
        **rows_of((target.held.place, target.row()) for target in targets),
        "drift": [],
        "warnings": list(dict.fromkeys(warnings)),
    }
