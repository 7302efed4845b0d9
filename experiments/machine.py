"""What a run ran on, and what could move its result without being steering."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from analysis.schema import Confounders, Machine
from experiments.cluster.look import read_files
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


def describe(measurement: Measurement) -> Machine:
    """The machine and the devices of a converged lab. Read once; it does not change in a sweep."""
    links = _links(measurement.server_node)
    devices = [name for name in links if name in ("eth1", "vxlan.calico")]
    return Machine(
        kernel=platform.release(),
        cpu=cpu_model((PROC / "cpuinfo").read_text()),
        cores=os.cpu_count() or 1,
        server_cores=list(measurement.cores.server),
        client_cores=list(measurement.cores.client),
        irq_core=measurement.cores.irq,
        irq_time_accounting=irq_time_accounting(),
        mtu={name: links[name]["mtu"] for name in devices},
        offloads={name: _offloads(measurement.server_node, name) for name in devices},
        queues={name: links[name]["queues"] for name in devices},
        versions={"iperf3": _iperf3_version(), "python": platform.python_version()},
    )


def _links(namespace: str) -> dict[str, dict[str, int]]:
    listed = _output("ip", "-n", namespace, "-details", "-json", "link", "show")
    return {
        link["ifname"]: {"mtu": link["mtu"], "queues": link.get("num_rx_queues", 1)}
        for link in json.loads(listed or "[]")
    }


def _offloads(namespace: str, device: str) -> dict[str, bool]:
    text = _output("ip", "netns", "exec", namespace, "ethtool", "--show-features", device)
    return offloads(text)


def offloads(text: str) -> dict[str, bool]:
    """The offloads that matter here, from `ethtool -k` (pure)."""
    pairs = (line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)
    return {name: value.startswith("on") for name, value in pairs if name in _OFFLOADS}


def cpu_model(cpuinfo: str) -> str:
    """The first `model name` of /proc/cpuinfo (pure); some architectures have none."""
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1] if match else platform.machine()


def irq_time_accounting() -> bool | None:
    """Whether softirq time is exact (True) or sampled at the tick; None where nobody says."""
    import gzip

    config = PROC / "config.gz"
    boot = Path("/boot") / f"config-{platform.release()}"
    if config.exists():
        text = gzip.decompress(config.read_bytes()).decode()
    elif boot.exists():
        text = boot.read_text()
    else:
        return None
    return "CONFIG_IRQ_TIME_ACCOUNTING=y" in text


def _iperf3_version() -> str:
    words = _output("iperf3", "--version").split()
    return words[1] if len(words) > 1 else "unknown"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


# What is read at both edges of a run, below /.
CONFOUNDERS = (
    "proc/interrupts",
    "proc/[0-9]*/comm",
    "proc/sys/net/core/rps_default_mask",
    "sys/class/net/*/device",
    "sys/class/net/*/queues/tx-*/xps_cpus",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
)


def confounders() -> Confounders:
    """Those of this machine."""
    return confounders_in(read_files(CONFOUNDERS, PROC.parent))


def confounders_in(files: Mapping[str, str]) -> Confounders:
    """What the texts of `CONFOUNDERS` say (pure)."""

    def text(path: str) -> str | None:
        return files[path].strip() if path in files else None

    physical = sorted(path.split("/")[4] for path in files if path.endswith("/device"))
    return Confounders(
        nic_interrupts=nic_interrupts(files["/proc/interrupts"], physical),
        irqbalance=any(
            path.endswith("/comm") and name.strip() == "irqbalance" for path, name in files.items()
        ),
        rps_default_mask=text("/proc/sys/net/core/rps_default_mask"),
        xps={
            f"{device}/{queue}": mask.strip()
            for path, mask in files.items()
            if path.endswith("/xps_cpus")
            for device, queue in [(path.split("/")[4], path.split("/")[6])]
            if device in physical
        },
        governor=text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def throttled(cpu_stat: str) -> int | None:
    """nr_throttled of a cgroup's cpu.stat (pure); v2 has it only where the controller is on."""
    rows = dict(line.split() for line in cpu_stat.splitlines())
    return int(rows["nr_throttled"]) if "nr_throttled" in rows else None


def nic_interrupts(text: str, devices: Iterable[str]) -> dict[str, list[int]]:
    """Interrupts per core of the lines of /proc/interrupts that belong to a NIC (pure).

    A NIC's line ends in its device's name (`eth0-TxRx-0`) or in a virtio queue (`virtio1-input.0`;
    without a number it is the random number generator's).
    """
    header, *lines = text.splitlines()
    count = len(header.split())
    names = (rf"\b{re.escape(device)}\b" for device in devices)
    found = re.compile("|".join([r"virtio\d+-(input|output)\.\d", *names]))
    rows = {}
    for line in lines:
        label, _, rest = line.partition(":")
        words = rest.split()
        if len(words) > count and found.search(" ".join(words[count:])):
            rows[f"{label.strip()} {words[-1]}"] = [int(word) for word in words[:count]]
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
