"""The gate of the workflow, from two commits to its exported results, as a runner runs its steps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import workflow
from lab_project import Standing, copy

SHORT = "--configurations baseline,rfs --replicas 2 --runs 3"


def git(folder: Path, *words: str) -> str:
    """Git without the user's settings."""
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_gate_judges_two_commits(tmp_path: Path) -> None:
    """With three episodes it is inconclusive, which does not fail; both sweeps and the export are there."""
    stands = Standing.now()
    project = copy(tmp_path / "project")
    git(project, "init", "-q")
    (project / ".gitignore").write_text(".venv\nresults/\n")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "before")
    before = git(project, "rev-parse", "HEAD")
    git(project, "commit", "-q", "--allow-empty", "-m", "after")
    told = tmp_path / "summary.md"
    environment = {
        **workflow.jobs()["gate"]["env"],
        "BEFORE": before,
        "SWEEP": SHORT,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(told),
    }
    for name, script in workflow.scripts("gate").items():
        done = workflow.run(script, project, environment)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        if (tmp_path / "before").exists() and not (tmp_path / "before/.venv").exists():
            (tmp_path / "before/.venv").symlink_to((project / ".venv").resolve())
    assert "rfs against rfs at 2 pairs: inconclusive" in told.read_text()
    assert (project / "results/before/report.html").is_file()
    assert "<testcase" in (project / "results/after/junit.xml").read_text()
    assert Standing.now() == stands
