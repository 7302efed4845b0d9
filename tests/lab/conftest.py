"""Labs for the tests: a copy of the project, and the promise that nothing of it stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_project import Project, Standing, copy

from experiments.targets.lab import standing


@pytest.fixture(params=["embedded", pytest.param("pulumi", marks=pytest.mark.cli)])
def engine(request: pytest.FixtureRequest) -> str:
    """Both engines, the CLI's where it is on PATH."""
    name: str = request.param
    return name


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project whose lab is converged by the embedded engine."""
    yield from _project(tmp_path, "embedded")


@pytest.fixture
def either(tmp_path: Path, engine: str) -> Iterator[Project]:
    """A project whose lab is converged by each of the engines in turn."""
    yield from _project(tmp_path, engine)


def _project(folder: Path, engine: str) -> Iterator[Project]:
    before = Standing.now()
    made = Project(copy(folder / "project"), engine)
    try:
        yield made
    finally:
        for process in made.started:
            if process.poll() is None:
                process.kill()
                process.communicate()
        for state in sorted((made.folder / ".pulumi/stacks/steerlab").glob("*.json")):
            made.destroy(state.stem)
        # what a failed test left of a sweep would fail every test after it
        stands = standing.lab()
        if stands is not None and Path(stands.folder) == made.folder:
            made.run("destroy", "--lab", "--force")
    assert Standing.now() == before
