"""The commands that README and docs show, run in their order in one copy of the project."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import shown
import veth_pair
from lab_project import Project, Standing, copy, typed
from study_text import write_text

# `compare` may find the new one worse, or be inconclusive, within seconds on a machine with two cores.
ENDINGS = {"./steerlab compare": {0, 4, 5}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Results to report on, the study's kind of raw text, and a NIC that may be steered."""
    before = Standing.now()
    project = Project(copy(tmp_path_factory.mktemp("docs") / "project"))
    for name in ("mine", "after"):
        project.run(
            "sweep", "--configurations", "baseline,rfs,rfs-plus", "--replicas", "4", "--runs", "3",
            "--duration", "1", "--omit", "0", "--out", f"results/{name}",
        )  # fmt: skip
    shutil.copytree(project.folder / "results/mine", project.folder / "results/before")
    raw = project.folder / "raw-text"
    raw.mkdir()
    for seed, name in enumerate(("baseline", "rps")):
        bitrates = [[900 + seed, 950], [920, 940], [930 + seed, 910]]
        (raw / f"{name}-2.txt").write_text(write_text(bitrates, cores=2, seed=seed))
    veth_pair.make()
    try:
        yield project.folder
    finally:
        veth_pair.remove()
    assert Standing.now() == before


@pytest.mark.parametrize("line", shown.LAB)
def test_a_command_of_the_docs_runs(folder: Path, line: str) -> None:
    done = typed(
        shown.LAB[line] or line, folder, {**os.environ, "PYTHONPATH": str(folder)}, seconds=300
    )
    allowed = next((codes for head, codes in ENDINGS.items() if line.startswith(head)), {0})
    assert done.returncode in allowed, done.stdout + done.stderr
    assert done.stdout.strip() or done.stderr.strip(), "it says nothing"
