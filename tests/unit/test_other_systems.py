"""A workstation without Linux: what a cluster needs of the operator's machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

# As on macOS: no /proc and /sys, and none of what Python has on Linux alone.
SCRIPT = """
import os, signal, sys
import kubernetes, pulumi, pulumi_command, pulumi_kubernetes, pytest, typer, urllib.request
sys.path[:0] = [{here!r}, {root!r}]
sys.platform = "darwin"
for module, names in {{
    os: ("posix_fallocate", "fdatasync", "sched_getaffinity", "sched_setaffinity", "setns", "unshare",
         "pidfd_open", "memfd_create", "splice", "getxattr"),
    signal: ("sigtimedwait", "sigwaitinfo", "pidfd_send_signal"),
}}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def absent(event, words):
    if event in ("open", "os.listdir", "os.scandir") and str(words[0]).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", words[0])


sys.addaudithook(absent)
from pathlib import Path
from fake_cluster import serving
import experiments.cli.stacks, experiments.cli.sweep, experiments.cli.results, experiments.run.sweep
from experiments.run.stage import Stage
from experiments.targets.kubernetes import doctor, target
from test_cluster_owners import STACK, World, in_this_process

room = Path({room!r})
in_this_process(pytest.MonkeyPatch())
with serving(room) as (cluster, kubeconfig):
    world = World(cluster, kubeconfig, room)
    before = set(cluster.objects)
    world.up("me")
    assert set(cluster.objects) > before
    with target.busy(STACK, "destroy"):
        target.refuse_replaced(world.stack("me"))
        world.destroy("me")
    assert set(cluster.objects) == before
stage = Stage(room, STACK, None, target)
try:
    with stage.restoring(world.stack("me"), lambda: None):
        pass
except AttributeError as error:
    assert "destroy" in str(error), error  # there is no engine
"""


def test_a_stack_of_a_cluster_needs_nothing_of_linux(tmp_path: Path) -> None:
    script = SCRIPT.format(here=str(HERE), root=str(HERE.parents[1]), room=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
