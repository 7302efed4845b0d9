"""The state of a stack of the first version, of which nothing exists any more, is destroyed."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab_project import Project

KEPT = Path(__file__).resolve().parents[1] / "unit/data/first_version"
STACK = "kept-2"


def test_a_state_of_the_first_version_is_destroyed(project: Project) -> None:
    shutil.copy(KEPT / "stack.yaml", project.folder / f"Pulumi.{STACK}.yaml")
    shutil.copy(KEPT / "own.yaml", project.folder)
    state = project.folder / f".pulumi/stacks/steerlab/{STACK}.json"
    state.parent.mkdir(parents=True)
    shutil.copy(KEPT / "state.json", state)
    assert project.run("destroy", "-s", STACK, "--json").json["counts"]["delete"] > 10
    assert "steer-server" not in state.read_text()
