"""What each target needs; packages are installed, also while another installation holds apt's locks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.targets import TARGETS
from experiments.targets.lab import requirements
from infra.errors import PrerequisiteMissing

LOCKS = [
    "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)\n"
    "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process "
    "using it?",
    "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)\n"
    "E: Unable to lock directory /var/lib/apt/lists/",
    "dpkg: error: dpkg frontend lock was locked by another process with pid 7",
]

# An apt-get that fails so many times with a message.
APT = """#!/bin/bash
echo "$2" >> {0}/calls
left=$(cat {0}/left)
[ "$left" = 0 ] && exit
echo $((left - 1)) > {0}/left
cat {0}/said >&2
exit 100
"""


class Apt:
    """A PATH with an apt-get that fails `times` times with a message, and a sleep that only counts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        for name, text in {
            "apt-get": APT.format(folder),
            "sleep": f"#!/bin/sh\necho $1 >> {folder}/slept\n",
            "sudo": '#!/bin/sh\nshift; exec "$@"\n',
        }.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def fails(self, times: int, said: str) -> None:
        (self.folder / "left").write_text(f"{times}\n")
        (self.folder / "said").write_text(said)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().split()

    @property
    def slept(self) -> int:
        path = self.folder / "slept"
        return sum(map(int, path.read_text().split())) if path.exists() else 0


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    return Apt(tmp_path, monkeypatch)


@pytest.mark.parametrize("lock", LOCKS)
def test_another_installation_is_waited_for_and_named_once(
    apt: Apt, capfd: pytest.CaptureFixture[str], lock: str
) -> None:
    apt.fails(2, lock)
    requirements.install(["iperf3"])
    assert apt.calls == ["update", "update", "update", "install"]
    assert capfd.readouterr().err.count(lock.splitlines()[0]) == 1


def test_it_is_not_waited_for_for_ever(apt: Apt) -> None:
    apt.fails(1000, LOCKS[0])
    with pytest.raises(PrerequisiteMissing, match="unattended-upgr"):
        requirements.install(["iperf3"])
    assert apt.slept == 300


def test_another_failure_is_not_waited_for(apt: Apt) -> None:
    apt.fails(1, "E: Unable to locate package iperf3")
    with pytest.raises(PrerequisiteMissing, match="Unable to locate"):
        requirements.install(["iperf3"])
    assert apt.slept == 0


def test_a_cluster_needs_no_root_and_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PrerequisiteMissing("asked of the lab alone")

    monkeypatch.setattr(requirements, "become_root", refused)
    monkeypatch.setattr(requirements, "install", refused)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nowhere")
    for removal in (False, True):
        TARGETS["kubernetes"].require(removal=removal)
        with pytest.raises(PrerequisiteMissing, match="root is needed"):
            TARGETS["lab"].require(removal=removal)
