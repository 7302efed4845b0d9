"""The gate of the workflow: its exit codes on results whose truth is known, and the commands it runs."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import workflow
from test_shown_commands import takes

from benchmarks.synthetic import sweep, write

COMMANDS = sorted(
    {
        re.sub(r" \| tee .*| > .*", "", line)
        for job in workflow.jobs()
        for script in workflow.scripts(job).values()
        for line in re.sub(r"\\\n *", "", script).splitlines()
        if "steerlab" in line
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_a_step_is_taken(line: str) -> None:
    environment = workflow.jobs()["gate"]["env"]
    for name in ("SWEEP", "LIMIT", "CONFIGURATION"):
        line = line.replace(f"${name}", environment[name])
    assert takes(shlex.split(line)[1:])


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 5


def test_no_step_takes_text_from_outside() -> None:
    """An expression in a script would be code of whoever opens a pull request."""
    assert not [
        text for job in workflow.jobs() for text in workflow.scripts(job).values() if "${{" in text
    ]


@pytest.mark.parametrize(
    ("after", "blocks", "code", "warned"),
    [(1.4, 12, 0, False), (1.0, 12, 4, False), (1.4, 3, 0, True)],
    ids=["kept", "worse", "inconclusive"],
)
def test_the_gate_fails_where_the_commit_is_worse(
    tmp_path: Path, after: float, blocks: int, code: int, warned: bool
) -> None:
    program = tmp_path / "steerlab"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} {workflow.ROOT}/experiments/__main__.py "$@"\n'
    )
    program.chmod(0o755)
    for seed, (name, ratio) in enumerate((("before", 1.4), ("after", after))):
        records = sweep({"baseline": 1.0, "rfs": ratio}, blocks=blocks, spread=0.01, seed=seed)
        write(records, tmp_path / "results" / name)
    told = tmp_path / "summary.md"
    environment = {**workflow.jobs()["gate"]["env"], "GITHUB_STEP_SUMMARY": str(told)}
    done = workflow.run(workflow.scripts("gate")["Compare"], tmp_path, environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("::warning::" in done.stdout) == warned
    assert "rfs against rfs" in told.read_text()


def test_its_other_programs_are_known() -> None:
    assert all(shutil.which(name) for name in ("git", "tee", "bash"))
