"""kill -9 at random moments of a tuning: every value is as before, and it continues to its end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from lab_project import RUN, Project, Standing, busy
from steer_tree import eventually

# What they set of the machine itself stays, unless it is restored.
OWN = """
table: {machine: {rps_sock_flow_entries: 32768}, nic: {rps_flow_cnt: 32768}}
budget: {machine: {netdev_budget: 600, netdev_budget_usecs: 20000}}
backlog: {machine: {netdev_max_backlog: 4000, dev_weight: 128}, pod: {gro: 'on'}}
"""
TUNE = (
    "tune", "--configurations", "own.yaml", "--replicas", "2", "--minutes", "0.35", "--seed", "7",
    "--engine", "embedded", "--out", "out", "-c", "lease=90s",
)  # fmt: skip
RESUME = ("tune", "--resume", "--engine", "embedded", "--out", "out", "--json")
LEASE_S = 90
# Seconds of a tuning with its set-up and its end.
SECONDS = 28


@pytest.fixture
def draw() -> random.Random:
    seed = random.randrange(10**6)  # noqa: S311
    print(f"seed {seed}")  # noqa: T201 shown where the test fails
    return random.Random(seed)  # noqa: S311


def sysctls() -> dict[str, str]:
    """The values of the machine that an arm may set."""
    found = {}
    for path in Path("/proc/sys/net/core").iterdir():
        if path.is_file() and path.stat().st_mode & 0o444:
            found[path.name] = path.read_text()
    return found


def records(project: Project, phase: str) -> list[dict]:
    return project.records(f"out/{phase}/records")


def no_episode_is_twice(project: Project) -> None:
    race = Counter((one["block"], one["configuration"]) for one in records(project, "race"))
    fresh = Counter((one["order"], one["attempt"]) for one in records(project, "confirmation"))
    assert set(race.values()) | set(fresh.values()) <= {1}
    blocks = {block for block, _ in race}
    assert blocks == set(range(len(blocks)))


def agent(process: subprocess.Popen[str]) -> int:
    """The pid of the agent of an episode, which has a session of its own; 0 where there is none."""
    with contextlib.suppress(OSError):
        task = Path(f"/proc/{process.pid}/task/{process.pid}")
        for child in (task / "children").read_text().split():
            if b"switchback" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return int(child)
    return 0


def begun(project: Project) -> bool:
    return (project.folder / "out/tune.json").exists()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_tuning_killed_again_and_again_ends_with_an_answer(
    project: Project, draw: random.Random, kills: int
) -> None:
    (project.folder / "own.yaml").write_text(OWN)
    before, values = Standing.now(), sysctls()
    left = kills
    while left:
        process = project.start(*(RESUME if begun(project) else TUNE))
        moment = draw.uniform(0.3, SECONDS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        if process.poll() is not None:  # it has ended: another one
            _, err = process.communicate()
            if not busy(process.returncode, err):
                assert process.returncode == 0, err
                shutil.rmtree(project.folder / "out")
            continue
        running = agent(process) if draw.random() < 0.5 else 0  # is killed too
        process.kill()
        if running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running, signal.SIGKILL)
        process.communicate()
        print(f"after {moment:.3f} s, agent {running}")  # noqa: T201
        no_episode_is_twice(project)
        left -= 1
        if draw.random() < 0.5:
            project.run("destroy", "--lab", "--force")
            eventually(lambda: Standing.now() == before)
            assert sysctls() == values
        if not begun(project):
            shutil.rmtree(project.folder / "out", ignore_errors=True)
    found = project.ended(RESUME if begun(project) else (*TUNE, "--json"), RESUME).json
    valid = Counter(one["block"] for one in records(project, "race") if one["valid"])
    assert found["race"]["episodes"] == sum(count > 1 for count in valid.values())
    assert found["recommended"]["configuration"] in ("baseline", "table", "budget", "backlog")
    no_episode_is_twice(project)
    assert Standing.now() == before
    assert sysctls() == values


@pytest.mark.long  # the lease of a race is longer than that of an episode of a sweep
def test_a_tuning_that_is_killed_and_forgotten_is_restored_by_its_lease(
    project: Project, draw: random.Random
) -> None:
    (project.folder / "own.yaml").write_text(OWN)
    values = sysctls()
    process = project.start(*TUNE)
    end = time.monotonic() + 60
    stopped = 0
    while not stopped:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(draw.uniform(0.01, 0.1))
        found = agent(process)
        if found and records(project, "race") and sysctls() != values:
            os.kill(found, signal.SIGSTOP)  # so that the window does not end before the kill
            stopped = found if sysctls() != values else 0
            os.kill(found, signal.SIGKILL if stopped else signal.SIGCONT)
    process.kill()
    process.communicate()
    assert sysctls() != values
    eventually(lambda: not list(RUN.rglob("*.snapshot")), LEASE_S + 40)
    assert sysctls() == values
    project.ended(RESUME, RESUME)  # removes the lab itself
    assert sysctls() == values
