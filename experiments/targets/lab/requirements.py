"""What this machine must have for the lab, and how it gets what it lacks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from analysis.plaintext import visible
from experiments.host.privileges import become_root
from infra.cores import allowed
from infra.errors import PrerequisiteMissing

# tool -> Debian package
TOOLS = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "ethtool": "ethtool",
    "iperf3": "iperf3",
    "nsenter": "util-linux",
    "taskset": "util-linux",
}
# What the tests need besides.
TESTED_WITH = {"mpstat": "sysstat"}

# How long another installation may hold apt's locks, and how often they are tried.
_OTHER_INSTALLATION_S = 300.0
_AGAIN_S = 2.0
_LOCKED = re.compile("get lock|frontend lock")


def require_root() -> None:
    """Return as root; raises `PrerequisiteMissing` where steering could not be written."""
    become_root("to read or write steering")


def missing(*, removal: bool = False) -> list[str]:
    """Every reason why the lab cannot run, or be removed, here, each with its cure."""
    reasons = []
    if os.geteuid() != 0:
        reasons.append("root is needed for network namespaces and steering: use sudo")
    if absent := packages(TOOLS):
        reasons.append(f"install {' '.join(absent)} (apt-get install {' '.join(absent)})")
    if not Path("/proc/sys/net/core/rps_sock_flow_entries").exists():
        reasons.append(
            "net.core.rps_sock_flow_entries does not exist: this kernel has no RPS (CONFIG_RPS), "
            "or this is not the machine's first network namespace"
        )
    if not removal and (cores := len(allowed())) < 2:
        reasons.append(
            f"the lab needs at least 2 cores, this process may use {cores}: the machine has no "
            "more, or a cpuset holds it (systemd AllowedCPUs=, docker --cpuset-cpus, cpuset.cpus)"
        )
    return reasons


def packages(tools: dict[str, str]) -> list[str]:
    """The packages of the tools that are not on PATH."""
    return sorted({package for tool, package in tools.items() if shutil.which(tool) is None})


def require_lab(*, removal: bool = False) -> None:
    """Return as root on a machine that has the lab's tools; a removal needs no second core.

    Starts this command again under sudo and installs packages where it can. Raises `PrerequisiteMissing`
    naming all that is missing.
    """
    with suppress(PrerequisiteMissing):  # that and all other reasons are named below
        become_root("for network namespaces and steering")
    if os.geteuid() == 0:
        install(packages(TOOLS))
    if reasons := missing(removal=removal):
        raise PrerequisiteMissing("this machine cannot run the lab: " + "; ".join(reasons))


def prepare_tests() -> None:
    """As far as it goes, what the lab's tests need: they skip, with a reason, where it is missing."""
    with suppress(PrerequisiteMissing):
        become_root("for the tests of the lab")
        install(packages(TOOLS | TESTED_WITH))


def install(absent: list[str]) -> None:
    """Install Debian packages, where there is apt. Raises `PrerequisiteMissing` where that fails."""
    if not absent or shutil.which("apt-get") is None:
        return
    sys.stderr.write(f"steerlab: installing {' '.join(absent)}\n")
    for words in (["update"], ["install", "-y", "--no-install-recommends", *absent]):
        done = _apt(words)
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[-500:]
            raise PrerequisiteMissing(f"apt-get {words[0]}: {said} (needed: {' '.join(absent)})")


def _apt(words: list[str]) -> subprocess.CompletedProcess[str]:
    """apt-get, once whoever else installs packages here has ended (unattended-upgrades does at boot).

    apt's own DPkg::Lock::Timeout waits without a word, and not for the lists.
    """
    end = time.monotonic() + _OTHER_INSTALLATION_S
    told = False
    while True:
        done = subprocess.run(
            ["apt-get", "-qq", *words],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0 or not _LOCKED.search(done.stderr) or time.monotonic() >= end:
            return done
        if not told:
            sys.stderr.write(
                f"steerlab: waiting up to {_OTHER_INSTALLATION_S / 60:.0f} minutes for another "
                f"installation: {visible(done.stderr.splitlines()[0])}\n"
            )
            told = True
        time.sleep(_AGAIN_S)
