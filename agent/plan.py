"""The plan: all steering that one owner wants, as JSON (pure)."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from agent.cpus import Cpus
from agent.errors import BAD_PLAN, CANNOT, SteerError, shortened
from agent.fields import Field, each, like, read_fields, whole
from agent.values import MASK, WORDS, as_list, cpus_of, format_mask, mask_of, parse_mask, place

ROLES = ("nic", "overlay", "veth", "pod")
MAX_FLOWS = 2**30  # rps_flow_cnt: one more is ENOMEM
MAX_SOCK_FLOWS = 2**29  # rps_sock_flow_entries: one more is EINVAL
MAX_RULES = 10_000
KNOBS = ("rps_cpus", "rps_flow_cnt")  # of a receive queue
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
RULE_FIELDS = {
    "role": Field(lambda v: v in ROLES, f"one of {', '.join(ROLES)}"),
    "namespace": Field(
        like(rf"/[ -~]+|{POD}{POD_UID}"),
        f"the path of network namespaces, it may have *, or {POD} and the uid of a pod",
        nullable=True,
    ),
    "devices": Field(each(like(r"[^/\0]+")), "a list of device names, patterns or auto"),
    "cpus": Field(
        like("|".join((*WORDS, MASK))), f"one of {', '.join(WORDS)} or a hexadecimal mask"
    ),
    "flows": Field(whole(0, MAX_FLOWS), f"0 to {MAX_FLOWS}"),
    "pod": Field(like(r"(?s).*"), "a string", nullable=True),
    "generation": Field(like(r"(?s).*"), "a string", nullable=True),
    "optional": Field(lambda v: isinstance(v, bool), "true or false", nullable=True),
}


class Rule(NamedTuple):
    """The steering of one kind of device in one network namespace (None: the agent's own).

    The namespace may be a pattern: /run/netns/cni-* are the pods that there are when it is read.
    """

    role: str
    namespace: str | None
    devices: list[str]
    cpus: str
    flows: int
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
        rule = Rule(**read_fields(item, RULE_FIELDS, f"rules[{index}]."))
        if rule.role == "pod" and "auto" in rule.devices:
            words = f'plan: rules[{index}].devices is ["auto"]: name the devices of a pod'
            raise SteerError(words, BAD_PLAN)
        if rule.optional is None:
            rule = rule._replace(optional=rule.role == "veth")
        rules.append(rule)
    return Plan(**{**values, "rules": rules}, document=document)


def asked_masks(plan: Plan, cpus: Cpus) -> list[int]:
    """The mask that each rule asks for; refuses any CPU that this machine does not have."""

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
    masks = []
    for index, rule in enumerate(plan.rules):
        if rule.cpus not in WORDS:
            masks.append(known(parse_mask(rule.cpus), f"rules[{index}].cpus", rule.cpus))
        elif rule.role == "nic" and rule.cpus == "none":
            masks.append(queue)
        else:
            # with no usable core among them the word means those, which `wanted_masks` refuses
            masks.append(mask_of(place(rule.cpus, usable or cores)))
    return masks


def wanted_masks(plan: Plan, cpus: Cpus) -> list[int]:
    """The mask of each rule without offline and isolated CPUs.

    Refuses a rule that asks for none but these: such a mask is no steering (the kernel would make
    it 0, or refuse it), and a CPU that was isolated is not to be given packets.
    """
    masks = []
    for index, (rule, asked) in enumerate(zip(plan.rules, asked_masks(plan, cpus))):
        mask = asked & ~cpus.unusable
        if asked and not mask:
            words = f"plan: rules[{index}].cpus is {json.dumps(rule.cpus)}, which means "
            words += f"{as_list(cpus_of(asked))}: {cpus.faults(asked)}: "
            raise SteerError(f"{words}steer to some of {as_list(cpus.usable)}", CANNOT)
        masks.append(mask)
    return masks


def reductions(plan: Plan, cpus: Cpus) -> list[str]:
    """What the masks of a plan lose on this machine, and why."""
    words = []
    cores = mask_of(plan.cores or ())
    if cores & cpus.unusable:
        words.append(f"cores: left out: {cpus.faults(cores)}")
    for rule, asked in zip(plan.rules, asked_masks(plan, cpus)):
        mask = asked & ~cpus.unusable
        if mask != asked:
            change = f"{format_mask(asked)} becomes {format_mask(mask)}"
            words.append(f"mask of {rule.role} {', '.join(rule.devices)}: {change}: ")
            words[-1] += cpus.faults(asked)
    return words
