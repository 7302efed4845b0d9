"""A lab whose state is out of reach is taken away by its names, and the machine is as before."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_project import ALIVE, RUN, TABLE, Project, Standing, clear_dead_lab, copy

STACK = "rfs-plus-4"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Project]:
    """Another folder; the lab, wherever it came from, is gone in the end."""
    before = Standing.now()
    other = Project(copy(tmp_path / "elsewhere"))
    yield other
    other.run("destroy", "--lab", "--force")
    assert Standing.now() == before


def test_with_its_state_it_is_the_stack_that_is_destroyed(project: Project) -> None:
    project.up(STACK, "runs=0")
    assert project.run("destroy", "--lab", "--json").json["counts"] == {"delete": 26}
    assert project.up(STACK, "runs=0").changes.keys() >= {"claim-file", "steer-server"}


@pytest.mark.parametrize("path", ["overlay", "host"])
def test_a_folder_that_is_gone(project: Project, elsewhere: Project, path: str) -> None:
    before = Standing.now()
    project.up(STACK, "runs=0", "podCpuLimit=500m", f"path={path}")
    assert TABLE.read_text().strip() == "32768"
    shutil.rmtree(project.folder)

    told = elsewhere.up("rps-1", "runs=0", code=1).err
    assert f"{STACK} in {project.folder}" in told
    assert "destroy --lab" in told
    refused = elsewhere.run("destroy", "-s", STACK, code=1).err
    assert "no state" in refused
    assert Standing.now() != before

    answer = elsewhere.run("destroy", "--lab", "--json").json
    assert (answer["stack"], answer["folder"]) == (STACK, str(project.folder))
    assert answer["restored"] > 0
    assert Standing.now() == before
    again = elsewhere.run("destroy", "--lab", "--json").json
    assert again == {"stack": None}


def test_all_processes_were_killed(project: Project, elsewhere: Project) -> None:
    """The watchdog of the lease too, and the snapshot is what is left."""
    before = Standing.now()
    project.up(STACK, "runs=0")
    for pid in Standing.now().servers - before.servers:
        os.kill(int(pid), signal.SIGKILL)
    while Standing.now().servers != before.servers:
        time.sleep(0.02)
    (snapshot,) = elsewhere.run("nodes", "show", "--json").json["snapshots"]
    assert snapshot["watchdog"] is None
    elsewhere.run("destroy", "--lab", "--force")
    assert Standing.now() == before

    # the state that was left behind is that of a lab that was lost
    changes = project.up(STACK, "runs=0").changes
    assert changes.pop("steer-server") == "update"
    assert set(changes.values()) == {"replace"}
    assert project.up(STACK, "runs=0").changes == {}


def test_a_half_made_lab(project: Project, elsewhere: Project) -> None:
    before = Standing.now()
    process = project.start("up", "-s", "rfs-plus-16", "-c", "runs=0", "--engine", "embedded")
    while len(list(Path("/run/netns").glob("steerlab-*-iperf-server-*"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    asked = elsewhere.run("destroy", "--lab", code=2).err
    assert str(project.folder) in asked
    assert Standing.now() != before
    elsewhere.run("destroy", "--lab", "--force")
    assert Standing.now() == before


def test_a_working_command_is_not_disturbed(project: Project, elsewhere: Project) -> None:
    process = project.start("up", "-s", "rps-1", "-c", "duration=3", "-c", "omit=0")
    while not list(RUN.glob("lab/rps-1/iperf-server-1")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    assert f"pid {process.pid}" in elsewhere.run("destroy", "--lab", code=1).err
    process.communicate()
    assert process.returncode == 0


@pytest.mark.usefixtures("elsewhere")
def test_the_tests_take_away_what_a_killed_run_of_theirs_left(tmp_path: Path) -> None:
    """Of a run that lives they take nothing, and nothing that no test has made."""
    before = Standing.now()
    dead = Project(copy(tmp_path / "pytest-1/project"))
    mine = tmp_path / "pytest-2"
    mine.mkdir()
    dead.up("rps-1", "runs=0")
    stands = Standing.now()

    with (tmp_path / "pytest-1" / ALIVE).open("w") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        clear_dead_lab(mine)
        assert Standing.now() == stands
    somebody = tmp_path / "elsewhere/pytest-3"
    somebody.mkdir(parents=True)
    clear_dead_lab(somebody)
    assert Standing.now() == stands
    clear_dead_lab(mine)
    assert Standing.now() == before
