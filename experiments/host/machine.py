"""The machine of a run, and influences on its result other than steering."""

from __future__ import annotations

import io
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from agent import procstat
from agent.values import MAX_CPUS
from analysis.schema import Confounders, Machine
from infra import cores, traffic, untrusted
from infra.lab import layout
from infra.lab.measurement import Measurement

PROC = Path("/proc")
SYS = Path("/sys")

_OFFLOADS = {
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "tx-checksum-ip-generic",
    "rx-checksumming",
}


# Files and words that describe a node, beside the confounders.
_ABOUT = (
    "proc/cpuinfo",
    "proc/sys/kernel/osrelease",
    "sys/devices/system/cpu/online",
    "sys/class/net/*/mtu",
    "sys/class/net/*/queues/rx-*",
)
_ARCHITECTURE = ("uname", "-m")


def about(devices: Iterable[str]) -> dict[str, Any]:
    """The files and commands that `described` needs from a node (pure)."""
    return {"files": _ABOUT, "commands": [_ARCHITECTURE, *map(_features, devices)]}


class _Seen(BaseModel):
    """The output of `look`: each file's text by its path, and each command's output."""

    files: dict[str, str]
    commands: dict[str, str] = {}


def seen(printed: str, where: str) -> dict[str, Any]:
    """The files and outputs that `look` read on a node. Raises `PrerequisiteMissing`."""
    with untrusted.reading(f"what {where} prints of its files"):
        return _Seen.model_validate(untrusted.parsed(printed)).model_dump()


def described(
    said: Mapping[str, Any], devices: Iterable[str], versions: Mapping[str, str]
) -> Machine:
    """The description of a node from its files and the output of ethtool (pure).

    A device that this node does not have, as nodes with other NICs, is left out.
    """
    files, printed = said["files"], said["commands"]
    queues = [path.split("/")[4] for path in files if "/queues/rx-" in path]
    here = [name for name in devices if _mtu(name) in files]
    with untrusted.reading("the description of the node"):
        return Machine(
            kernel=files["/proc/sys/kernel/osrelease"].strip(),
            cpu=cpu_model(files["/proc/cpuinfo"], printed[" ".join(_ARCHITECTURE)].strip()),
            cores=len(cores.listed(files["/sys/devices/system/cpu/online"])),
            mtu={name: untrusted.whole(files[_mtu(name)].strip()) for name in here},
            offloads={name: offloads(printed[" ".join(_features(name))]) for name in here},
            queues={name: queues.count(name) for name in here},
            versions=dict(versions),
        )


def _mtu(device: str) -> str:
    return f"/sys/class/net/{device}/mtu"


def _features(device: str) -> tuple[str, ...]:
    return ("ethtool", "--show-features", device)


def of_node(namespace: str, devices: Sequence[str]) -> Machine:
    """This machine, with the devices of a namespace."""
    # ip netns exec mounts the sysfs of the namespace, which has its devices' queues
    said = _output(
        "ip", "netns", "exec", namespace,
        sys.executable, "-I", procstat.__file__, json.dumps(about(devices)),
    )  # fmt: skip
    return described(seen(said, namespace), devices, {})


def describe(measurement: Measurement) -> Machine:
    """The machine and the devices of a converged lab."""
    found = of_node(measurement.server_node, (layout.WIRE, layout.OVERLAY))
    tools = traffic.of(measurement.traffic).programs
    versions = {tool: version(_output(tool, "--version")) for tool in tools}
    return Machine.model_validate(
        found.model_dump()
        | {
            "server_cores": list(measurement.cores.server),
            "client_cores": list(measurement.cores.client),
            "irq_core": measurement.cores.irq,
            "form": measurement.form,
            "nic_queues": measurement.queues,
            "irq_time_accounting": irq_time_accounting(),
            "versions": {**versions, "python": platform.python_version()},
        }
    )


def offloads(text: str) -> dict[str, bool]:
    """The offloads that matter here, from `ethtool -k` (pure)."""
    pairs = (line.strip().partition(": ") for line in untrusted.lines(text))
    return {name: value.startswith("on") for name, _, value in pairs if name in _OFFLOADS}


# The model's name in /proc/cpuinfo, by architecture: x86 and s390, MIPS, POWER, RISC-V.
_MODEL = ("model name", "cpu model", "cpu", "uarch")
# What arm64 prints instead: numbers of ARM and its licensees (arch/arm64/include/asm/cputype.h).
_PART = ("CPU implementer", "CPU part", "CPU revision")


def cpu_model(cpuinfo: str, architecture: str) -> str:
    """The CPU of a node from its /proc/cpuinfo (pure): its name, or the numbers that tell it.

    Unlike cores of one machine (big.LITTLE) are all named. Raises ValueError for what is no such file.
    """
    cpus = [
        {key.strip(): value.strip() for key, _, value in (row.partition(":") for row in block)}
        for filled, block in groupby(untrusted.lines(cpuinfo), bool)
        if filled
    ]
    for key in _MODEL:
        if names := dict.fromkeys(cpu[key] for cpu in cpus if cpu.get(key)):
            return " and ".join(names)
    parts = dict.fromkeys(
        " ".join(f"{key.removeprefix('CPU ')} {cpu[key]}" for key in _PART if key in cpu)
        for cpu in cpus
    )
    named = " and ".join(part for part in parts if part)
    return f"{architecture} {named}".strip() or "not known"


def irq_time_accounting() -> bool | None:
    """Whether softirq time is exact (True) or sampled at the tick; None if unknown."""
    import gzip
    import zlib

    config = PROC / "config.gz"
    boot = Path("/boot") / f"config-{platform.release()}"
    try:
        if config.exists():
            with gzip.open(io.BytesIO(untrusted.content(config))) as file:
                text = file.read(untrusted.MOST_BYTES)
        elif boot.exists():
            text = untrusted.content(boot)
        else:
            return None
    except (OSError, EOFError, zlib.error):
        return None
    return b"CONFIG_IRQ_TIME_ACCOUNTING=y" in text


def version(printed: str) -> str:
    """The version in a program's output; `?` if there is none (pure)."""
    match = re.search(r"\d+\.\d+(\.\d+)*", printed)
    return match[0] if match else "?"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


# What is read at both edges of a run, below /.
CONFOUNDERS = (
    "proc/interrupts",
    "proc/[0-9]*/comm",
    "proc/sys/net/core/rps_default_mask",
    "sys/class/net/*/device",
    "sys/class/net/*/device/..",
    "sys/class/net/*/device/msi_irqs/*",
    "sys/class/net/*/device/../msi_irqs/*",
    "sys/class/net/*/queues/tx-*/xps_cpus",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
)


def confounders() -> Confounders:
    """Those of this machine."""
    return confounders_in(procstat.read_files(CONFOUNDERS, PROC.parent))


def confounders_in(files: Mapping[str, str]) -> Confounders:
    """The influences in the texts of `CONFOUNDERS` (pure)."""

    def text(path: str) -> str | None:
        return files[path].strip() if path in files else None

    nics = nics_in(files)
    with untrusted.reading("/proc/interrupts"):
        return Confounders(
            nic_interrupts=nic_interrupts(files["/proc/interrupts"], nics.values()),
            irqbalance=any(
                path.endswith("/comm") and name.strip() == "irqbalance"
                for path, name in files.items()
            ),
            rps_default_mask=text("/proc/sys/net/core/rps_default_mask"),
            xps={
                f"{device}/{queue}": mask.strip()
                for path, mask in files.items()
                if path.endswith("/xps_cpus")
                for device, queue in [(path.split("/")[4], path.split("/")[6])]
                if device in nics
            },
            governor=text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        )


def throttled(cpu_stat: str) -> int | None:
    """nr_throttled of a cgroup's cpu.stat (pure); v2 has it only where the controller is on."""
    with untrusted.reading("cpu.stat of a pod"):
        rows = dict(line.split() for line in untrusted.lines(cpu_stat) if line)
        return untrusted.whole(rows["nr_throttled"]) if "nr_throttled" in rows else None


class Nic(NamedTuple):
    """A physical NIC and what its interrupts are known by: words of a line, or the number."""

    words: frozenset[str]
    numbers: frozenset[str]


def nics_in(files: Mapping[str, str]) -> dict[str, Nic]:
    """The NICs of the texts of `CONFOUNDERS`, by device (pure).

    The device's own name, its bus address (`0000:03:00.0`) and its numbers in msi_irqs; a virtio
    device (`virtio2`) has them at its parent.
    """
    nics = {}
    for path in sorted(files):
        if not (path.startswith("/sys/class/net/") and path.endswith("/device")):
            continue
        device, bus = path.split("/")[4], files[path].strip()
        above = [".."] if bus.startswith("virtio") else []
        buses = {bus, *(files.get(f"{path}/{up}", "").strip() for up in above)}
        places = tuple(f"{'/'.join([path, *some])}/msi_irqs/" for some in ([], above))
        numbers = {name.rpartition("/")[2] for name in files if name.startswith(places)}
        words = {device, *(name for name in buses if _is_bus_name(name))}
        nics[device] = Nic(frozenset(words), frozenset(numbers))
    return nics


def _is_bus_name(name: str) -> bool:
    """Whether a directory of /sys/devices names one device: a PCI address or a virtio device."""
    return bool(re.fullmatch(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]|virtio\d+", name))


def nic_interrupts(text: str, nics: Iterable[Nic]) -> dict[str, list[int]]:
    """Interrupts of the lines of /proc/interrupts that belong to a NIC, by core (pure).

    The header names the cores that are online; an offline core has 0 here. Drivers name their
    interrupts freely: `eth0-TxRx-0`, `mlx5_comp0@pci:0000:03:00.0`, `virtio1-input.0`.
    """
    header, *lines = untrusted.lines(text)
    online = [cores.numbered(name) for name in header.split(maxsplit=MAX_CPUS)]
    known = list(nics)
    numbers = {number for nic in known for number in nic.numbers}
    words = sorted({re.escape(word) for nic in known for word in nic.words})
    found = re.compile(rf"(?<![\w.])(?:{'|'.join(words)})(?![\w:])") if words else None
    rows = {}
    for line in lines:
        label, _, rest = line.partition(":")
        parts = rest.split(maxsplit=len(online))
        counts, name = parts[: len(online)], parts[len(online) :]
        if not name or not (label.strip() in numbers or (found and found.search(name[0]))):
            continue
        by_core = dict(zip(online, map(untrusted.whole, counts), strict=True))
        row = [by_core.get(core, 0) for core in range(max(online) + 1)]
        rows[f"{label.strip()} {name[0].split()[-1]}"] = row
    return rows


def moved_interrupts(before: Confounders, after: Confounders) -> list[str]:
    """Warnings where a NIC interrupt changed its core during the run (pure)."""
    warnings = []
    for name, first in before.nic_interrupts.items():
        last = after.nic_interrupts.get(name, first)
        busy = [core for core, (a, b) in enumerate(zip(first, last, strict=False)) if b - a > 100]
        if len(busy) > 1:
            warnings.append(f"interrupt {name} moved between cores {busy} during the run")
    return warnings
