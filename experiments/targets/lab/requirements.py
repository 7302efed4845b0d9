"""Requirements of the lab on this machine, and the installation of missing packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from experiments.host.privileges import become_root
from infra import traffic
from infra.cores import allowed
from infra.errors import PrerequisiteMissing

# tool -> Debian package
TOOLS = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "ethtool": "ethtool",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "taskset": "util-linux",
    **traffic.of(traffic.DEFAULT).programs,
}
# With the programs of all kinds of traffic.
ALL_TOOLS = TOOLS | traffic.PROGRAMS
# For the tests only.
TESTED_WITH = {"mpstat": "sysstat"}

_APT = Path(__file__).with_name("apt.sh")


def require_root() -> None:
    """Return as root; raises `PrerequisiteMissing` where steering could not be written."""
    become_root("to read or write steering")


def missing(tools: Mapping[str, str] = TOOLS, *, removal: bool = False) -> list[str]:
    """Every reason why the lab cannot run, or be removed, on this machine, each with its remedy."""
    reasons = []
    if os.geteuid() != 0:
        reasons.append("root is needed for network namespaces and steering: use sudo")
    if absent := packages(tools):
        reasons.append(f"install {' '.join(absent)} (apt-get install {' '.join(absent)})")
    if not Path("/proc/sys/net/core/rps_sock_flow_entries").exists():
        reasons.append(
            "net.core.rps_sock_flow_entries does not exist: this kernel has no RPS (CONFIG_RPS), "
            "or this is not the machine's first network namespace"
        )
    if not removal and (cores := len(allowed())) < 2:
        reasons.append(
            f"the lab needs at least 2 cores, this process may use {cores}: the machine has no "
            "more, or a cpuset restricts it (systemd AllowedCPUs=, docker --cpuset-cpus, cpuset.cpus)"
        )
    return reasons


def packages(tools: Mapping[str, str]) -> list[str]:
    """The packages of the tools that are not on PATH."""
    return sorted({package for tool, package in tools.items() if shutil.which(tool) is None})


def require_lab(tools: Mapping[str, str] = TOOLS, *, removal: bool = False) -> None:
    """Return as root on a machine that has these tools; a removal needs no second core.

    Starts this command again under sudo and installs packages where possible. Raises
    `PrerequisiteMissing` with all missing requirements.
    """
    with suppress(PrerequisiteMissing):  # missing() has this reason and all others
        become_root("for network namespaces and steering")
    if os.geteuid() == 0:
        install(packages(tools))
    if reasons := missing(tools, removal=removal):
        raise PrerequisiteMissing("this machine cannot run the lab: " + "; ".join(reasons))


def prepare_tests() -> None:
    """Install what the lab's tests need, where possible; else they are skipped with a reason."""
    with suppress(PrerequisiteMissing):
        become_root("for the tests of the lab")
        install(packages(ALL_TOOLS | TESTED_WITH))


def install(absent: list[str]) -> None:
    """Install Debian packages, where there is apt. Raises `PrerequisiteMissing` where that fails."""
    if not absent or shutil.which("apt-get") is None:
        return
    sys.stderr.write(f"steerlab: installing {' '.join(absent)}\n")
    for words in (["update"], ["install", "-y", "--no-install-recommends", *absent]):
        done = subprocess.run(
            ["/bin/bash", "-p", "-c", '. "$0"; apt "$@"', _APT, *words],
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            said = " ".join(done.stdout.split())[-500:]
            raise PrerequisiteMissing(f"apt-get {words[0]}: {said} (needed: {' '.join(absent)})")
