"""A sweep that is killed at any moment goes on and ends complete; one that does not is put back."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from lab_project import RESUME, RUN, TABLE, Project, Standing

MATRIX = (
    "sweep", "--configurations", "baseline,rfs,rps", "--replicas", "1,2", "--runs", "2",
    "--duration", "1", "--omit", "0", "--seed", "7", "--engine", "embedded", "--out", "out",
)  # fmt: skip
RUNS = 12


def orders(project: Project) -> Counter[int]:
    paths = (project.folder / "out/records").glob("run-*[a-z].json")
    whole = [json.loads(path.read_text()) for path in paths if ".traffic" not in path.name]
    return Counter(record["order"] for record in whole)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.long)])
def test_a_sweep_killed_again_and_again_ends_complete(project: Project, kills: int) -> None:
    before = Standing.now()
    for number in project.killed(MATRIX, RESUME, kills, 0.2, 4.0):
        kept = orders(project)
        assert all(count == 1 for count in kept.values()), number
    project.run(*(RESUME if (project.folder / "out/plan.json").exists() else MATRIX))
    assert orders(project) == Counter(range(RUNS))
    assert Standing.now() == before


@pytest.mark.long  # that of a sweep by switchback is tried in each run of the tests
def test_a_sweep_that_is_killed_and_forgotten_is_put_back_by_its_lease(project: Project) -> None:
    before = TABLE.read_text()
    process = project.start(
        *MATRIX[:2], "rfs", "--baseline", "none", *MATRIX[3:], "-c", "lease=15s"
    )
    end = time.monotonic() + 60
    while not orders(project):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    assert TABLE.read_text().strip() == "32768"
    process.kill()
    process.communicate()
    end = time.monotonic() + 40
    while list(RUN.rglob("*.snapshot")) and time.monotonic() < end:
        time.sleep(0.2)
    assert not list(RUN.rglob("*.snapshot"))
    assert TABLE.read_text() == before
    project.run(*RESUME)  # takes the lab itself away


def test_a_fresh_sweep_answers_and_leaves_nothing(project: Project) -> None:
    before = Standing.now()
    project.run(*MATRIX, "--isolation", "fresh")
    assert orders(project) == Counter(range(RUNS))
    assert Standing.now() == before


def test_a_sweep_whose_time_is_up_ends_well_and_goes_on(project: Project) -> None:
    said = project.run(*MATRIX, "--max-time", "6s", "--events", "told").err
    made = sum(orders(project).values())
    assert 0 < made < RUNS
    assert f"{RUNS - made} runs left" in said
    events = [json.loads(line) for line in (project.folder / "told").read_text().splitlines()]
    assert events[-1]["why"] == "time"
    assert events[-1]["left"] == RUNS - made
    project.run(*RESUME, "--events", "told")
    assert orders(project) == Counter(range(RUNS))
    last = (project.folder / "told").read_text().splitlines()[-1]
    assert json.loads(last)["why"] == "complete"
