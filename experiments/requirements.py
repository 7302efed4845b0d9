"""What this machine must have for the lab, and how to get what it lacks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from infra.refusals import Cannot

# tool -> Debian package
TOOLS = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "ethtool": "ethtool",
    "iperf3": "iperf3",
    "nsenter": "util-linux",
    "taskset": "util-linux",
}


def require_root() -> None:
    """Raise `Cannot` where steering could not be written."""
    if os.geteuid() != 0:
        raise Cannot("root is needed to write steering: use sudo")


def missing() -> list[str]:
    """Every reason why the lab cannot run here, each with its cure; empty where it can."""
    reasons = []
    if os.geteuid() != 0:
        reasons.append("root is needed for network namespaces and steering: use sudo")
    absent = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if absent:
        reasons.append(f"install {' '.join(absent)} (apt-get install {' '.join(absent)})")
    if not Path("/proc/sys/net/core/rps_sock_flow_entries").exists():
        reasons.append(
            "net.core.rps_sock_flow_entries does not exist: this kernel has no RPS (CONFIG_RPS), "
            "or this is not the machine's first network namespace"
        )
    cores = os.cpu_count() or 1
    if cores < 2:
        reasons.append(f"the lab needs at least 2 cores, this machine has {cores}")
    return reasons


def require_lab() -> None:
    """Raise `Cannot` naming all that is missing."""
    if reasons := missing():
        raise Cannot("this machine cannot run the lab: " + "; ".join(reasons))
