"""The barrier of the lab's clients, with stand-ins for its tools."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from steer_tree import eventually

from experiments.targets.contract import BarrierBroken
from experiments.targets.lab import clients
from infra import config
from infra.cores import Cores
from infra.lab import measurement
from infra.lab.measurement import Endpoint, Measurement
from infra.traffic.contract import Failure, Values

CAPTURED = (Path(__file__).parent / "data/iperf3-loopback.json").read_bytes()
CORE = min(os.sched_getaffinity(0))


@pytest.fixture
def two_pairs() -> Measurement:
    """Of the length that the captured output has."""
    state = config.state("rps-2", {"duration": "1", "omit": "0"}, (0, 1))
    cores = Cores(server=(CORE,), client=(CORE,), irq=CORE)
    return measurement.of(state).model_copy(update={"cores": cores})


class Stands:
    """Stand-ins on PATH: `nsenter` enters nothing, `iperf3` leaves its address behind and answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nsenter("exec")
        self.iperf3(f"cat {folder / 'answer'}")
        (folder / "answer").write_bytes(CAPTURED)

    def nsenter(self, start: str) -> None:
        self._tool("nsenter", f'place=$1; shift; {start} "$@"')

    def iperf3(self, answer: str) -> None:
        self._tool("iperf3", f'echo $$ > "{self.folder}/started-$4"; {answer}')

    def _tool(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def started(self) -> list[str]:
        return sorted(p.name.removeprefix("started-") for p in self.folder.glob("started-*"))


@pytest.fixture
def stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stands:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Stands(tmp_path)


def test_all_clients_wait_for_the_last_and_answer_in_order(
    two_pairs: Measurement, stands: Stands
) -> None:
    with clients.Barrier(two_pairs, two_pairs.pairs) as barrier:
        assert [client.process.poll() for client in barrier.clients] == [None, None]
        assert stands.started == []
        start = barrier.release()
        results = [client.finish(start + 60, two_pairs) for client in barrier.clients]
    assert stands.started == ["10.244.0.1", "10.244.0.2"]
    assert [(one.index, type(one.outcome)) for one in results] == [(1, Values), (2, Values)]
    assert [one.raw for one in results] == [CAPTURED, CAPTURED]


def test_a_client_that_cannot_start_stops_all(two_pairs: Measurement, stands: Stands) -> None:
    stands.nsenter('case $place in *client-2) echo "cannot open $place" >&2; exit 1;; esac; exec')
    with pytest.raises(BarrierBroken, match=r"pair 2 .*iperf-client-2: cannot open --net=/run"):
        clients.run(two_pairs, two_pairs.pairs, lambda *_: pytest.fail("traffic without a client"))
    assert stands.started == []


def test_a_client_that_cannot_join_its_cgroup_stops_all(
    two_pairs: Measurement, stands: Stands
) -> None:
    """Its shell complains and would wait on: reading on to its end would never end."""
    lost = two_pairs.pairs[0].model_copy(update={"client_cgroup": "steerlab/none/of/these"})
    with pytest.raises(BarrierBroken, match=r"steerlab/none/of/these/cgroup\.procs"):
        clients.run(two_pairs, [lost], lambda *_: None)
    assert stands.started == []


def test_a_client_that_does_not_end_is_killed(
    two_pairs: Measurement, stands: Stands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "GRACE_S", -1)  # the window alone is 1 s
    stands.iperf3("sleep 600")
    seen: list[subprocess.Popen[bytes]] = []
    spawn = clients._spawn

    def noted(*words: Any) -> subprocess.Popen[bytes]:
        seen.append(spawn(*words))
        return seen[-1]

    monkeypatch.setattr(clients, "_spawn", noted)
    results = clients.run(two_pairs, two_pairs.pairs, lambda *_: None)
    outcomes = [one.outcome for one in results]
    assert [(type(one), one.cause) for one in outcomes] == [(Failure, "traffic")] * 2
    assert [process.returncode for process in seen] == [-9, -9]


@pytest.mark.parametrize("moment", ["spawning", "measuring"])
def test_an_interrupt_leaves_no_client(
    two_pairs: Measurement, stands: Stands, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    stands.iperf3("sleep 600")
    seen: list[subprocess.Popen[bytes]] = []
    spawn: Callable[..., subprocess.Popen[bytes]] = clients._spawn

    def interrupted(what: Measurement, endpoint: Endpoint, *rest: Any) -> subprocess.Popen[bytes]:
        if moment == "spawning" and endpoint.index == 2:
            raise KeyboardInterrupt
        seen.append(spawn(what, endpoint, *rest))
        return seen[-1]

    def at(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clients, "_spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clients.run(two_pairs, two_pairs.pairs, at)
    assert [process.returncode for process in seen] == [-15] * (1 if moment == "spawning" else 2)
    if moment == "spawning":
        assert stands.started == []


def test_clients_end_with_a_driver_that_is_killed(two_pairs: Measurement, stands: Stands) -> None:
    stands.iperf3("exec sleep 600")
    reading, writing = os.pipe()
    driver = os.fork()
    if driver == 0:
        try:
            with clients.Barrier(two_pairs, two_pairs.pairs) as barrier:
                barrier.release()
                eventually(lambda: len(stands.started) == 2)
                pids = [client.process.pid for client in barrier.clients]
                os.write(writing, " ".join(map(str, pids)).encode())
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.close(writing)
    _, status = os.waitpid(driver, 0)
    pids = os.read(reading, 100).split()
    os.close(reading)
    assert (status, len(pids)) == (signal.SIGKILL, 2)
    eventually(lambda: not any(map(runs, map(int, pids))))


def runs(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
