"""`nodes advise`: the bottleneck of a node in production, and the configurations worth racing.

A reading is the agent's `observe`: counters at both ends of a window, and settings. `advise` decides (pure), and
`fitting` leaves out what the node cannot have, or has already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from analysis.machine import EMULATED
from analysis.schema import Confounders, Core, Softnet
from analysis.work import FULL, Work, bottleneck, nic_interrupts, work_of
from experiments.host import procstat
from experiments.host.procstat import CounterSample
from experiments.run import arms as candidates
from experiments.run.arms import Arm
from infra import configurations, steering
from infra.commands import command
from infra.errors import PrerequisiteMissing, Refusal

MOST = 4  # suggestions
HOT = 0.9  # hot flows and hot pods carry this share of the bytes
# Time of the other cores, together, in cores. Softirqs interrupt applications, so what is not softirq time is room
# for more of them; with less than SPARE idle time applications pay for it. A single flow can only be cut into stages,
# and the next stage of a full core needs about half a core.
ROOM, SPARE, SPARE_FOR_ONE = 0.2, 0.05, 0.5
# Flows for each core: with fewer, the hash rarely spreads them evenly; with more, it nearly always does.
FEW, MANY = 1.5, 5
# Of the packets dropped by full backlogs, and of the softirqs that ran out of budget.
DROPS, SQUEEZES = 1e-4, 1e-2
PRESENT, NODE = "the present settings", "node"

Named = tuple[str, str]  # an arm and what it is worth
_WORTH = {
    "rfs": "moves the work of each flow to the core of its reader, without a mask",
    "rfs-plus": "the same, also inside the pods",
    "pipeline": "moves the stages of each flow to different cores, so that few flows suffice",
    "rps-plus": "spreads flows over all cores by their hash, also inside the pods",
    "rps": "spreads flows over all cores by their hash",
    "gro-nic-on": "GRO is off on the NIC: each packet crosses the stack by itself",
    "gro-overlay-on": "GRO is off on the overlay: each packet crosses the stack by itself",
}


@dataclass(frozen=True)
class Reading:
    """What a node did in a window; `answer` is the agent's, `interrupts` are those of NICs by core."""

    answer: Mapping[str, Any]
    cores: Sequence[Core]
    softnet: Sequence[Softnet]
    seconds: float
    interrupts: Mapping[int, int]
    warnings: Sequence[str]
    lab: bool

    @classmethod
    def of(
        cls, answer: Mapping[str, Any], around: tuple[Confounders, Confounders], *, lab: bool
    ) -> Reading:
        """From the agent's answer, and what was read before and after it."""
        before, after = map(CounterSample.of, answer["edges"])
        cpus = answer["cpus"]
        own = answer["plan"].get("cores") or {*cpus["online"]} - {*cpus["isolated"]}
        return cls(
            answer=answer,
            cores=[one for one in procstat.cores(before, after, NODE) if one.core in own],
            softnet=procstat.softnet(before, after, NODE),
            seconds=after.at - before.at,
            interrupts=nic_interrupts([around]),
            warnings=[*answer["warnings"], *procstat.backward(before, after, NODE)],
            lab=lab,
        )

    @cached_property
    def work(self) -> Work:
        """Of the full cores, the one with most softirq time counts: others may be full with applications."""
        found = work_of([(self.cores, self.softnet, self.seconds)])
        if found is None:
            raise PrerequisiteMissing("advise: /proc/stat has no idle and softirq time of a core")
        full = [core for core, idle in found.idle.items() if idle < FULL]
        fullest = max(full, key=lambda core: found.soft[core], default=None)
        return replace(found, fullest=[fullest])

    @property
    def spare(self) -> float:
        """Idle time of all cores but the full one, in cores."""
        return sum(idle for core, idle in self.work.idle.items() if core != self.work.full) / 100

    @property
    def room(self) -> float:
        """Time of all cores but the full one that is not softirq time, in cores."""
        return (
            sum(100 - soft for core, soft in self.work.soft.items() if core != self.work.full) / 100
        )

    @property
    def hot_pods(self) -> list[str]:
        """The network namespaces of the pods that received most of the bytes."""
        sizes: Counter[str] = Counter()
        for one in self.answer["traffic"]:
            if one["role"] == "pod":
                sizes[one["namespace"]] += one["rx_bytes"]
        ranked = sizes.most_common()
        return [name for name, _ in ranked[: _most_of([size for _, size in ranked])]]

    @property
    def hot_flows(self) -> int:
        """At least so many flows carry most of the bytes; each pod without counted ones has one."""
        flows = self.answer["flows"]
        counted = {one["namespace"] for one in flows if one["received"]}
        sizes = sorted((size for one in flows for size in one["received"]), reverse=True)
        return _most_of(sizes) + sum(pod not in counted for pod in self.hot_pods)

    @property
    def drops(self) -> float:
        """Packets dropped by full backlogs, as a share of all."""
        return self.work.dropped / max(1.0, sum(self.work.packets.values()))

    @property
    def squeezes(self) -> float:
        """NET_RX softirqs that ran out of budget, as a share of all."""
        runs = sum(row.net_rx or 0 for row in self.softnet)
        return self.work.squeezed * self.seconds / max(1, runs)

    def has_off(self, role: str) -> bool:
        return any((o["role"], o.get("gro")) == (role, "off") for o in self.answer["devices"])

    @property
    def emulates(self) -> bool:
        """Whether it is a lab of the form study, which has GRO off on purpose."""
        return self.lab and self.has_off("overlay")


def _most_of(sizes: Sequence[int]) -> int:
    """How many of these, which are sorted, have HOT of their sum."""
    total, found = 0, 0
    while total < HOT * sum(sizes):
        total += sizes[found]
        found += 1
    return found


@dataclass(frozen=True)
class Advice:
    """Why, and each arm worth racing with its reason, the most promising first; none: leave it."""

    why: str
    arms: Sequence[tuple[Arm, str]] = ()
    left_out: Sequence[Named] = ()


def advise(reading: Reading) -> Advice:
    """The bottleneck and what may widen it (pure)."""
    why, names = _steering(reading)
    named = [(name, _WORTH[name]) for name in names]
    others = []
    if reading.drops >= DROPS:
        others.append(("backlog", f"full backlogs dropped {reading.drops:.2%} of the packets"))
    if reading.squeezes >= SQUEEZES:
        others.append(("budget", f"{reading.squeezes:.0%} of the softirqs ran out of budget"))
    if reading.work.full is None and others:
        why = f"{others[0][1]}, although {why}"
    elif not named:  # a full core loses packets whatever waits for it
        others = []
    named[MOST - 1 : MOST - 1] = others
    own = map(candidates.of, configurations.load().values())
    known = {arm.name: arm for arm in (*candidates.candidates(len(reading.cores)), *own)}
    return Advice(why, [(known[name], words) for name, words in named])


def _steering(reading: Reading) -> tuple[str, list[str]]:
    """Whether a core is full whose work others could do, and the arms that would move it."""
    work, flows = reading.work, reading.hot_flows
    if work.full is None:
        return "no core is full", []
    core = f"core {work.full[1]}"
    kind = max(work.times, key=lambda one: work.times[one].get(work.full or (NODE, 0), 0.0))
    if kind != "softirq":
        return f"{core} is full with {kind} time, not with packets", []
    offloads = [
        f"gro-{role}-on"
        for role in ("nic", "overlay")
        if reading.has_off(role) and not (reading.emulates and (role, "gro") in EMULATED)
    ]
    why = f"{core} is full with softirq work"
    if reading.room < ROOM:
        return f"{why}, and so are all others", offloads
    if flows == 1 and reading.spare < SPARE_FOR_ONE:
        return (
            f"{why} of one flow: steering cannot spread it, and its next stage needs more than the "
            f"{reading.spare:.1f} cores that are idle"
        ), offloads
    others = f"while {reading.spare:.1f} other cores are idle"
    if reading.spare < SPARE:
        others = "and no other core is idle, so applications pay for what is moved"
    return f"{why}, {others}", [*offloads, *_ranked(flows / len(reading.cores))]


def _ranked(flows_per_core: float) -> Sequence[str]:
    if flows_per_core < FEW:
        return "pipeline", "rfs", "rfs-plus", "rps-plus"
    if flows_per_core < MANY:
        return "rfs", "rfs-plus", "pipeline", "rps-plus"
    return "rps-plus", "pipeline", "rfs-plus", "rps"


def fitting(
    advice: Advice, reading: Reading, preview: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> Advice:
    """The first suggestions that the node can have and that change something; `preview` asks its agent."""
    fit: list[tuple[Arm, str]] = []
    left_out: list[Named] = []
    for arm, words in advice.arms:
        if len(fit) == MOST:
            break
        plan = steering.replanned(reading.answer["plan"], arm.configuration)
        try:
            if preview(plan)["changes"]:
                fit.append((arm, words))
            else:
                left_out.append((arm.name, "is set already"))
        except Refusal as error:
            left_out.append((arm.name, str(error)))
    return Advice(advice.why, fit, left_out)


def document(advice: Advice, reading: Reading) -> dict[str, Any]:
    """The advice and its evidence as data (pure)."""
    names = ",".join(arm.name for arm, _ in advice.arms)
    study = ["-c", "lab.form=study"] if reading.emulates else []
    return {
        "advice": "race" if names else "leave",
        "why": advice.why,
        "bottleneck": bottleneck(reading.work, PRESENT),
        "configurations": [
            {"name": arm.name, "why": words, "settings": _settings(arm)}
            for arm, words in advice.arms
        ],
        "command": command("tune", "--configurations", names, *study) if names else "",
        "left_out": [{"configuration": name, "why": words} for name, words in advice.left_out],
        "evidence": _evidence(reading),
        "seconds": round(reading.seconds, 2),
        "reader_cpu_percent": round(100 * reading.answer["cpu_seconds"] / reading.seconds, 3),
        "warnings": [*reading.warnings],
    }


def _settings(arm: Arm) -> dict[str, Any]:
    return {part: words for part, words in arm.document.items() if part != "summary"}


def _evidence(reading: Reading) -> dict[str, Any]:
    work = reading.work
    rows = [one for one in reading.answer["traffic"] if one["role"] in ("nic", "overlay")]
    return {
        "full_core": work.full and work.full[1],
        "spare_cores": round(reading.spare, 3),
        "cores": [
            {
                "core": core[1],
                "idle": idle,
                **{name: times.get(core) for name, times in work.times.items()},
                "packets_per_second": round(work.packets.get(core, 0)),
                "nic_interrupts": reading.interrupts.get(core[1], 0),
            }
            for core, idle in sorted(work.idle.items())
        ],
        "handed_over_per_second": round(work.handed_over, 1),
        "dropped_per_second": round(work.dropped, 1),
        "drops": reading.drops,
        "squeezed_per_second": round(work.squeezed, 1),
        "squeezes": reading.squeezes,
        "hot_flows": reading.hot_flows,
        "hot_pods": len(reading.hot_pods),
        "devices": [_device(one, reading) for one in rows],
    }


def _device(traffic: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    def own(key: str) -> list[Mapping[str, Any]]:
        names = ("role", "namespace", "device")
        return [o for o in reading.answer[key] if all(o[name] == traffic[name] for name in names)]

    queues = [one for one in own("queues") if one["queue"].startswith("rx-")]
    return {
        "role": traffic["role"],
        "device": traffic["device"],
        "rx_queues": len(queues),
        "gro": next((one.get("gro") for one in own("devices")), None),
        **{k: sorted({str(one[k]) for one in queues}) for k in ("rps_cpus", "rps_flow_cnt")},
        "packets_per_second": round(traffic["rx_packets"] / reading.seconds),
        "mbit_per_second": round(8e-6 * traffic["rx_bytes"] / reading.seconds, 1),
        "dropped": traffic["rx_dropped"],
    }


def text(found: Mapping[str, Any]) -> str:
    """The document for people (pure)."""
    seen = found["evidence"]
    leave = found["advice"] == "leave"
    rows = [
        ("bottleneck", found["bottleneck"]),
        ("cores", f"{len(seen['cores'])}; idle time of all but a full one: {seen['spare_cores']:.1f} cores"),
        *(("device", _words(one)) for one in seen["devices"]),
        ("interrupts", _interrupts(seen["cores"])),
        ("traffic", f"at least {seen['hot_flows']} flows, of {seen['hot_pods']} pods, carry {HOT:.0%} of the bytes"),
        ("losses", f"backlogs dropped {seen['dropped_per_second']:g} packets a second; softirqs ran out of "
         f"budget {seen['squeezed_per_second']:g} times a second"),
        ("reading", f"{found['seconds']:.1f} s; it took {found['reader_cpu_percent']:.2f} % of a core"),
        *(("warning", words) for words in found["warnings"]),
        *(("left out", f"{one['configuration']}: {one['why']}") for one in found["left_out"]),
        ("advice", f"leave it: {found['why']}" if leave else f"{found['why']}: worth a race"),
        *(("", f"{one['name']}: {one['why']}") for one in found["configurations"]),
        ("", found["command"]),
    ]  # fmt: skip
    return "\n".join(f"{subject:<11} {words}" for subject, words in rows if words)


def _words(one: Mapping[str, Any]) -> str:
    steered = ", ".join(f"{knob} {' '.join(one[knob])}" for knob in ("rps_cpus", "rps_flow_cnt"))
    return (
        f"{one['device']} ({one['role']}): receive queues {one['rx_queues']}, GRO {one['gro'] or 'unknown'}, "
        f"{steered}; {one['packets_per_second']:,} packets a second, {one['mbit_per_second']:,.0f} Mbit/s, "
        f"{one['dropped']} dropped"
    )


def _interrupts(cores: Sequence[Mapping[str, Any]]) -> str:
    """The cores with most interrupts of NICs, and their shares; empty where there were none."""
    counts = Counter({one["core"]: one["nic_interrupts"] for one in cores})
    shares = ((core, count / counts.total()) for core, count in counts.most_common(MOST) if count)
    return ", ".join(f"core {core} {share:.0%} of the NICs'" for core, share in shares)
