"""The plan: all steering that one owner wants, as JSON (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from agent.cpus import Cpus
from agent.errors import BAD_PLAN, CANNOT, SteerError, shortened
from agent.fields import Field, each, like, read_fields, whole
from agent.knobs import DEVICE, KNOBS, MACHINE, NAMESPACE, RX_QUEUE, TX_QUEUE, of_scope
from agent.values import WORDS, as_list, cpus_of, format_mask, mask_of, parse_mask, place

ROLES = ("nic", "overlay", "veth", "pod")
OF_RULES = (RX_QUEUE, TX_QUEUE, DEVICE, NAMESPACE)  # the scopes of the knobs that a rule may set
MAX_RULES = 10_000
POD = "pod:"  # instead of a path: the network namespace of the pod with this uid
POD_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"
# Keys of the first version and the knobs that they mean: of a rule, and of the plan.
ALIASES = {"cpus": "rps_cpus", "flows": "rps_flow_cnt"}
MACHINE_ALIASES = {"sock_flow_entries": "rps_sock_flow_entries"}


def _knob_fields(scopes: Iterable[str]) -> dict[str, Field]:
    return {k.name: Field(k.codec.check, k.codec.words, nullable=True) for k in of_scope(*scopes)}


def _values(scopes: Iterable[str]) -> Field:
    """An object of knobs and words."""
    names = ", ".join(knob.name for knob in of_scope(*scopes))
    return Field(lambda v: isinstance(v, dict) and bool(v), f"an object of {names}", nullable=True)


def _aliased(aliases: dict[str, str], nullable: bool) -> dict[str, Field]:
    return {
        old: Field(KNOBS[name].codec.check, KNOBS[name].codec.words, nullable)
        for old, name in aliases.items()
    }


def _is_address(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ip_address(value)) and "%" not in value
    except ValueError:
        return False


def _is_peers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_address, (*value, *value.values())))


PLAN_FIELDS = {
    "version": Field(whole(1, 1), "1"),
    "owner": Field(like(r"[A-Za-z0-9._/-]{1,128}"), "1 to 128 characters of A-Z a-z 0-9 . _ / -"),
    "cores": Field(
        lambda v: each(whole(0, 2**16))(v) and len(set(v)) == len(v),
        "a list of different CPUs",
        nullable=True,
    ),
    "queue_core": Field(whole(0, 2**16), "a CPU", nullable=True),
    "queue_cores": Field(each(whole(0, 2**16)), "a list of CPUs", nullable=True),
    "peers": Field(_is_peers, "an object of addresses: of pods, and of their nodes", nullable=True),
    "machine": _values([MACHINE]),
    **_aliased(MACHINE_ALIASES, nullable=True),
    "lease_seconds": Field(whole(1, 2**31), "a whole number of seconds, at least 1", nullable=True),
    "rules": Field(
        each(lambda v: isinstance(v, dict), 0, MAX_RULES), f"a list of at most {MAX_RULES} rules"
    ),
}
_RULE_FIELDS = {
    "role": Field(lambda v: v in ROLES, f"one of {', '.join(ROLES)}"),
    "namespace": Field(
        like(rf"/[ -~]+|{POD}{POD_UID}"),
        f"the path of a network namespace, * allowed, or {POD} and the uid of a pod",
        nullable=True,
    ),
    "devices": Field(each(like(r"[^/\0]+")), "a list of device names, patterns or auto"),
    "pod": Field(like(r"(?s).*"), "a string", nullable=True),
    "generation": Field(like(r"(?s).*"), "a string", nullable=True),
    "optional": Field(lambda v: isinstance(v, bool), "true or false", nullable=True),
}
RULE_FIELDS = {**_RULE_FIELDS, **_aliased(ALIASES, nullable=False)}
RULE_FIELDS_SET = {**_RULE_FIELDS, "set": _values(OF_RULES)._replace(nullable=False)}


class Rule(NamedTuple):
    """The steering of one kind of device in one network namespace (None: the agent's own).

    The namespace may be a pattern: /run/netns/cni-* matches the pods that exist when the plan is applied.
    """

    role: str
    namespace: str | None
    devices: list[str]
    set: dict[str, Any]  # a word for each knob
    pod: str | None
    generation: str | None
    optional: bool


class Plan(NamedTuple):
    """All steering that one owner wants; `document` is its JSON.

    `peers` are pods that the plan's pods exchange traffic with, by address, and their nodes: the routes
    to them show the NIC and the overlay.

    `queue_core` processes the packets of an unsteered NIC; with `queue_cores`, rx-N has the CPU at N, and the list
    repeats.
    """

    owner: str
    cores: list[int] | None
    queue_core: int | None
    queue_cores: list[int] | None
    machine: dict[str, Any]  # a word for each knob of the machine
    lease_seconds: int | None
    rules: list[Rule]
    document: dict[str, Any]
    peers: Mapping[str, str] = {}


class Wanted(NamedTuple):
    """The text of one value, and of a mask the bits before unusable CPUs were left out.

    `in_turn` has the values of queues where these differ; the first one is the other two fields.
    """

    text: str
    asked: int = 0
    in_turn: tuple[tuple[str, int], ...] = ()

    def of_queue(self, number: int) -> Wanted:
        """The value of one queue."""
        return Wanted(*self.in_turn[number % len(self.in_turn)]) if self.in_turn else self


class Values(NamedTuple):
    """What a plan wants: by knob, of each rule and of the machine."""

    rules: list[dict[str, Wanted]]
    machine: dict[str, Wanted]


def parse_plan(document: Any) -> Plan:
    values = read_fields(document, PLAN_FIELDS, "")
    del values["version"]
    values["peers"] = values["peers"] or {}
    values["machine"] = _words(values, MACHINE_ALIASES, "machine", [MACHINE], "")
    rules = []
    for index, item in enumerate(values["rules"]):
        rule = _rule(item, f"rules[{index}].")
        if rule.role == "pod" and "auto" in rule.devices:
            words = f'plan: rules[{index}].devices is ["auto"]: for role pod, name the devices'
            raise SteerError(words, BAD_PLAN)
        if rule.optional is None:
            rule = rule._replace(optional=rule.role == "veth")
        rules.append(rule)
    return Plan(**{**values, "rules": rules}, document=document)


def _rule(item: dict[str, Any], where: str) -> Rule:
    values = read_fields(item, RULE_FIELDS_SET if "set" in item else RULE_FIELDS, where)
    values["set"] = _words(values, ALIASES, "set", OF_RULES, where)
    return Rule(**values)


def _words(
    values: dict[str, Any], aliases: dict[str, str], key: str, scopes: Iterable[str], where: str
) -> dict[str, Any]:
    """A word for each knob, from the mapping `key` or from the keys of the first version."""
    old = {name: values.pop(alias, None) for alias, name in aliases.items()}
    words = read_fields(values.get(key) or {}, _knob_fields(scopes), f"{where}{key}.")
    for alias, name in aliases.items():
        if old[name] is not None and words[name] is not None:
            raise SteerError(
                f"plan: {where}{alias} and {key}.{name} are the same setting: give one of them",
                BAD_PLAN,
            )
    words.update({name: word for name, word in old.items() if word is not None})
    return {name: word for name, word in words.items() if word is not None}


def wanted_values(plan: Plan, cpus: Cpus) -> Values:
    """The wanted value of each knob; masks without offline and isolated CPUs.

    Refuses a CPU that this machine does not have, and a mask with unusable CPUs only: the kernel
    would make it 0, or refuse it.
    """

    def known(mask: int, where: str, value: Any) -> int:
        absent = mask & ~mask_of(cpus.present)
        if absent:
            cpu = absent.bit_length() - 1
            words = f"plan: {where} is {shortened(json.dumps(value))}: CPU {cpu} does not exist"
            raise SteerError(f"{words}, this machine has {as_list(cpus.present)}", BAD_PLAN)
        return mask

    usable_cpus = set(cpus.usable)
    unusable = cpus.unusable
    cores = plan.cores or cpus.usable
    known(mask_of(cores), "cores", plan.cores)
    irq = [] if plan.queue_core is None else [plan.queue_core]
    queues = [known(mask_of(irq), "queue_core", plan.queue_core)]
    if plan.queue_cores:
        queues = [known(mask_of([cpu]), "queue_cores", cpu) for cpu in plan.queue_cores]
    usable = [cpu for cpu in cores if cpu in usable_cpus]

    def wanted(role: str, name: str, word: Any, where: str) -> Wanted:
        codec = KNOBS[name].codec
        if not codec.is_mask:
            return Wanted(codec.render(word))
        if word not in WORDS:
            masks = [known(parse_mask(word), where, word)]
        elif (role, name, word) == ("nic", "rps_cpus", "none"):
            masks = queues
        else:  # with no usable core among them the word means those, which is refused below
            masks = [mask_of(place(word, usable or cores))]
        for asked in masks:
            if asked and not asked & ~unusable:
                words = f"plan: {where} is {json.dumps(word)}, CPUs {as_list(cpus_of(asked))}: "
                words += f"{cpus.faults(asked)}: use CPUs of {as_list(cpus.usable)}"
                raise SteerError(words, CANNOT)
        found = [(codec.render(asked & ~unusable), asked) for asked in masks]
        return Wanted(*found[0], in_turn=tuple(found) if len(found) > 1 else ())

    rules = [
        {n: wanted(rule.role, n, word, path(plan, index, n)) for n, word in rule.set.items()}
        for index, rule in enumerate(plan.rules)
    ]
    return Values(
        rules, {n: wanted(MACHINE, n, w, f"machine.{n}") for n, w in plan.machine.items()}
    )


def path(plan: Plan, index: int, name: str) -> str:
    """Where in the plan's document a word is."""
    if "set" in plan.document["rules"][index]:
        return f"rules[{index}].set.{name}"
    return f"rules[{index}].{next(old for old, new in ALIASES.items() if new == name)}"


def reductions(plan: Plan, cpus: Cpus) -> list[str]:
    """Warnings about CPUs that were removed from the masks of a plan."""
    words = []
    cores = mask_of(plan.cores or ())
    if cores & cpus.unusable:
        words.append(f"cores: some are not used: {cpus.faults(cores)}")
    values = wanted_values(plan, cpus)
    places = [
        (f"{rule.role} {', '.join(rule.devices)}", one)
        for rule, one in zip(plan.rules, values.rules)
    ]
    for where, one in [*places, ("this machine", values.machine)]:
        for name, (text, asked, _) in one.items():
            if asked & cpus.unusable:
                change = f"{format_mask(asked)} becomes {text}"
                words.append(f"{name} of {where}: {change}: {cpus.faults(asked)}")
    return words
