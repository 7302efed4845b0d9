"""The folders in which a lab keeps what its scripts act on: its own user's alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from infra.lab.script import private_folders


def made(folder: Path) -> subprocess.CompletedProcess[str]:
    lines = ["set -eu", *private_folders(str(folder), f"{folder}/lab"), "echo made"]
    return subprocess.run(
        ["sh", "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )


def test_folders_are_made_and_closed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "lab").mkdir(parents=True, mode=0o755)
    folder.chmod(0o777)
    for _ in range(2):
        assert made(folder).stdout == "made\n"
        assert {path.stat().st_mode & 0o777 for path in (folder, folder / "lab")} == {0o700}


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    folder = tmp_path / "run"
    folder.symlink_to("elsewhere")
    done = made(folder)
    assert (done.returncode, done.stdout, str(folder) in done.stderr) == (1, "", True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    os.chown(folder, 12345, -1)
    done = made(folder)
    assert (done.returncode, done.stdout, str(folder) in done.stderr) == (1, "", True)
