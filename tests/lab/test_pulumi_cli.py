"""Plain Pulumi, as the README shows it, does what the embedded engine does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_project import TABLE, Project, copy

pytestmark = pytest.mark.cli

STACK = "rfs-plus-4"
Pulumi = Callable[..., str]


@pytest.fixture
def pulumi(project: Project, tmp_path: Path) -> Pulumi:
    """The CLI in the project's root, with the empty passphrase."""
    environment = {
        **os.environ,
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_HOME": str(tmp_path / "home"),
    }
    environment.pop("PYTHONPATH", None)
    (project.folder / ".pulumi").mkdir()

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            ["pulumi", *words, "--non-interactive"],
            cwd=project.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_a_state_from_nothing_to_nothing(pulumi: Pulumi) -> None:
    pulumi("stack", "select", "--create", STACK)
    pulumi("config", "set", "duration", "2")
    assert "27 to create" in pulumi("preview")
    assert "+ 27 created" in pulumi("up", "--yes")
    assert TABLE.read_text().strip() == "32768"
    assert float(pulumi("stack", "output", "bitrate_mbps")) > 0
    assert "27 unchanged" in pulumi("up", "--yes")

    pulumi("config", "set", "replicas", "8")
    words = pulumi("up", "--yes")
    assert "+ 12 created" in words
    assert "~ 1 updated" in words
    assert "+-1 replaced" in words
    assert "25 unchanged" in words
    assert "- 39 deleted" in pulumi("destroy", "--yes")


def test_a_team_shares_its_backend(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team").mkdir()
    monkeypatch.setenv("PULUMI_BACKEND_URL", (tmp_path / "team").as_uri())
    own = Project(project.folder, "pulumi", project.started)
    own.up(STACK, "runs=0")
    assert own.up(STACK).json["changes"] == []
    assert not (project.folder / ".pulumi/stacks").exists()
    colleague = Project(copy(tmp_path / "colleague"), "pulumi")
    words = ("outputs", "-s", STACK, "--json", "--engine")
    assert colleague.run(*words, "pulumi").json["configuration"] == "rfs-plus"
    # nothing is kept beside it
    said = own.run("up", "-s", STACK, "--engine", "embedded", code=3).err
    assert "PULUMI_BACKEND_URL" in said
    own.destroy(STACK)
    assert "has never been up" in colleague.run(*words, "pulumi", code=2).err


def test_bad_configuration_is_refused_in_the_same_words(project: Project, pulumi: Pulumi) -> None:
    pulumi("stack", "select", "--create", STACK)
    pulumi("config", "set", "replicas", "abc")
    ours = project.run("preview", "-s", STACK, code=2).err.split("steerlab: ")[1].strip()
    assert " ".join(ours.split()) in " ".join(pulumi("up", "--yes", code=1).split())


def test_the_ready_stack_lab_keeps_its_file(project: Project, pulumi: Pulumi) -> None:
    """The CLI writes a salt into a stack file that has none."""
    before = (project.folder / "Pulumi.lab.yaml").read_bytes()
    pulumi("stack", "select", "--create", "lab")
    pulumi("preview")
    assert (project.folder / "Pulumi.lab.yaml").read_bytes() == before


def test_a_key_of_a_target_is_set_by_its_path(project: Project, pulumi: Pulumi) -> None:
    pulumi("stack", "select", "--create", STACK)
    pulumi("config", "set", "--path", "lab.path", "moon")
    pulumi("config", "set", "--path", "kubernetes.context", "NAME")
    ours = project.run("preview", "-s", STACK, code=2).err.split("steerlab: ")[1].strip()
    assert "lab.path" in ours
    assert " ".join(ours.split()) in " ".join(pulumi("up", "--yes", code=1).split())
