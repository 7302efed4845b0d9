"""A sweep on the lab: its records, and the machine after it, however it ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_project import Project, Standing

from experiments.validity import Cause

MATRIX = (
    "sweep", "--configurations", "baseline,rfs", "--replicas", "1,2", "--runs", "2",
    "--duration", "1", "--omit", "0", "--seed", "7", "--engine", "embedded", "--out", "out",
)  # fmt: skip
RESUME = ("sweep", "--resume", "--engine", "embedded", "--out", "out")


def _when(holds: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not holds():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_every_state_is_measured_once_a_block_and_concluded(either: Project) -> None:
    before = Standing.now()
    done = either.run(*MATRIX, "--engine", either.engine, "--json")
    assert Standing.now() == before
    records = either.valid()
    assert [record["order"] for record in records] == list(range(8))
    states = {(r["block"], r["replicas"], r["configuration"]) for r in records}
    assert len(states) == 8
    for record in records:
        assert len(record["pairs"]) == record["replicas"]
        assert record["idle_pairs"] == 2 - record["replicas"]
        flows = {queue["rps_flow_cnt"] for queue in record["steering_before"]["queues"]}
        assert (32768 in flows) == (record["configuration"] == "rfs")
        assert record["steering_before"] == record["steering_after"]
    assert done.json["verdict"]
    assert "<svg" in (either.folder / "out/report.html").read_text()


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_puts_the_machine_back_and_goes_on(
    project: Project, blow: signal.Signals
) -> None:
    before = Standing.now()
    process = project.start(*MATRIX)
    _when(project.valid, process)
    process.send_signal(blow)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in words
    assert Standing.now() == before
    kept = project.valid()
    assert 1 <= len(kept) < 8

    project.run(*RESUME, "--events", "events.jsonl")
    events = [json.loads(line) for line in (project.folder / "events.jsonl").open()]
    assert events[0]["left"] == 8 - len(kept)  # what is recorded is not run again
    assert len(project.valid()) == 8
    assert project.valid()[: len(kept)] == kept


def test_a_killed_sweep_goes_on_and_then_puts_the_machine_back(project: Project) -> None:
    before = Standing.now()
    process = project.start(*MATRIX)
    _when(project.valid, process)
    process.kill()
    process.communicate()
    assert Standing.now() != before
    project.run(*RESUME)
    assert len(project.valid()) == 8
    assert Standing.now() == before


def test_another_plan_in_the_same_directory_is_refused(project: Project) -> None:
    project.run(*MATRIX, "--plan")
    assert not (project.folder / "out").exists()
    process = project.start(*MATRIX)
    _when(project.valid, process)
    process.terminate()
    process.communicate()
    refused = project.run(*MATRIX[:-2], "--runs", "3", "--resume", "--out", "out", code=2)
    assert "plan" in refused.err


def test_a_second_command_is_refused_with_the_owner(project: Project) -> None:
    process = project.start(*MATRIX)
    try:
        _when(project.valid, process)
        refused = project.run("up", "-s", "rps-1", "--engine", "embedded", code=1)
        assert f"pid {process.pid}" in refused.err
        assert "sweep in out" in refused.err
    finally:
        process.terminate()
        process.communicate()


def test_a_second_lab_is_refused_with_the_owner(project: Project, tmp_path: Path) -> None:
    from lab_project import copy

    project.up("rps-1", "runs=0")
    other = Project(copy(tmp_path / "other"))
    refused = other.run("up", "-s", "rfs-1", "--engine", "embedded", code=1)
    assert f"rps-1 in {project.folder}" in refused.err
    assert not (other.folder / ".pulumi").exists()
    again = project.run("up", "-s", "rfs-1", "--engine", "embedded", code=1)
    assert "rps-1" in again.err


def test_an_iperf3_server_that_dies_mid_sweep_costs_one_try(project: Project) -> None:
    """The run is invalid, the server is started again, the run is made again."""
    process = project.start(*MATRIX)
    _when(project.valid, process)
    pids = list(Path("/run/steerlab/lab").glob("sweep-*/iperf-server-1"))
    os.kill(int(pids[0].read_text().split()[0]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 0
    records = project.records()
    spoiled = [record for record in records if Cause.TRAFFIC in record["causes"]]
    assert len(spoiled) == 1, records  # a busy machine may spoil others
    assert project.orders() == Counter(range(8))


def test_a_full_disk_ends_a_sweep_that_later_goes_on(project: Project) -> None:
    out = project.folder / "out"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0755", "none", out], check=True)
    try:
        before = Standing.now()
        process = project.start(*MATRIX)
        _when(project.valid, process)
        filler = out / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        _, words = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "No space left on device" in words
        assert Standing.now() == before
        kept = project.valid()

        filler.unlink()
        project.run(*RESUME)
        assert len(project.valid()) == 8
        assert project.valid()[: len(kept)] == kept
    finally:
        subprocess.run(["umount", out], check=True)


def test_the_example_of_a_sweep_from_python_runs(project: Project) -> None:
    source = (project.folder / "experiments/run/sweep.py").read_text()
    example = textwrap.dedent(
        "\n".join(re.findall(r"^(?:    .*)?$", source.split('"""')[1], re.MULTILINE))
    )
    short = example.replace('"seed": 7', '"seed": 7, "runs": 1, "duration": 1, "omit": 0')
    assert short != example
    done = subprocess.run(
        [sys.executable, "-c", short.replace("auto", "embedded")],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("6 of 6 ")


def test_results_go_to_the_checkout_wherever_one_is(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = "sweep --configurations rfs --baseline none --replicas 1 --runs 1 --duration 1 --omit 0"
    done = subprocess.run(
        [sys.executable, "-m", "experiments", *words.split(), "--engine", "embedded"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(project.folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    (results,) = (project.folder / "results").glob("sweep-*")
    assert list((results / "records").glob("run-*.json"))
    assert str(results) in done.stderr  # absolute
    assert not list(elsewhere.iterdir())
