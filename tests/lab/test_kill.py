"""kill -9 of the embedded engine at any step: the next `up` or `destroy` puts everything right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lab_project import RUN, Project, Standing

STACK = "rfs-plus-16"
PAIRS = 16
# how often the checkpoint is written by an `up` and a `destroy` of this stack, at most
WRITES = {"up": 42, "destroy": 43}

# The command line, which kills itself before or after it writes the checkpoint for the nth time.
DRIVER = """
import os, signal, sys
from experiments.cli import main
from experiments.engines.embedded import state

point, moment = int(sys.argv.pop(1)), sys.argv.pop(1)
save, writes = state.save, 0

def counted(stack, text):
    global writes
    writes += 1
    if writes == point and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    save(stack, text)
    if writes == point:
        os.kill(os.getpid(), signal.SIGKILL)

state.save = counted
main()
"""


def _points(count: int) -> list[tuple[str, int, str, str]]:
    """(what is killed, at which write, before or after it, what comes next), spread evenly."""
    chosen = random.Random(773)  # noqa: S311 the same points each time
    points = []
    for index in range(count):
        verb = ("up", "destroy")[index % 2]
        then = ("up", "destroy")[index // 2 % 2]
        last = WRITES[verb]
        share = (index // 2 + chosen.random()) / (count / 2)
        points.append((verb, 1 + int(share * last), chosen.choice(("before", "after")), then))
    return points


def _killed(project: Project, verb: str, point: int, moment: str) -> bool:
    words = [verb, "-s", STACK, "--engine", "embedded"]
    if verb == "up":
        words += ["-c", "runs=0"]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(point), moment, *words],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(project.folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def _is_right(project: Project) -> None:
    """The machine holds the state, all of it, and nothing else."""
    assert project.preview(STACK).changes == {}
    namespaces = set(Path("/run/netns").glob(f"steerlab-{STACK}-*"))
    assert len(namespaces) == 2 + 2 * PAIRS
    recorded = {path.read_text().split()[0] for path in (RUN / "lab" / STACK).iterdir()}
    assert len(recorded) == PAIRS
    assert recorded == _running("iperf3")


def _running(name: str) -> set[str]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == name.encode():
            found.add(process.name)
    return found


def _kill_and_mend(project: Project, verb: str, point: int, moment: str, then: str) -> None:
    before = Standing.now()
    if verb == "destroy":
        project.up(STACK, "runs=0")
    _killed(project, verb, point, moment)
    if then == "up":
        project.up(STACK, "runs=0")
        _is_right(project)
    project.destroy(STACK)
    assert Standing.now() == before


@pytest.mark.parametrize("point", _points(10), ids=lambda point: "-".join(map(str, point)))
def test_killed_at_a_step(project: Project, point: tuple[str, int, str, str]) -> None:
    _kill_and_mend(project, *point)


@pytest.mark.long
def test_killed_at_sixty_steps(project: Project) -> None:
    for point in _points(60):
        _kill_and_mend(project, *point)


def test_the_points_cover_the_steps(project: Project) -> None:
    """The last point is near the last write: a killed run was killed, not just late."""
    assert _killed(project, "up", WRITES["up"] // 2, "after")
    assert not _killed(project, "up", WRITES["up"] * 2, "after")
    assert not _killed(project, "destroy", WRITES["destroy"] * 2, "after")
