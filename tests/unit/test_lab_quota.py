"""What the lab changes of the machine's control groups, run on a tree of files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from infra.lab import layout, quota
from infra.lab.layout import Pod

POD = Pod(layout.Node("rps-1", "server"), 1)


class Machine:
    """A cgroup v2 of files: unlike the kernel's they keep the words that were written last."""

    def __init__(self, root: Path, controllers: str) -> None:
        self.root = root
        self.groups = root / "sys/fs/cgroup"
        self.groups.mkdir(parents=True)
        (root / "run/steerlab/lab").mkdir(parents=True)
        self.control = self.groups / "cgroup.subtree_control"
        self.control.write_text(controllers)
        self.mark = root / quota.MADE_CONTROLLER.lstrip("/")

    def run(self, lines: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        script = "\n".join(["set -eu", *lines])
        for place in ("/sys/fs/cgroup", "/run/steerlab"):
            script = script.replace(place, f"{self.root}{place}")
        return subprocess.run(["sh", "-c", script], check=check, capture_output=True, text=True)

    def limited(self) -> None:
        self.run(quota.limit(POD, "500m"))

    def taken_away(self) -> subprocess.CompletedProcess[str]:
        """As at the end of a stack; the kernel removes a group that has none below, files or not."""
        for folder in (POD.cgroup, *map(str, list(Path(POD.cgroup).parents)[:-1])):
            for file in (self.groups / folder).glob("*"):
                if file.is_file():
                    file.unlink()
        return self.run([*quota.remove(POD), *quota.remove_folders("rps-1"), *quota.release()])

    def group(self, name: str, **files: str) -> None:
        (self.groups / name).mkdir()
        for file, value in files.items():
            (self.groups / name / file.replace("_", ".")).write_text(f"{value}\n")


def test_the_controller_that_the_lab_enabled_is_disabled_after_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "memory pids\n")
    machine.group("system.slice", cpu_max="max 100000", cpu_weight="100", cpu_idle="0")
    machine.limited()
    assert machine.control.read_text() == "+cpu\n"
    assert (machine.groups / POD.cgroup / "cpu.max").read_text() == "50000 100000\n"
    assert machine.mark.exists()
    machine.taken_away()
    assert machine.control.read_text() == "-cpu\n"
    assert not machine.mark.exists()
    assert not (machine.groups / "steerlab").exists()
    machine.control.write_text("memory pids\n")
    machine.taken_away()  # once more, as `destroy --lab` may
    assert machine.control.read_text() == "memory pids\n"


@pytest.mark.parametrize("controllers", ["cpu\n", "cpuset cpu io memory pids\n"])
def test_a_controller_that_was_enabled_stays_so(tmp_path: Path, controllers: str) -> None:
    machine = Machine(tmp_path, controllers)
    machine.limited()
    machine.taken_away()
    assert machine.control.read_text() == controllers


def test_cpuset_is_not_cpu(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "cpuset memory\n")
    machine.limited()
    assert machine.control.read_text() == "+cpu\n"


@pytest.mark.parametrize(
    "file", [("cpu_max", "50000 100000"), ("cpu_weight", "200"), ("cpu_idle", "1")]
)
def test_a_controller_that_somebody_uses_by_now_stays_and_is_told(
    tmp_path: Path, file: tuple[str, str]
) -> None:
    machine = Machine(tmp_path, "memory\n")
    machine.limited()
    machine.group("user slice", **dict([file]))
    said = machine.taken_away()
    assert machine.control.read_text() == "+cpu\n"
    assert file[0].replace("_", ".") in said.stderr
    assert not machine.mark.exists()


def test_a_kernel_that_refuses_does_not_end_the_removal(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "memory\n")
    machine.limited()
    machine.control.unlink()
    machine.control.mkdir()  # takes no write
    assert "keeps cpu" in machine.taken_away().stderr
    assert not machine.mark.exists()


def test_whoever_is_killed_before_the_write_leaves_a_mark_that_does_no_harm(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path, "memory\n")
    lines = quota.limit(POD, "1")
    before = lines.index(f"    echo +cpu > {quota._CONTROL}")
    machine.run([*lines[:before], "kill -9 $$"], check=False)
    (tmp_path / "sys/fs/cgroup" / POD.cgroup).mkdir(parents=True, exist_ok=True)
    assert machine.control.read_text() == "memory\n"
    machine.run([*quota.remove(POD), *quota.remove_folders("rps-1"), *quota.release()])
    assert not machine.mark.exists()
