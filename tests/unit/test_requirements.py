"""What the lab needs is installed, also while another installation holds apt's locks."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from experiments.targets.lab import requirements
from infra.errors import PrerequisiteMissing

LOCKS = [
    "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)\n"
    "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process "
    "using it?\n",
    "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)\n"
    "E: Unable to lock directory /var/lib/apt/lists/\n",
    "dpkg: error: dpkg frontend lock was locked by another process with pid 7\n",
]


class Apt:
    """An apt-get that ends with these words, one after the other, and then well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *said: str) -> None:
        self.said = list(said)
        self.calls: list[str] = []
        self.slept = 0.0
        monkeypatch.setattr(requirements.shutil, "which", lambda _: "/usr/bin/apt-get")
        monkeypatch.setattr(requirements.subprocess, "run", self.run)
        monkeypatch.setattr(requirements.time, "monotonic", lambda: self.slept)
        monkeypatch.setattr(requirements.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def run(self, words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls += [next(word for word in words if word in ("update", "install"))]
        said = self.said.pop(0) if self.said else ""
        return subprocess.CompletedProcess(words, 100 if said else 0, "", said)


@pytest.mark.parametrize("lock", LOCKS)
def test_another_installation_is_waited_for_and_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lock: str
) -> None:
    apt = Apt(monkeypatch, lock, lock)
    requirements.install(["iperf3"])
    assert apt.calls == ["update", "update", "update", "install"]
    assert capsys.readouterr().err.count(lock.splitlines()[0]) == 1


def test_it_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch, *LOCKS[:1] * 1000)
    with pytest.raises(PrerequisiteMissing, match="unattended-upgr"):
        requirements.install(["iperf3"])
    assert apt.slept >= 300


def test_another_failure_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch, "E: Unable to locate package iperf3\n")
    with pytest.raises(PrerequisiteMissing, match="Unable to locate"):
        requirements.install(["iperf3"])
    assert apt.slept == 0
