"""The lab under a cpuset: the cores of a record are those that its processes may use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_project import Project

_V1, _V2 = Path("/sys/fs/cgroup/cpuset"), Path("/sys/fs/cgroup")


@pytest.fixture
def one_core() -> Iterator[Path]:
    """A cpuset with the last CPU of this process alone."""
    root = _V1 if _V1.is_dir() else _V2
    controllers = root / "cgroup.subtree_control"
    if root == _V2 and "cpuset" not in controllers.read_text().split():
        pytest.skip("the cpuset controller is not enabled for the machine's control groups")
    group = root / "steerlab-test-cpuset"
    group.mkdir()
    try:
        if root == _V1:
            (group / "cpuset.mems").write_text((root / "cpuset.mems").read_text())
        (group / "cpuset.cpus").write_text(str(max(os.sched_getaffinity(0))))
        yield group
    finally:
        group.rmdir()


def test_a_cpuset_of_one_core_is_refused_and_blocks_no_destroy(
    project: Project, one_core: Path
) -> None:
    inside = ("sh", "-c", f'echo $$ > {one_core}/cgroup.procs; exec "$@"', "sh")
    project.up("rps-1", "runs=0", code=3, within=inside)
    chosen = {"server": [0, max(os.sched_getaffinity(0))], "client": [0], "irq": 0}
    refused = project.up("rps-1", "runs=0", f"lab.cpus={json.dumps(chosen)}", code=3, within=inside)
    assert "2 cores" in refused.err or "may not use core 0" in refused.err
    project.up("rps-1", "runs=0")
    project.run("destroy", "-s", "rps-1", within=inside)
