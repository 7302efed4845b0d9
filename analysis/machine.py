"""The conditions of runs: one list for report, comparison and pooling, and their description."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from agent.knobs import KNOBS, EthtoolFeature
from analysis.schema import Confounders, Machine, NodeFacts, Record, Steering

Conditions = dict[str, frozenset[str]]
Read = Callable[[Record], str | None]

_UNKNOWN = "not recorded"
CHANGED_STEERING = "steering changed during a run"
UNLIKE_NODES = "unlike nodes"
_FEATURES = {name for name, knob in KNOBS.items() if isinstance(knob.access, EthtoolFeature)}


def _of_machine(read: Callable[[Machine], object]) -> Read:
    return lambda record: str(read(record.machine)) if record.machine else _UNKNOWN


def _of_confounders(read: Callable[[Confounders], object]) -> Read:
    def value(record: Record) -> str | None:
        found = read(record.confounders_before) if record.confounders_before else None
        return None if found is None or found == "" else str(found)

    return value


def _unless_set(knobs: Collection[str], read: Read) -> Read:
    """Not known where the steering of the run sets one of these knobs: then it is no condition."""

    def value(record: Record) -> str | None:
        rows = record.steering_before.settings if record.steering_before else ()
        return None if any(row.knob in knobs for row in rows) else read(record)

    return value


def _of_lab(read: Callable[[Machine], object], older: str) -> Read:
    """A property of the lab, with that of all labs before it was recorded."""

    def value(record: Record) -> str | None:
        if record.target != "lab":
            return None
        return str((record.machine and read(record.machine)) or older)

    return value


# What the form study of the lab switches off, as far as a knob can switch it on: by role and knob.
EMULATED = {("nic", "gro"), ("nic", "tso"), ("nic", "gso"), ("overlay", "gro")}


def _of_emulation(record: Record) -> str | None:
    """The offloads with which a configuration undoes the form study: its gain is none on a real node."""
    if record.target != "lab" or (record.machine and record.machine.form == "stock"):
        return None
    rows = record.steering_before.settings if record.steering_before else ()
    undone = {f"{one.role} {one.knob}" for one in rows
              if (one.role, one.knob) in EMULATED and one.value == "on"}  # fmt: skip
    return f"on by steering ({', '.join(sorted(undone))})" if undone else "off as in form study"


# Runs must agree in these before they are compared. None is "not known" (a field that older
# records do not have) and contradicts nothing.
CONDITIONS: dict[str, Read] = {
    "target": lambda record: record.target,
    "path": lambda record: record.path,
    "kernel": _of_machine(lambda machine: machine.kernel),
    "CPU": _of_machine(lambda machine: machine.cpu),
    "cores": _of_machine(lambda machine: machine.cores),
    "server cores": _of_machine(lambda machine: _listed(machine.server_cores)),
    "client cores": _of_machine(lambda machine: _listed(machine.client_cores)),
    "irq core": _of_machine(lambda machine: machine.irq_core),
    "form of the lab": _of_lab(lambda machine: machine.form, "study"),
    "queues of the NIC": _of_lab(lambda machine: machine.nic_queues, "1"),
    "emulated offloads": _of_emulation,
    "irq time accounting": _of_machine(lambda machine: machine.irq_time_accounting),
    "MTU": _of_machine(lambda machine: _counts(machine.mtu)),
    "offloads": _unless_set(_FEATURES, _of_machine(lambda machine: _offloads(machine))),
    "receive queues": _unless_set(
        ("rx_queues",), _of_machine(lambda machine: _counts(machine.queues))
    ),
    "versions": _of_machine(lambda machine: _tools(machine)),
    "irqbalance": _of_confounders(lambda one: one.irqbalance),
    "governor": _of_confounders(lambda one: one.governor),
    "rps_default_mask": _unless_set(
        ("rps_default_mask",), _of_confounders(lambda one: one.rps_default_mask)
    ),
    "XPS": _of_confounders(lambda one: _counts(one.xps)),
    "method": lambda record: record.method,
    "duration": lambda record: f"{record.duration:g} s",
    "omit": lambda record: f"{record.omit:g} s",
    "traffic": lambda record: record.traffic,
    "streams": lambda record: str(record.streams),
    "idle pairs": lambda record: str(record.idle_pairs),
    "pod CPU limit": lambda record: record.pod_cpu_limit or "none",
    "congestion control": lambda record: record.congestion,
}


# Conditions in which two paths differ by nature: each has devices of its own.
OF_A_PATH = ("path", "MTU", "offloads", "emulated offloads", "receive queues")


_SIDES = ("server", "client")
# In these the nodes of a side must agree before results of several are one figure.
LIKE_NODES: dict[str, Callable[[NodeFacts], object]] = {
    "kernel": lambda node: node.kernel,
    "CPU": lambda node: node.cpu,
    "number of CPUs": lambda node: node.cores,
    "NIC": lambda node: node.nic,
    "instance type": lambda node: node.instance_type,
}


def unlike(nodes: Iterable[NodeFacts]) -> list[str]:
    """In what the nodes of a side differ; what is not known does not differ."""
    nodes = list(nodes)
    found = []
    for side in _SIDES:
        for what, read in LIKE_NODES.items():
            by_value: dict[str, list[str]] = {}
            for node in nodes:
                if node.side == side and (value := read(node)) is not None:
                    by_value.setdefault(str(value), []).append(node.name)
            if len(by_value) > 1:
                each = (f"{value} ({', '.join(on)})" for value, on in sorted(by_value.items()))
                found.append(f"{what} of the {side} nodes: {', '.join(each)}")
    return found


def unlike_nodes(record: Record) -> list[str]:
    """The same of the nodes that the pairs of a run are on."""
    used = {(side, getattr(pair, f"{side}_node")) for pair in record.pairs for side in _SIDES}
    nodes = record.machine.nodes if record.machine else ()
    return unlike(node for node in nodes if (node.side, node.name) in used)


def conditions(records: Iterable[Record]) -> Conditions:
    """The values of each condition over the records; one value if the runs agree.

    The definition of each configuration, and the steering that was read back before its runs, are
    conditions of their own.
    """
    found: dict[str, set[str]] = {}
    for record in records:
        values = {name: read(record) for name, read in CONDITIONS.items()}
        values[f"definition of {record.configuration}"] = record.definition
        values[steering_of(record.configuration)] = _steering(record.steering_before)
        for words in unlike_nodes(record):
            found.setdefault(UNLIKE_NODES, set()).add(words)
        before, after = _steering(record.steering_before), _steering(record.steering_after)
        if before is not None and after is not None and before != after:
            found.setdefault(CHANGED_STEERING, set()).add("yes")
        for name, value in values.items():
            if value is not None:
                found.setdefault(name, set()).add(value)
    return {name: frozenset(values) for name, values in found.items()}


def steering_of(configuration: str) -> str:
    """The condition that has the steering of a configuration as the kernel had it."""
    return f"steering of {configuration}"


def _steering(steering: Steering | None) -> str | None:
    """The values of each kind of device, independent of names and number of devices."""
    if steering is None:
        return None
    queues = sorted({f"{q.role} {q.rps_cpus}/{q.rps_flow_cnt}" for q in steering.queues})
    others = sorted({f"{one.role} {one.knob} {one.value}" for one in steering.settings})
    return ", ".join([*queues, *others, f"flow table {steering.sock_flow_entries}"])


def together(*several: Conditions) -> Conditions:
    """The conditions of several groups of runs as those of one."""
    names = dict.fromkeys(name for one in several for name in one)
    return {
        name: frozenset(value for one in several for value in one.get(name, ())) for name in names
    }


def differences(a: Conditions, b: Conditions) -> list[str]:
    """The conditions that differ, in words; an unknown machine differs from every other."""
    unknown = any(_UNKNOWN in one.get("kernel", ()) for one in (a, b))
    return ["machine: not recorded"] * unknown + [
        f"{name}: {_either(a[name])} against {_either(b[name])}"
        for name in a
        if name in b and a[name] != b[name]
    ]


def mixtures(found: Conditions) -> list[str]:
    """The conditions that take several values, in words."""
    return [
        f"{name}: {_either(values)}"
        for name, values in found.items()
        if len(values) > 1 and name != UNLIKE_NODES
    ]


def describe(records: Sequence[Record]) -> list[str]:
    """Sentences on the machines of the runs and on the scope of the figures."""
    lines: list[str] = []
    found = conditions(records)
    for target in sorted(found.get("target", ())):
        some = [record for record in records if record.target == target]
        own = conditions(some)
        if target == "lab":
            lines.append(
                f"The lab is one kernel ({_either(own['kernel'])}) on {_either(own['cores'])} "
                f"cores ({_either(own['CPU'])}), server on {_either(own['server cores'])}, client "
                f"on {_either(own['client cores'])}, {form(some)}. The "
                "mechanisms are the kernel's, but the magnitudes hold for this lab only."
            )
        elif target == "kubernetes":
            lines.append(
                f"A Kubernetes cluster: kernel {_either(own['kernel'])}, {_either(own['CPU'])}, "
                f"{_either(own['cores'])} cores a node."
            )
        else:
            lines.append("Imported from published raw text, without a description of the machine.")
        lines.append(
            f"Each run measured {_either(own['duration'])} after {_either(own['omit'])} omitted, "
            f"method {_either(own['method'])}, "
            f"traffic {_either(own['traffic'])} with {_either(own['streams'])} connection(s) a "
            "pair, pod CPU limit "
            f"{_either(own['pod CPU limit'])}."
        )
        lines += _versions(some)
    return lines


def form(records: Sequence[Record]) -> str:
    """The form of the lab and the receive queues of its NIC; empty without a run of the lab."""
    own = conditions(record for record in records if record.target == "lab")
    if not own:
        return ""
    count = _either(own["queues of the NIC"])
    return f"form {_either(own['form of the lab'])}, a NIC with {count} receive queue{'s' * (count != '1')}"


def _versions(records: Sequence[Record]) -> list[str]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in (record.machine.versions if record.machine else {}).items():
            found.setdefault(name, set()).add(version)
    if not found:
        return []
    parts = [f"{name} {_either(frozenset(values))}" for name, values in sorted(found.items())]
    ticks = {record.machine.irq_time_accounting for record in records if record.machine}
    by_tick = ticks == {False}
    note = " Softirq time is sampled at the tick (no IRQ_TIME_ACCOUNTING)." if by_tick else ""
    return [f"Versions: {', '.join(parts)}.{note}"]


def _counts(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))


def _tools(machine: Machine) -> str:
    """The versions of the traffic tools; Python does not handle packets."""
    return _counts({name: value for name, value in machine.versions.items() if name != "python"})


def _offloads(machine: Machine) -> str:
    """The offloads that are on, by device."""
    return "; ".join(
        f"{device} {'+'.join(sorted(name for name, on in which.items() if on)) or 'none'}"
        for device, which in sorted(machine.offloads.items())
    )


def _either(values: Iterable[str]) -> str:
    return " or ".join(sorted(values))


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers) or _UNKNOWN
