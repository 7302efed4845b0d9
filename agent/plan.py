"""The plan: all steering that one owner wants, as JSON (pure)."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from agent.cpus import Cpus
from agent.errors import BAD_PLAN, CANNOT, SteerError, shortened
from agent.fields import Field, each, like, read_fields, whole
from agent.knobs import KNOBS, MACHINE, MAX_SOCK_FLOWS
from agent.values import WORDS, as_list, cpus_of, format_mask, mask_of, parse_mask, place

ROLES = ("nic", "overlay", "veth", "pod")
MAX_RULES = 10_000
TABLE = "rps_sock_flow_entries"  # of the machine
POD = "pod:"  # instead of a path: the network namespace of the pod with this uid
POD_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"
PLAN_FIELDS = {
    "version": Field(whole(1, 1), "1"),
    "owner": Field(like(r"[A-Za-z0-9._/-]{1,128}"), "1 to 128 characters of A-Z a-z 0-9 . _ / -"),
    "cores": Field(
        lambda v: each(whole(0, 2**16))(v) and len(set(v)) == len(v),
        "a list of different CPUs",
        nullable=True,
    ),
    "queue_core": Field(whole(0, 2**16), "a CPU", nullable=True),
    "sock_flow_entries": Field(whole(0, MAX_SOCK_FLOWS), f"0 to {MAX_SOCK_FLOWS}", nullable=True),
    "lease_seconds": Field(whole(1, 2**31), "a whole number of seconds from 1", nullable=True),
    "rules": Field(
        each(lambda v: isinstance(v, dict), 0, MAX_RULES), f"a list of at most {MAX_RULES} rules"
    ),
}
_RULE_FIELDS = {
    "role": Field(lambda v: v in ROLES, f"one of {', '.join(ROLES)}"),
    "namespace": Field(
        like(rf"/[ -~]+|{POD}{POD_UID}"),
        f"the path of network namespaces, it may have *, or {POD} and the uid of a pod",
        nullable=True,
    ),
    "devices": Field(each(like(r"[^/\0]+")), "a list of device names, patterns or auto"),
    "pod": Field(like(r"(?s).*"), "a string", nullable=True),
    "generation": Field(like(r"(?s).*"), "a string", nullable=True),
    "optional": Field(lambda v: isinstance(v, bool), "true or false", nullable=True),
}
_OF_QUEUES = {name: knob for name, knob in KNOBS.items() if knob.scope != MACHINE}
_SET_FIELDS = {
    name: Field(knob.codec.accepts, knob.codec.words, nullable=True)
    for name, knob in _OF_QUEUES.items()
}
# How a rule said it when there were two knobs.
ALIASES = {"cpus": "rps_cpus", "flows": "rps_flow_cnt"}
RULE_FIELDS = {
    **_RULE_FIELDS,
    **{old: _SET_FIELDS[name]._replace(nullable=False) for old, name in ALIASES.items()},
}
RULE_FIELDS_SET = {
    **_RULE_FIELDS,
    "set": Field(
        lambda v: isinstance(v, dict) and bool(v), f"an object of {', '.join(_OF_QUEUES)}"
    ),
}


class Rule(NamedTuple):
    """The steering of one kind of device in one network namespace (None: the agent's own).

    The namespace may be a pattern: /run/netns/cni-* are the pods that there are when it is read.
    """

    role: str
    namespace: str | None
    devices: list[str]
    set: dict[str, Any]  # a word for each knob
    pod: str | None
    generation: str | None
    optional: bool


class Plan(NamedTuple):
    """All steering that one owner wants; `document` is the JSON that said so."""

    owner: str
    cores: list[int] | None
    queue_core: int | None
    sock_flow_entries: int | None
    lease_seconds: int | None
    rules: list[Rule]
    document: dict[str, Any]


def parse_plan(document: Any) -> Plan:
    values = read_fields(document, PLAN_FIELDS, "")
    del values["version"]
    rules = []
    for index, item in enumerate(values["rules"]):
        rule = _rule(item, f"rules[{index}].")
        if rule.role == "pod" and "auto" in rule.devices:
            words = f'plan: rules[{index}].devices is ["auto"]: name the devices of a pod'
            raise SteerError(words, BAD_PLAN)
        if rule.optional is None:
            rule = rule._replace(optional=rule.role == "veth")
        rules.append(rule)
    return Plan(**{**values, "rules": rules}, document=document)


def _rule(item: dict[str, Any], where: str) -> Rule:
    if "set" in item:
        values = read_fields(item, RULE_FIELDS_SET, where)
        asked = read_fields(values["set"], _SET_FIELDS, f"{where}set.")
    else:
        values = read_fields(item, RULE_FIELDS, where)
        asked = {name: values.pop(old) for old, name in ALIASES.items()}
    values["set"] = {name: word for name, word in asked.items() if word is not None}
    return Rule(**values)


def asked_masks(plan: Plan, cpus: Cpus) -> list[dict[str, int]]:
    """The masks that each rule asks for, by knob; refuses any CPU that this machine does not have."""

    def known(mask: int, where: str, value: Any) -> int:
        absent = mask & ~mask_of(cpus.present)
        if absent:
            cpu = absent.bit_length() - 1
            words = f"plan: {where} is {shortened(json.dumps(value))}: CPU {cpu} does not exist"
            raise SteerError(f"{words}, this machine has {as_list(cpus.present)}", BAD_PLAN)
        return mask

    cores = plan.cores or cpus.usable
    known(mask_of(cores), "cores", plan.cores)
    irq = [] if plan.queue_core is None else [plan.queue_core]
    queue = known(mask_of(irq), "queue_core", plan.queue_core)
    usable = [cpu for cpu in cores if cpu in cpus.usable]

    def mask(rule: Rule, name: str, where: str) -> int:
        word = rule.set[name]
        if word not in WORDS:
            return known(parse_mask(word), where, word)
        if (rule.role, name, word) == ("nic", "rps_cpus", "none"):
            return queue
        # with no usable core among them the word means those, which `wanted_values` refuses
        return mask_of(place(word, usable or cores))

    return [
        {name: mask(rule, name, path(plan, index, name)) for name in rule.set if is_mask(name)}
        for index, rule in enumerate(plan.rules)
    ]


def is_mask(name: str) -> bool:
    return KNOBS[name].codec.is_mask


def path(plan: Plan, index: int, name: str) -> str:
    """Where in the plan's document a word is."""
    if "set" in plan.document["rules"][index]:
        return f"rules[{index}].set.{name}"
    return f"rules[{index}].{next(old for old, new in ALIASES.items() if new == name)}"


def wanted_values(plan: Plan, cpus: Cpus) -> list[dict[str, str]]:
    """The texts of each rule, by knob; masks without offline and isolated CPUs.

    Refuses a mask of none but these: such a mask is no steering (the kernel would make it 0, or
    refuse it), and a CPU that was isolated is not to be given packets.
    """
    texts = []
    for index, (rule, asked) in enumerate(zip(plan.rules, asked_masks(plan, cpus))):
        found = {name: str(word) for name, word in rule.set.items()}
        for name, mask in asked.items():
            left = mask & ~cpus.unusable
            if mask and not left:
                words = f"plan: {path(plan, index, name)} is {json.dumps(rule.set[name])}, which "
                words += f"means {as_list(cpus_of(mask))}: {cpus.faults(mask)}: "
                raise SteerError(f"{words}steer to some of {as_list(cpus.usable)}", CANNOT)
            found[name] = format_mask(left)
        texts.append(found)
    return texts


def reductions(plan: Plan, cpus: Cpus) -> list[str]:
    """What the masks of a plan lose on this machine, and why."""
    words = []
    cores = mask_of(plan.cores or ())
    if cores & cpus.unusable:
        words.append(f"cores: left out: {cpus.faults(cores)}")
    for rule, asked in zip(plan.rules, asked_masks(plan, cpus)):
        for name, mask in asked.items():
            left = mask & ~cpus.unusable
            if left != mask:
                change = f"{format_mask(mask)} becomes {format_mask(left)}"
                words.append(
                    f"{name} of {rule.role} {', '.join(rule.devices)}: {change}: {cpus.faults(mask)}"
                )
    return words
