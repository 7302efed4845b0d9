"""iperf3's JSON of one pair, captured and spoiled; and the barrier, with stand-ins for its tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import iperf
from infra import config
from infra.cores import Cores
from infra.lab import measurement
from infra.lab.measurement import Endpoint, Measurement

CAPTURED = (Path(__file__).parent / "data/iperf3-loopback.json").read_bytes()

# iperf3 3.12 against a closed port; it ends with exit code 0.
REFUSED = b"""{
	"start":	{
		"connected":	[],
		"version":	"iperf 3.12",
		"system_info":	"Linux vm 6.18.44-fc-v669 #1 SMP PREEMPT_DYNAMIC @0 x86_64"
	},
	"intervals":	[],
	"end":	{
	},
	"error":	"unable to connect to server: Connection refused"
}
"""


def without_bytes() -> bytes:
    result = json.loads(CAPTURED)
    result["end"]["sum_received"] |= {"bytes": 0, "bits_per_second": 0}
    return json.dumps(result).encode()


def test_goodput_is_the_receivers() -> None:
    """The sender's own figure is 24550.481."""
    pair = iperf.parse(3, CAPTURED)
    assert (pair.index, pair.bitrate_mbps, pair.retransmits) == (3, 24549.082, 0)
    assert pair.reason is None


@pytest.mark.parametrize(
    ("output", "status", "words"),
    [
        (REFUSED, 0, "iperf3: unable to connect to server: Connection refused"),
        (CAPTURED[:700], -9, r"exit -9\) did not answer in JSON: .*intervals"),
        (b"", 1, r"exit 1\) did not answer in JSON: no output"),
        (b"\xff\xfe\xfa broken", 1, "did not answer in JSON: .* broken"),
        (b"iperf3: parameter error", 1, "iperf3: parameter error"),
        (b"[]", 0, "not an object"),
        (b'{"start": {}, "end": {}}', 0, "no received bytes"),
        (without_bytes(), 0, "no received bytes"),
        (b'{"end": null}', 0, "no received bytes"),
        (b'{"end": {"sum_received": []}}', 0, "no received bytes"),
        (b'{"end": {"sum_received": {"bits_per_second": "1"}}}', 0, "no received bytes"),
        (b'{"end": {"sum_received": {"bits_per_second": NaN}}}', 0, "no received bytes"),
    ],
)
def test_a_pair_without_a_number_has_a_reason(output: bytes, status: int, words: str) -> None:
    pair = iperf.parse(1, output, status)
    assert pair.bitrate_mbps is None
    assert pair.reason is not None
    assert re.search(words, pair.reason, re.DOTALL), pair.reason


@pytest.fixture
def two_pairs() -> Measurement:
    state = config.state("rps-2", {"duration": "7", "omit": "3", "streams": "4"}, (0, 1))
    core = min(os.sched_getaffinity(0))
    cores = Cores(server=(core,), client=(core,), irq=core)
    return measurement.of(state).model_copy(update={"cores": cores})


def test_the_command_line(two_pairs: Measurement) -> None:
    assert " ".join(iperf.command(two_pairs, two_pairs.pairs[1])) == (
        "iperf3 --json --version4 --client 10.244.0.2 --port 5201"
        " --time 7 --omit 3 --parallel 4 --interval 1 --connect-timeout 3000"
    )


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
    with iperf.Barrier(two_pairs, two_pairs.pairs) as barrier:
        assert [client.process.poll() for client in barrier.clients] == [None, None]
        assert stands.started == []
        start = barrier.release()
        results = [client.finish(start + 60) for client in barrier.clients]
    assert stands.started == ["10.244.0.1", "10.244.0.2"]
    assert [(pair.index, pair.bitrate_mbps) for pair, _ in results] == [
        (1, 24549.082),
        (2, 24549.082),
    ]
    assert [raw for _, raw in results] == [CAPTURED, CAPTURED]


def test_a_client_that_cannot_start_stops_all(two_pairs: Measurement, stands: Stands) -> None:
    stands.nsenter('case $place in *client-2) echo "cannot open $place" >&2; exit 1;; esac; exec')
    with pytest.raises(
        iperf.BarrierBroken, match=r"pair 2 .*iperf-client-2: cannot open --net=/run"
    ):
        iperf.run(two_pairs, two_pairs.pairs, lambda _: pytest.fail("traffic without a client"))
    assert stands.started == []


def test_a_client_that_cannot_join_its_cgroup_stops_all(
    two_pairs: Measurement, stands: Stands
) -> None:
    """Its shell complains and would wait on: reading on to its end would never end."""
    lost = two_pairs.pairs[0].model_copy(update={"client_cgroup": "steerlab/none/of/these"})
    with pytest.raises(iperf.BarrierBroken, match=r"steerlab/none/of/these/cgroup\.procs"):
        iperf.run(two_pairs, [lost], lambda _: None)
    assert stands.started == []


def test_a_client_that_does_not_end_is_killed(
    two_pairs: Measurement, stands: Stands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iperf, "GRACE_S", -10)  # the window alone is 10 s
    stands.iperf3("sleep 600")
    seen: list[subprocess.Popen[bytes]] = []
    spawn = iperf._spawn

    def noted(*words: Any) -> subprocess.Popen[bytes]:
        seen.append(spawn(*words))
        return seen[-1]

    monkeypatch.setattr(iperf, "_spawn", noted)
    results = iperf.run(two_pairs, two_pairs.pairs, lambda _: None)
    assert [pair.reason for pair, _ in results] == ["iperf3 did not end in time"] * 2
    assert [pair.bitrate_mbps for pair, _ in results] == [None, None]
    assert [process.returncode for process in seen] == [-9, -9]


@pytest.mark.parametrize("moment", ["spawning", "measuring"])
def test_an_interrupt_leaves_no_client(
    two_pairs: Measurement, stands: Stands, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    stands.iperf3("sleep 600")
    seen: list[subprocess.Popen[bytes]] = []
    spawn: Callable[..., subprocess.Popen[bytes]] = iperf._spawn

    def interrupted(what: Measurement, endpoint: Endpoint, *rest: Any) -> subprocess.Popen[bytes]:
        if moment == "spawning" and endpoint.index == 2:
            raise KeyboardInterrupt
        seen.append(spawn(what, endpoint, *rest))
        return seen[-1]

    def at(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(iperf, "_spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        iperf.run(two_pairs, two_pairs.pairs, at)
    assert [process.returncode for process in seen] == [-9] * (1 if moment == "spawning" else 2)
    if moment == "spawning":
        assert stands.started == []


@pytest.mark.parametrize(
    ("duration", "streams", "seconds"),
    [(10, 1, 1), (5000, 1, 1), (5001, 1, 2), (60, 128, 1), (3600, 128, 47), (86_400, 1, 18),
     (86_400, 128, 0)],
)  # fmt: skip
def test_iperf3_reports_no_more_than_is_read(duration: int, streams: int, seconds: int) -> None:
    assert iperf.interval(duration, streams) == seconds
    assert not seconds or duration / seconds * (streams + 1) <= 10_000
