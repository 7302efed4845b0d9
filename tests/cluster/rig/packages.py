"""Debian packages of the test cluster, installed without starting any service of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rig.command import RigError

# What Debian's packages ask before they start a service; absent on most machines.
_POLICY = Path("/usr/sbin/policy-rc.d")


def install(packages: Sequence[str]) -> None:
    """Install with apt-get, quietly. Raises `RigError` with its words where that fails."""
    if not packages:
        return
    print(f"cluster: installing {' '.join(packages)}", file=sys.stderr)  # noqa: T201
    own = not _POLICY.exists()
    if own:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    quiet = ("-y", "-qq", "--no-install-recommends")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for words in (("update", "-qq"), ("install", *quiet, *packages)):
            done = subprocess.run(
                ["apt-get", *words], env=environment, capture_output=True, text=True, check=False
            )
        if done.returncode != 0:
            raise RigError(f"apt-get install: {done.stderr.strip()[-500:]}")
    finally:
        if own:
            _POLICY.unlink()
