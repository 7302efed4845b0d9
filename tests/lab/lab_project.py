"""A copy of the project to run commands in, and what stands on this machine because of it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from experiments.targets.lab import standing

SOURCE = Path(__file__).resolve().parents[2]
PROGRAM = ("agent", "infra", "experiments", "analysis", "docker")
FILES = ("__main__.py", "Pulumi.yaml", "Pulumi.lab.yaml", "requirements.txt", "steerlab")
TABLE = Path("/proc/sys/net/core/rps_sock_flow_entries")
CONTROLLERS = Path("/sys/fs/cgroup/cgroup.subtree_control")
RUN = Path("/run/steerlab")
ALIVE = ".alive"
# a sweep of three episodes of three windows, and its continuation
SWITCHBACK = (
    "sweep", "--method", "switchback", "--configurations", "baseline,rps,rfs-plus", "--replicas", "2",
    "--runs", "3", "--seed", "7", "--engine", "embedded", "--out", "out",
)  # fmt: skip
RESUME = ("sweep", "--resume", "--engine", "embedded", "--out", "out")
# what runs between two commands and holds nothing
LOCKS = {"busy", "lock"}


@cache
def live_in(base: Path) -> None:
    """Hold a run's temporary folder, as long as this process lives, for `clear_dead_lab` to see.

    Once: a second descriptor would wait for the first one for ever.
    """
    descriptor = os.open(base / ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def clear_dead_lab(base: Path) -> None:
    """Take away the lab of a test run that was killed; `base` is the temporary folder of this."""
    stands = standing.lab()
    if stands is None or not Path(stands.folder).is_relative_to(base.parent):
        return
    for other in base.parent.glob(f"*/{ALIVE}"):
        if Path(stands.folder).is_relative_to(other.parent) and _locked(other):
            return
    subprocess.run(
        [sys.executable, "-m", "experiments", "destroy", "--lab", "--force"], cwd=SOURCE, check=True
    )


def _locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def copy(folder: Path) -> Path:
    """The program alone in `folder`; it runs with this environment's packages."""
    for name in PROGRAM:
        shutil.copytree(SOURCE / name, folder / name)
    for name in FILES:
        shutil.copy2(SOURCE / name, folder / name)
    environment = SOURCE / ".venv"
    if (environment / ".steerlab").exists():
        (folder / ".venv").symlink_to(environment)
    return folder


def typed(
    line: str, folder: str | Path, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """A line as a user types it into a shell; however it ends, not with a traceback."""
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert "Traceback" not in done.stderr
    return done


def busy(code: int | None, err: str) -> bool:
    """Whether a command stopped because other programs used the cores."""
    return code == 1 and "one cause (foreign-load)" in err


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.out)
        return answer

    @property
    def changes(self) -> dict[str, str]:
        """Name -> operation, of the commands alone: a component follows what is in it."""
        return {
            step["name"]: step["operation"]
            for step in self.json["changes"]
            if "command:local:Command" in step["urn"]
        }


@dataclass(frozen=True)
class Project:
    """The command line in a project of its own, with one engine."""

    folder: Path
    engine: str = "embedded"
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def records(self, folder: str = "out/records") -> list[dict[str, Any]]:
        """Those in a folder, by default of the sweep into `out`, in the order of their names."""
        paths = sorted((self.folder / folder).glob("run-*.json"))
        return [json.loads(path.read_text()) for path in paths if ".traffic" not in path.name]

    def valid(self, folder: str = "out/records") -> list[dict[str, Any]]:
        """The valid ones of `records`: what runs have in the end, also where a busy machine spoiled an attempt."""
        return [record for record in self.records(folder) if record["valid"]]

    def last(self, stack: str) -> dict[str, Any]:
        """The last valid record of a stack."""
        return self.valid(f"results/{stack}")[-1]

    def orders(self) -> Counter[int]:
        """How often each run of the sweep was measured."""
        return Counter(record["order"] for record in self.valid())

    def killed(
        self, sweep: tuple[str, ...], resume: tuple[str, ...], kills: int, low: float, high: float
    ) -> Iterator[int]:
        """The sweep into `out`, begun or resumed, and killed after so many seconds: once each step."""
        moments = random.Random(kills)  # noqa: S311
        for number in range(kills):
            process = self.start(*(resume if (self.folder / "out/plan.json").exists() else sweep))
            time.sleep(moments.uniform(low, high))
            process.kill()
            process.communicate()
            yield number

    def start(self, *words: str, within: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*within, sys.executable, "-m", "experiments", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *words: str, code: int = 0, within: tuple[str, ...] = ()) -> Answer:
        process = self.start(*words, within=within)
        out, err = process.communicate(timeout=300)
        answer = Answer(process.returncode, out, err)
        assert answer.code == code, answer
        return answer

    def ended(self, words: tuple[str, ...], resume: tuple[str, ...]) -> Answer:
        """The command, resumed as long as other programs on a busy machine spoil its measurement."""
        for _ in range(6):
            process = self.start(*words)
            out, err = process.communicate(timeout=300)
            if not busy(process.returncode, err):
                break
            words = resume
        answer = Answer(process.returncode, out, err)
        assert answer.code == 0, answer
        return answer

    def up(self, stack: str, *settings: str, code: int = 0, within: tuple[str, ...] = ()) -> Answer:
        return self._stack("up", stack, *settings, code=code, within=within)

    def preview(self, stack: str, *settings: str) -> Answer:
        return self._stack("preview", stack, *settings)

    def destroy(self, stack: str) -> Answer:
        return self._stack("destroy", stack)

    def _stack(
        self, verb: str, stack: str, *settings: str, code: int = 0, within: tuple[str, ...] = ()
    ) -> Answer:
        words = [word for setting in settings for word in ("-c", setting)]
        return self.run(
            verb, "-s", stack, *words, "--engine", self.engine, "--json", code=code, within=within
        )


@dataclass(frozen=True)
class Standing:
    """What a lab could leave behind; two equal ones mean that nothing was left."""

    namespaces: frozenset[str]
    mounts: frozenset[str]
    servers: frozenset[str]
    files: frozenset[str]
    cgroups: frozenset[str]
    table: str
    controllers: str

    @classmethod
    def now(cls) -> Standing:
        return cls(
            namespaces=_names("/run/netns"),
            mounts=frozenset(
                line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
            ),
            servers=frozenset(_commands("iperf3", "sockperf", "agent")),
            files=frozenset(
                str(path) for path in RUN.rglob("*") if path.name not in LOCKS and path.is_file()
            ),
            cgroups=frozenset(
                str(path)
                for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/cpu")
                for path in Path(root).glob("steerlab/**")
                if path.is_dir()
            ),
            table=TABLE.read_text().strip(),
            controllers=CONTROLLERS.read_text() if CONTROLLERS.exists() else "",
        )


def _names(folder: str) -> frozenset[str]:
    path = Path(folder)
    return frozenset(entry.name for entry in path.iterdir()) if path.is_dir() else frozenset()


def _commands(*names: str) -> list[str]:
    """Pids of running processes (a zombie has no command line) that run one of these programs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            continue
        # the program itself, or the script of a Python; not a shell or an editor that names it
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        run = words[0] if "python" not in Path(words[0]).name else script
        # an agent on a tree of files is a unit test's, and has another name
        if Path(run).name in names:
            found.append(process.name)
    return found
