"""The arms of `tune` (pure): candidates from cores and knobs, and combinations of what helped.

An arm is a configuration by what it changes. Which of the candidates a node can have, and which of
them change nothing there, the agent tells: see experiments/run/tune.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from agent.knobs import KNOBS, MACHINE
from infra.configurations import ROLES, Configuration

ENTRIES = 32768
# Linux refuses less than two timer ticks, which are 20 ms at 100 Hz.
BUDGET_US = 20_000
STAGES = 3  # as many cores have all arms
# Of a joined name; longer ones get a number.
LONGEST = 60

Part = str  # a role, or `machine`
Settings = Mapping[tuple[Part, str], str | int]


class Arm(NamedTuple):
    """A configuration: its word for each part and knob that differs from the baseline."""

    name: str
    summary: str
    settings: Settings

    @property
    def complexity(self) -> int:
        """The number of values that it changes."""
        return len(self.settings)

    @property
    def document(self) -> dict[str, Any]:
        """As a file of configurations has it."""
        found: dict[str, Any] = {"summary": self.summary} if self.summary else {}
        for (part, knob), word in self.settings.items():
            found.setdefault(part, {})[knob] = word
        return found

    @property
    def configuration(self) -> Configuration:
        return Configuration.model_validate({"name": self.name, **self.document})


BASELINE = Arm("baseline", "no change", {})


def of(configuration: Configuration) -> Arm:
    """A user's configuration as an arm."""
    parts = (*ROLES, "machine")
    baseline = BASELINE.configuration
    return Arm(
        configuration.name,
        configuration.summary,
        {
            (part, knob): word
            for part in parts
            for knob, word in getattr(configuration, part).knobs.items()
            if getattr(baseline, part).knobs.get(knob) != word
        },
    )


def candidates(cores: int) -> list[Arm]:
    """All arms that are tried on a node with so many cores for its receive side: steering first."""
    node = ("nic", "overlay", "veth")
    every = (*node, "pod")
    table = ("machine", "rps_sock_flow_entries")
    named: list[tuple[str, str, Settings]] = [
        ("rps", "RPS on the node's devices", _on(node, "rps_cpus", "all")),
        ("rps-plus", "RPS on all devices", _on(every, "rps_cpus", "all")),
        ("rps-nic", "RPS on the NIC", _on(("nic",), "rps_cpus", "all")),
        ("rps-overlay", "RPS on the overlay", _on(("overlay",), "rps_cpus", "all")),
        ("rps-pod", "RPS inside the pods", _on(("pod",), "rps_cpus", "all")),
        ("rfs", "RFS on the node's devices", {**_on(node, "rps_flow_cnt", ENTRIES), table: ENTRIES}),
        ("rfs-plus", "RFS on all devices", {**_on(every, "rps_flow_cnt", ENTRIES), table: ENTRIES}),
        ("rfs-nic", "RFS on the NIC", {("nic", "rps_flow_cnt"): ENTRIES, table: ENTRIES}),
        ("stages-2", "overlay and pod on the last cores", _stages(overlay="last", pod="last")),
        ("stages-overlay", "the overlay on the last cores", _stages(overlay="last")),
        ("stages-pod", "the pods on the last cores", _stages(pod="last")),
        ("stages-nic", "the NIC's packets on the last cores", _stages(nic="last")),
        *([("stages-3", "NIC, overlay and pods on different cores",
            _stages(nic="first", overlay="middle", pod="last"))] if cores >= STAGES else []),
        *_switches("gro", ("nic", "overlay", "pod"), "GRO"),
        *_switches("tx-checksum-ip-generic", ("overlay",), "checksum offload"),
        *_switches("tx-udp_tnl-segmentation", ("nic",), "tunnel segmentation"),
        ("xps", "XPS on the NIC", {("nic", "xps_cpus"): "all"}),
        ("threaded", "threaded NAPI on the NIC",
         {("nic", "gro"): "on", ("nic", "threaded"): "on"}),
        *[
            (f"defer-{us}us", f"interrupts deferred by {us} µs",
             {("nic", "napi_defer_hard_irqs"): 2, ("nic", "gro_flush_timeout"): us * 1000})
            for us in (20, 200)
        ],
        ("gro-list", "forwarded packets chained, not merged", {("overlay", "rx-gro-list"): "on"}),
        ("gro-udp", "tunnel packets merged on the NIC", {("nic", "rx-udp-gro-forwarding"): "on"}),
        ("budget", "twice the softirq budget",
         {("machine", "netdev_budget"): 600, ("machine", "netdev_budget_usecs"): BUDGET_US}),
        ("backlog", "ten times the backlog", {("machine", "netdev_max_backlog"): 10000}),
        ("weight", "twice the packets of a poll", {("machine", "dev_weight"): 128}),
        ("gro-batch", "larger batches after GRO", {("machine", "gro_normal_batch"): 32}),
        ("no-prequeue", "time stamps after RPS", {("machine", "netdev_tstamp_prequeue"): "off"}),
    ]  # fmt: skip
    arms = [Arm(name, summary, settings) for name, summary, settings in named]
    return [BASELINE, *(arm for arm in arms if _known(arm))]


def _known(arm: Arm) -> bool:
    """Whether this version has all of its knobs, in these parts and with these words."""
    return all(
        name in KNOBS
        and (KNOBS[name].scope == MACHINE) == (part == "machine")
        and KNOBS[name].codec.check(word)
        for (part, name), word in arm.settings.items()
    )


def _on(parts: Iterable[Part], knob: str, word: str | int) -> dict[tuple[Part, str], str | int]:
    return {(part, knob): word for part in parts}


def _stages(**words: str) -> dict[tuple[Part, str], str | int]:
    return {(part, "rps_cpus"): word for part, word in words.items()}


def _switches(knob: str, parts: Sequence[Part], words: str) -> list[tuple[str, str, Settings]]:
    """On and off; the agent tells which of both a device has already."""
    short = "gro" if knob == "gro" else knob.replace("_", "-")
    titles = {"nic": "the NIC", "overlay": "the overlay", "pod": "the pods"}
    return [
        (f"{short}-{part}-{word}", f"{words} {word} on {titles[part]}", {(part, knob): word})
        for part in parts
        for word in ("on", "off")
    ]


def merged(one: Arm, other: Arm) -> Arm | None:
    """Both together; None where they contradict each other, or one contains the other."""
    a, b = one.settings, other.settings
    if any(a[key] != b[key] for key in a.keys() & b.keys()):
        return None
    both = {**a, **b}
    if len(both) in (len(a), len(b)):
        return None
    summary = "; ".join(text for text in (one.summary, other.summary) if text)
    return Arm(f"{one.name}-with-{other.name}", summary, both)


def combined(helped: Sequence[Arm], known: Iterable[Arm], most: int) -> list[Arm]:
    """At most so many pairs of what helped, which is given best first; none that is `known`.

    Pairs with different knobs come first: one knob on two devices often does the same work twice.
    """
    seen = {frozenset(arm.settings.items()) for arm in known}
    found: list[Arm] = []
    pairs = sorted(combinations(range(len(helped)), 2), key=lambda pair: pair[::-1])
    for one, other in sorted(
        ((helped[first], helped[second]) for first, second in pairs),
        key=lambda pair: bool(_knobs(pair[0]) & _knobs(pair[1])),
    ):
        both = merged(one, other)
        key = frozenset(both.settings.items()) if both else frozenset()
        if both and key not in seen and len(found) < most:
            seen.add(key)
            found.append(both)
    return found


def _knobs(arm: Arm) -> set[str]:
    return {knob for _, knob in arm.settings}
