"""This machine: its properties, what the lab lacks, and the owners of its settings."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.cpus import Cpus
from agent.kernel_faults import has_table_fault, table_fault_words
from agent.knobs import KNOBS, RX_QUEUE, TX_QUEUE
from agent.values import as_list
from experiments.host import calls, machine, nodes, persist
from experiments.targets.lab import requirements
from infra import untrusted
from infra.cores import online
from infra.errors import Refusal

# The argument that prints each tool's version: tools of the lab, of the tests and of the set-up.
_VERSION = {"ip": "-V", "bridge": "-V", "mpstat": "-V"}
_ALSO = ("mpstat",)


@dataclass(frozen=True)
class Findings:
    """The result of an examination; `steering` is the agent's answer, or why there is none."""

    kernel: str
    cpu: str
    cores: list[int]
    isolated: str
    offline: str
    rps: bool
    irq_time_accounting: bool | None
    irqbalance: bool | None
    cgroup: str
    nics: dict[str, int]  # receive queues
    transmit: dict[str, int]  # transmit queues
    interrupts: dict[str, list[int]]
    tools: dict[str, str | None]
    pulumi: str | None
    steering: dict[str, Any] | str
    kept_by: dict[str, Any] | None
    lab: str | None
    missing: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "warnings": kernel_faults(self.kernel),
            "hints": hints(self.nics, len(self.cores)),
            "advice": advice(self.nics, len(self.cores)),
        }

    def text(self) -> str:
        """A row a subject."""
        exact = {True: "exact", False: "sampled at the tick", None: "unknown: no kernel config"}
        tools = ", ".join(f"{name} {found or 'missing'}" for name, found in self.tools.items())
        queues = ", ".join(
            f"{name} {count} rx {self.transmit.get(name, 0)} tx"
            for name, count in self.nics.items()
        )
        held = self.steering
        if isinstance(held, dict):
            held = "\n".join(nodes.held(held["snapshots"])) or "no active snapshots"
        lab = "cannot run here" if self.missing else "can run here"
        if self.lab:
            lab += f"; up: stack {self.lab}"
        elif not isinstance(self.steering, str):  # both need root
            lab += "; none is up"
        rows = [
            ("kernel", self.kernel),
            *(("", words) for words in kernel_faults(self.kernel)),
            ("CPU", self.cpu),
            ("cores", self._cores()),
            ("RPS, RFS", "yes" if self.rps else "no"),
            ("softirq", f"{exact[self.irq_time_accounting]} (CONFIG_IRQ_TIME_ACCOUNTING)"),
            ("irqbalance", "runs" if self.irqbalance else "does not run"),
            ("queues", queues or "no physical NIC"),
            *(("", hint) for hint in hints(self.nics, len(self.cores))),
            *(("", line) for line in self._uppers()),
            ("interrupts", busiest(self.interrupts) or "of no NIC yet"),
            ("cgroup", self.cgroup),
            ("tools", tools),
            ("Pulumi", self.pulumi or "not on PATH: --engine embedded does without"),
            *(("steering" * (not index), line) for index, line in enumerate(held.splitlines())),
            *(("", line) for line in nodes.kept_by(self.kept_by)),
            *(("in use", in_use(s)) for s in (self.steering,) if isinstance(s, dict)),
            ("try first", advice(self.nics, len(self.cores))),
            ("lab", lab),
            *(("lacks", reason) for reason in self.missing),
        ]
        return "\n".join(f"{subject:<11} {words}" for subject, words in rows)

    def _cores(self) -> str:
        offline = f", {self.offline} offline" if self.offline else ""
        return f"{as_list(self.cores)} online{offline}, {self.isolated or 'none'} isolated"

    def _uppers(self) -> list[str]:
        return nodes.uppers(
            () if isinstance(self.steering, str) else self.steering.get("uppers", ())
        )


def kernel_faults(release: str) -> list[str]:
    """Known faults of this kernel that steering can meet (pure)."""
    return [table_fault_words(release)] if has_table_fault(release) else []


def examine() -> Findings:
    """Read only; findings that need root are marked as unknown without it."""
    cpus = Cpus.of(machine.SYS.parent)
    health = persist.health()
    return Findings(
        kernel=platform.release(),
        cpu=machine.cpu_model(untrusted.words(machine.PROC / "cpuinfo"), platform.machine()),
        cores=list(online()),
        isolated=as_list(cpus.isolated),
        offline=as_list({*cpus.present} - {*cpus.online}),
        rps=(machine.PROC / "sys/net/core/rps_sock_flow_entries").exists(),
        irq_time_accounting=machine.irq_time_accounting(),
        irqbalance=machine.confounders().irqbalance,
        cgroup=_cgroup(),
        nics=_nics("rx"),
        transmit=_nics("tx"),
        interrupts=machine.confounders().nic_interrupts,
        tools={tool: version(tool) for tool in (*requirements.ALL_TOOLS, *_ALSO)},
        pulumi=version("pulumi"),
        steering=_steering(),
        kept_by=asdict(health) if health else None,
        lab=_lab(),
        missing=requirements.missing(),
    )


def hints(nics: dict[str, int], cores: int) -> list[str]:
    """Where RPS can help, after the kernel's Documentation/networking/scaling.rst (pure)."""
    if cores < 2:
        return []
    return [
        f"{name} has a queue for each core: RSS already spreads packets, RPS adds little"
        if queues >= cores
        else f"{name} interrupts at most {queues} of {cores} cores: RPS can use the others"
        for name, queues in nics.items()
    ]


def busiest(interrupts: Mapping[str, Sequence[int]]) -> str:
    """The core that handles most of each NIC interrupt, with its share (pure)."""
    words = []
    for name, counts in interrupts.items():
        if whole := sum(counts):
            core = max(range(len(counts)), key=lambda one: counts[one])
            words.append(f"{name.partition(' ')[2]} core {core} ({counts[core] / whole:.0%})")
    return ", ".join(words)


def in_use(answer: Mapping[str, Any]) -> str:
    """The number of places where each knob is neither 0 nor off, and the machine's values (pure).

    Knobs of devices and namespaces that are in use nowhere are left out.
    """
    rows = [row for key in ("queues", "devices", "namespaces") for row in answer.get(key, ())]
    words = []
    for name, knob in KNOBS.items():
        if values := [str(row[name]) for row in rows if name in row]:
            used = sum(v.strip("0,") not in ("", "off") for v in values)
            if used or knob.scope in (RX_QUEUE, TX_QUEUE):
                words.append(f"{name} on {used} of {len(values)}")
    words += [f"{name} {value}" for name, value in answer.get("machine", {}).items()]
    return ", ".join(words) or "none visible"


def advice(nics: Mapping[str, int], cores: int) -> str:
    """The first configuration to try on this machine, after Documentation/networking/scaling.rst."""
    if cores < 2:
        return "nothing: steering needs a second core"
    if nics and all(queues >= cores for queues in nics.values()):
        return (
            "nothing: each core has a queue of its own; a sweep shows whether softirq work of the "
            "overlay is still the bottleneck"
        )
    return (
        "rfs: packets go to the core of their reader, and no mask is needed; then rps, which "
        "also spreads flows if readers move; to compare them: ./steerlab sweep --quick"
    )


def version(tool: str) -> str | None:
    """The version of a tool on PATH; None if it is missing, `?` if its version is unknown."""
    if shutil.which(tool) is None:
        return None
    argument = "version" if tool == "pulumi" else _VERSION.get(tool, "--version")
    try:
        done = subprocess.run(
            [tool, argument], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    return machine.version(done.stdout + done.stderr)


def _steering() -> dict[str, Any] | str:
    if os.geteuid() != 0:
        return "unknown: only root may look: use sudo"
    try:
        return calls.call("show")
    except Refusal as refusal:
        return f"unknown: {refusal}"


def _lab() -> str | None:
    """The stack of the lab that is up; root only, because others cannot read its folder."""
    from infra.lab.claim import OWNER

    return _read(Path(OWNER)) or None


def _nics(direction: str) -> dict[str, int]:
    """The queues of each physical NIC in one direction."""
    net = machine.SYS / "class/net"
    physical = sorted(device for device in net.iterdir() if (device / "device").exists())
    return {device.name: len([*device.glob(f"queues/{direction}-*")]) for device in physical}


def _cgroup() -> str:
    mounted = machine.SYS / "fs/cgroup"
    if (mounted / "cgroup.controllers").exists():
        return "v2"
    return "v1, v2 beside it" if (mounted / "unified/cgroup.procs").exists() else "v1"


def _read(path: Path) -> str:
    try:
        return untrusted.words(path).strip()
    except OSError:
        return ""
