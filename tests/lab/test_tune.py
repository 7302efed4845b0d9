"""A tuning on the lab: its answer, an interrupt, kill -9 in the race, and the machine after it."""

from __future__ import annotations

import json
import signal
import time

from lab_project import Project, Standing

TUNE = (
    "tune", "--configurations", "rps,rfs", "--replicas", "2", "--minutes", "0.4", "--seed", "7",
    "--engine", "embedded", "--out", "out", "--events", "events.jsonl",
)  # fmt: skip
RESUME = (
    "tune", "--resume", "--engine", "embedded", "--out", "out", "--events", "events.jsonl", "--json",
)  # fmt: skip


def events(project: Project) -> list[dict]:
    return [json.loads(line) for line in (project.folder / "events.jsonl").open()]


def after_episodes(project: Project, number: int, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    path = project.folder / "events.jsonl"
    while not path.exists() or sum("episode" in line for line in path.open()) < number:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_tuning_ends_with_an_answer_and_restores_everything(project: Project) -> None:
    before = Standing.now()
    found = project.ended((*TUNE, "--json"), RESUME).json
    assert Standing.now() == before
    assert found["recommended"]["configuration"] in ("baseline", "rps", "rfs")
    assert set(found["set"]) <= {"baseline", "rps", "rfs"}
    assert found["race"]["episodes"] >= 3
    seen = events(project)
    assert (seen[0]["event"], seen[-1]["why"]) == ("planned", "complete")
    if found["recommended"]["configuration"] != "baseline":
        assert found["recommended"]["ratio"]["low"] > 1
        assert "nodes apply" in found["apply"][0]
        assert "nodes restore" in found["undo"]
        assert found["metrics"]["bitrate_mbps"]["estimate"] > 1
    report = project.run("report", "out", "--json").json
    assert report["recommended"] == found["recommended"]
    assert "## Race" in (project.folder / "out/report.md").read_text()
    settings = (
        "configuration=rfs", "configurations=out/arms.yaml", "replicas=1", "duration=1", "omit=0",
    )  # fmt: skip
    project.up("tuned", *settings)
    project.destroy("tuned")
    assert Standing.now() == before


def test_an_interrupted_tuning_has_an_answer_so_far_and_continues(project: Project) -> None:
    before = Standing.now()
    process = project.start(*TUNE)
    after_episodes(project, 2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out
    assert Standing.now() == before
    found = project.ended(RESUME, RESUME).json
    assert found["race"]["episodes"] >= 3
    assert Standing.now() == before


def test_a_tuning_that_is_killed_continues_and_restores_everything(project: Project) -> None:
    before = Standing.now()
    process = project.start(*TUNE)
    after_episodes(project, 3)
    time.sleep(0.7)  # in the next one
    process.kill()
    process.communicate()
    found = project.ended(RESUME, RESUME).json
    assert found["race"]["episodes"] >= 3
    assert Standing.now() == before
