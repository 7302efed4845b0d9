"""Files of results: to whom they belong that root writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analysis import files

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a file away")
USER, OTHER = 12345, 23456


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder."""
    os.chown(tmp_path, USER, USER)
    return tmp_path


def test_what_root_writes_belongs_to_the_owner_of_the_folder(home: Path) -> None:
    made = files.folder(home / "results/deep")
    files.write(made / "record", "x")
    assert owners(home) == {USER}


def test_a_new_folder_belongs_to_who_called_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", str(USER))
    monkeypatch.setenv("SUDO_GID", str(USER))
    files.write(files.folder(tmp_path / "results") / "record", "x")
    assert owners(tmp_path / "results") == {USER}
    files.write(tmp_path / "unit", "x")  # root's folder: a unit of systemd stays root's
    assert (tmp_path / "unit").stat().st_uid == 0


def test_what_is_handed_over_is_nobody_else_s(home: Path) -> None:
    tree = home / "state"
    (tree / "below").mkdir(parents=True)
    (tree / "below/file").touch()
    (tree / "other").touch()
    os.chown(tree / "other", OTHER, OTHER)
    root_s = home / "root's"
    root_s.touch()
    (tree / "link").symlink_to(root_s)
    os.link(root_s, tree / "second name")
    files.hand_over(tree)
    assert (tree / "below/file").stat().st_uid == USER
    assert (tree / "other").stat().st_uid == OTHER
    assert root_s.stat().st_uid == 0


def test_a_link_is_no_folder_for_results(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="symbolic link"):
        files.folder(tmp_path / "link")


def test_a_device_stays_as_it_is(home: Path) -> None:
    """Events can be written to a terminal."""
    controller, terminal = os.openpty()
    before = os.fstat(terminal).st_uid
    files.give(terminal, home.stat())
    assert os.fstat(terminal).st_uid == before != USER
    os.close(controller)
    os.close(terminal)
