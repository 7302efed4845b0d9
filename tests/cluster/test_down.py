"""What the test cluster makes goes again, also after it was killed half way."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab_project import Standing
from rig import binaries, packages
from rig.cluster import absent, down
from rig.layout import STATE

HERE = Path(__file__).parent


def left() -> tuple[Standing, set[str], set[str]]:
    """What stands, the devices of this machine, and who still runs from the cluster's folder."""
    devices = {path.name for path in Path("/sys/class/net").iterdir()}
    running = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if str(STATE) in words:
            running.add(words)
    return Standing.now(), devices, running


@pytest.mark.parametrize("seconds", [0.3, 1.5, 4.0])
def test_a_killed_start_leaves_nothing_after_down(seconds: float) -> None:
    packages.install(absent())
    binaries.built()
    down()
    before = left()
    process = subprocess.Popen(
        [sys.executable, "-m", "rig", "up"],
        cwd=HERE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (STATE / "machine.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait()
    assert STATE.exists()  # it was in the middle of something
    down()
    end = time.monotonic() + 10
    while left() != before and time.monotonic() < end:
        time.sleep(0.2)  # the kernel takes namespaces apart a moment later
    assert left() == before
    assert not STATE.exists()
