"""Ctrl-C on a terminal, once and more often: the machine is as before, or told how it becomes so."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from lab_project import Project, Standing, typed

SWEEP = (
    "sweep", "--configurations", "baseline,rfs", "--replicas", "8", "--runs", "20",
    "--duration", "1", "--omit", "0", "--out", "out here",
)  # fmt: skip


def started(project: Project, *words: str) -> subprocess.Popen[str]:
    """In a session of its own, as a terminal's foreground group is."""
    return project.start(*words, "--engine", project.engine, within=("setsid",))


def press(process: subprocess.Popen[str], times: int, every: float = 0.15) -> None:
    """Ctrl-C: the terminal signals the whole group."""
    for _ in range(times):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(every)


def reach(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not what():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("presses", [1, 2, 3])
def test_more_than_one_ctrl_c_does_not_break_the_clean_up(either: Project, presses: int) -> None:
    before = Standing.now()
    process = started(either, *SWEEP)
    reach(lambda: any((either.folder / "out here").glob("records/run-*.json")), process)
    press(process, presses)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert Standing.now() == before
    assert "Traceback" not in err


def test_while_it_is_made_too(either: Project) -> None:
    before = Standing.now()
    process = started(either, *SWEEP)
    reach(lambda: bool(Standing.now().namespaces - before.namespaces), process)
    press(process, 3)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert Standing.now() == before


def test_a_clean_up_that_is_given_up_says_how_it_is_finished(project: Project) -> None:
    before = Standing.now()
    process = started(project, *SWEEP)
    reach(lambda: any((project.folder / "out here").glob("records/run-*.json")), process)
    press(process, 30, every=0.01)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert Standing.now() != before
    lines = [line.partition(": ")[2] for line in err.splitlines() if "--lab" in line]
    command = shlex.split(lines[0].removesuffix(" removes it"))
    done = typed(shlex.join(command), project.folder, {**os.environ, "PYTHONPATH": ""}, seconds=120)
    assert done.returncode == 0, done.stderr
    assert Standing.now() == before


def test_an_interrupted_up_says_how_it_is_undone(either: Project) -> None:
    before = Standing.now()
    process = started(either, "up", "-s", "rfs-plus-8", "-c", "runs=0")
    reach(lambda: bool(Standing.now().namespaces - before.namespaces), process)
    press(process, 2)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "destroy -s rfs-plus-8" in err
    either.destroy("rfs-plus-8")
    assert Standing.now() == before


def test_outputs_are_the_last_measurement(either: Project) -> None:
    either.up("rps-1", "duration=1", "omit=0")
    first = either.run("outputs", "-s", "rps-1", "--json").json
    again = either.run("measure", "-s", "rps-1", "--json").json
    assert again["bitrate_mbps"] != first["bitrate_mbps"]
    told = either.run("outputs", "-s", "rps-1", "--json").json
    assert told["bitrate_mbps"] == again["bitrate_mbps"]
    assert either.preview("rps-1").changes == {}
    assert either.up("rps-1").json["outputs"]["bitrate_mbps"] == again["bitrate_mbps"]
