"""kill -9 at random moments of episodes: the driver, its agent, both. Nothing stays, nothing is missing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab_project import RESUME, RUN, SWITCHBACK, Project, Standing
from steer_tree import AGENT, eventually, plan, rule, steer

# Seconds after the start of the agent: it prepares and clients connect, windows, restore and records.
PHASES = ((0, 0.6), (0.6, 3.4), (3.0, 4.0))


@pytest.fixture
def draw() -> random.Random:
    seed = random.randrange(10**6)  # noqa: S311
    print(f"seed {seed}")  # noqa: T201 shown where the test fails
    return random.Random(seed)  # noqa: S311


class Sweep:
    """A sweep into `out`, started again when it has ended."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.process = self._start()
        self._before = 0

    def _start(self) -> subprocess.Popen[str]:
        kept = (self.project.folder / "out/plan.json").exists()
        return self.project.start(*(RESUME if kept else SWITCHBACK), within=("setsid",))

    def next_agent(self) -> int:
        """The pid of the agent of the next episode, as soon as it runs."""
        end = time.monotonic() + 120
        while not (agent := self.agent()) or agent == self._before:
            assert time.monotonic() < end
            if self.process.poll() is not None:
                self._ended()
                self.process = self._start()
            time.sleep(0.005)
        self._before = agent
        return agent

    def agent(self) -> int:
        """The pid of the agent of an episode; 0 where there is none."""
        try:
            task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}")
            for child in (task / "children").read_text().split():
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"switchback" in words:
                    return int(child)
        except OSError:
            pass
        return 0

    def _ended(self) -> None:
        """It was killed, has stopped because its agents were killed, or is complete and starts again."""
        _, err = self.process.communicate()
        if self.process.returncode == 0:
            assert {record["order"] for record in self.project.records()} == set(range(9))
            if self.project.orders() == Counter(
                range(9)
            ):  # else both attempts at an episode were killed
                shutil.rmtree(self.project.folder / "out")
        else:
            assert self.process.returncode == -signal.SIGKILL or "cause (agent)" in err, err

    def kill(self, victim: str, agent: int) -> bool:
        """Whether the victim still ran."""
        if victim == "agent":
            runs = self.agent() == agent
            if runs:
                os.kill(agent, signal.SIGKILL)
            return runs
        if self.process.poll() is not None:
            return False
        os.kill(self.process.pid, signal.SIGKILL) if victim == "driver" else os.killpg(
            self.process.pid, signal.SIGKILL
        )
        self.process.wait()
        return True


VICTIMS = ("driver", "agent", "both")


@pytest.mark.parametrize(
    ("victims", "times"),
    [(VICTIMS, 2), *(pytest.param((one,), 30, marks=pytest.mark.long) for one in VICTIMS)],
    ids=["each", *VICTIMS],
)
def test_a_sweep_that_is_killed_in_episodes_ends_complete(
    project: Project, draw: random.Random, victims: tuple[str, ...], times: int
) -> None:
    before = Standing.now()
    sweep = Sweep(project)
    left = draw.sample(victims * times, len(victims) * times)
    missed = 0
    while left:
        agent = sweep.next_agent()
        moment = draw.uniform(*PHASES[len(left) % len(PHASES)]) * 0.9**missed
        time.sleep(moment)
        killed = sweep.kill(left[-1], agent)
        print(f"{left[-1]} after {moment:.3f} s: {killed}")  # noqa: T201
        assert set(project.orders().values()) <= {1}
        if not killed:  # it had ended: earlier next time
            missed += 1
            continue
        missed = 0
        if left.pop() != "agent" and draw.random() < 0.5:
            project.run("destroy", "--lab", "--force")
            eventually(lambda: Standing.now() == before)
    sweep.process.communicate(timeout=120)
    project.run(*(RESUME if (project.folder / "out/plan.json").exists() else SWITCHBACK))
    assert project.orders() == Counter(range(9))
    attempts = Counter((record["order"], record["attempt"]) for record in project.records())
    assert set(attempts.values()) == {1}
    eventually(lambda: Standing.now() == before)


# agents alone, each with a node of its own, so that one wait is enough for the leases of all

WINDOWS = [
    {"plan": name, "at": 0.2 + 0.15 * index, "settle": 0.02, "seconds": 0.1}
    for index, name in enumerate(("rps", "rfs", "rps", "rfs"))
]
LEASE_S = 62  # the shortest for these windows


class Node:
    """A network namespace with a device of two queues; mask 2 and 64 flows in each."""

    def __init__(self, number: int) -> None:
        self.name = f"slx-{os.getpid()}-{number}"
        self.path = f"/run/netns/{self.name}"
        self.owner = f"{self.name}/server"
        self.snapshot = RUN / f"{self.name}%2Fserver.snapshot"

    def __enter__(self) -> None:
        queues = ("numrxqueues", "2", "numtxqueues", "2")
        _ip("netns", "add", self.name)
        _ip("-n", self.name, "link", "add", "eth1", *queues, "type", "veth", "peer", "name", "wire")
        for file, value in (("rps_cpus", "2"), ("rps_flow_cnt", "64")):
            script = f"for q in /sys/class/net/eth1/queues/rx-*; do echo {value} > $q/{file}; done"
            _ip("netns", "exec", self.name, "sh", "-c", script)

    def __exit__(self, *_: object) -> None:
        self.restore()
        _ip("netns", "del", self.name)

    def schedule(self) -> dict[str, Any]:
        rules = {"rps": {"cpus": "all"}, "rfs": {"flows": 32768}}
        return {
            "version": 1,
            "plans": {
                name: plan(rule("nic", "eth1", namespace=self.path, **set_), owner=self.owner)
                for name, set_ in rules.items()
            },
            "windows": WINDOWS,
            "receivers": [os.getpid()],
            "lease_seconds": LEASE_S,
        }

    def values(self) -> list[str]:
        with steer.Machine() as machine:
            (namespace,) = machine.visit([self.path])[0].values()
            files = sorted(namespace.net.glob("eth1/queues/rx-*/rps_*"))
            return [file.read_text().strip() for file in files]

    def agent(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", AGENT, "switchback"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        process.stdin.write(json.dumps(self.schedule()) + "\n")
        process.stdin.flush()
        return process

    def restore(self) -> dict[str, Any]:
        with steer.Machine() as machine:
            answer: dict[str, Any] = steer.restore(machine, self.owner)
            return answer


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def start(process: subprocess.Popen[str]) -> None:
    """Wait until an agent is ready, and start it."""
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("start\n")
    process.stdin.flush()


def phases(node: Node) -> dict[str, tuple[float, float]]:
    """The phases of an episode that is not killed; all but the first count from the start signal."""
    began = time.monotonic()
    with node.agent() as process:
        start(process)
        ready = time.monotonic()
        assert process.stdout
        answer = json.loads(process.stdout.read())
    assert answer["left"] == []
    last = answer["windows"][-1]["edges"][1]["at"]
    return {
        "start": (0, ready - began),
        "connecting": (0, WINDOWS[0]["at"]),
        "windows": (WINDOWS[0]["at"] + 0.1, last - ready),
        "restore": (last - ready - 0.005, last - ready + 0.02),
    }


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Iterator[list[Node]]:
    with ExitStack() as stack:
        found = [Node(number) for number in range(request.param)]
        for node in found:
            stack.enter_context(node)
        yield found


@pytest.mark.parametrize(
    ("nodes", "remedy"),
    [(4, "restore"), pytest.param(32, "lease", marks=pytest.mark.long)],
    indirect=["nodes"],
)
def test_agents_that_are_killed_are_restored(
    nodes: list[Node], draw: random.Random, remedy: str
) -> None:
    before = [node.values() for node in nodes]
    spans = phases(nodes[0])
    assert nodes[0].values() == before[0]
    for number, node in enumerate(nodes):
        phase = list(spans)[number % len(spans)]
        moment = draw.uniform(*spans[phase])
        with node.agent() as process:
            if phase != "start":
                start(process)
            time.sleep(moment)
            process.kill()
        print(phase, f"{moment:.3f} s", node.snapshot.exists(), node.values())  # noqa: T201
    changed = [now != was for now, was in zip(map(Node.values, nodes), before, strict=True)]
    assert sum(changed) >= len(nodes) // 4
    held = [node.snapshot for node in nodes if node.snapshot.exists()]
    leases = [steer.Snapshot.from_text(one.read_text()).lease for one in held]
    if remedy == "restore":
        answers = [node.restore() for node in nodes]
        assert not any(one["failed"] or one["left"] or one["gone"] for one in answers)
    eventually(lambda: not any(one.exists() for one in held), LEASE_S + 30)
    assert [node.values() for node in nodes] == before
    eventually(lambda: not any(lease.watched() for lease in leases))
