"""The wrapper ./steerlab: an environment that could not be made is not taken for one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "chmod", "dirname", "env", "flock", "id", "mkdir", "readlink", "sha256sum")
TOOLS += ("tail", "tr")
LAB = ("iperf3", "mpstat", "ip", "ethtool")

# `python3 -m venv FOLDER` puts itself there; `-m pip` ends as the file `pip` beside it says.
PYTHON = """#!/bin/bash
here=$(dirname "$(readlink -f "$0")")
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cat "$0" > "$3/bin/python"; chmod +x "$3/bin/python" ;;
  "-m pip "*) exit "$(cat PIP)" ;;
  "-m experiments "*) echo "ran ${@:3}" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The wrapper alone, on a machine with the lab's tools."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (tools / tool).symlink_to(found)
    for tool, text in (*((one, "#!/bin/bash\n") for one in LAB), ("python3", PYTHON)):
        (tools / tool).write_text(text)
        (tools / tool).chmod(0o755)
    for name in ("steerlab", "requirements.txt"):
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def steerlab(project: Path, *words: str, pip: int) -> subprocess.CompletedProcess[str]:
    (project / "PIP").write_text(str(pip))
    return subprocess.run(
        [project / "steerlab", *words], cwd=project, env={"PATH": str(project / "bin")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_failed_installation_is_said_and_made_again(project: Path) -> None:
    failed = steerlab(project, "doctor", pip=1)
    assert failed.returncode == 1
    assert "the Python environment could not be made" in failed.stderr
    assert not failed.stdout
    again = steerlab(project, "doctor", pip=0)
    assert (again.returncode, again.stdout) == (0, "ran doctor\n")
    assert "making .venv" in again.stderr
    third = steerlab(project, "doctor", "--json", pip=1)
    assert (third.stdout, third.stderr) == ("ran doctor --json\n", "")


def test_changed_requirements_are_installed(project: Path) -> None:
    steerlab(project, "doctor", pip=0)
    with (project / "requirements.txt").open("a") as file:
        file.write("# another\n")
    assert "making .venv" in steerlab(project, "doctor", pip=0).stderr
